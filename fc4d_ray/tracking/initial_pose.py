"""Where the head is before anything else is known, in closed form from known cameras."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from fc4d_ray.cameras import Camera
from fc4d_ray.errors import TrackingFailed
from fc4d_ray.heads.anny import rotation_between
from fc4d_ray.heads.trackable import TrackableHead
from fc4d_ray.tracking.evidence import MultiviewFrames

_FEWEST = 6
_JAW = slice(0, 17)
_NEAREST_M, _FARTHEST_M = 0.1, 20.0


def initial_poses(
    head: TrackableHead, frames: MultiviewFrames
) -> tuple[NDArray[np.float64], NDArray[np.float64], float]:
    """Rotation (T, 3) axis-angle, translation (T, 3) metres, and the head's scale.

    Landmarks seen by two cameras are triangulated and the mean head's are laid onto them; the
    scale says how much larger the seen head is. With one camera perspective alone tells the
    distance, and the scale is 1. Frames without landmarks take the nearest frame's pose.

    Raises ``TrackingFailed`` where no frame has landmarks enough.
    """
    rest = _rest_landmarks(head)
    poses: dict[int, tuple[NDArray, NDArray, float]] = {}
    for t in range(frames.n_frames):
        confidence = frames.confidence[t].copy()
        confidence[:, _JAW] *= 0.2
        found = _pose(rest, frames.cameras, frames.landmarks[t], confidence)
        if found is not None:
            poses[t] = found
    if not poses:
        raise TrackingFailed("no frame has enough landmarks to place the head")
    known = np.array(sorted(poses))
    rotations, translations = [], []
    for t in range(frames.n_frames):
        turn, middle, _ = poses[int(known[np.abs(known - t).argmin()])]
        rotations.append(Rotation.from_matrix(turn).as_rotvec())
        translations.append(middle)
    rotation = np.stack(rotations)
    return (
        rotation,
        np.stack(translations) - _turned_middle(head, rotation),
        float(np.median([scale for _, _, scale in poses.values()])),
    )


def triangulate(
    cameras: Sequence[Camera],
    pixels: NDArray[np.floating],  # [V, N, 2]
    confidence: NDArray[np.floating],  # [V, N]
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Points (N, 3) and whether two cameras or more saw each; linear, weighted by confidence."""
    n_points = pixels.shape[1]
    points = np.zeros((n_points, 3))
    seen = (confidence > 0).sum(0) >= 2
    matrices = [camera.K @ camera.world_to_camera[:3] for camera in cameras]
    for n in np.flatnonzero(seen):
        rows = []
        for view in np.flatnonzero(confidence[:, n] > 0):
            matrix, (x, y) = matrices[view], pixels[view, n]
            scale = confidence[view, n] / cameras[view].K[0, 0]
            rows += [scale * (x * matrix[2] - matrix[0]), scale * (y * matrix[2] - matrix[1])]
        rows = np.stack(rows)
        points[n] = np.linalg.lstsq(rows[:, :3], -rows[:, 3], rcond=None)[0]
    return points, seen


def _pose(
    rest: NDArray, cameras: Sequence[Camera], pixels: NDArray, confidence: NDArray
) -> tuple[NDArray, NDArray, float] | None:
    """Rotation, place of the landmarks' middle, and scale; None where too little is seen."""
    points, seen = triangulate(cameras, pixels, confidence)
    seen &= np.linalg.norm(points, axis=1) < _FARTHEST_M
    if seen.sum() >= _FEWEST:
        weight = confidence[:, seen].sum(0)
        weight = weight / weight.sum()
        a = rest[seen] - (weight[:, None] * rest[seen]).sum(0)
        b = points[seen] - (weight[:, None] * points[seen]).sum(0)
        share = np.sqrt(weight)[:, None]
        turn = rotation_between(share * a, share * b).T
        turned = a @ turn.T
        scale = float((weight[:, None] * turned * b).sum() / (weight[:, None] * a**2).sum())
        middle = (weight[:, None] * points[seen]).sum(0) + turn @ (
            rest.mean(0) - (weight[:, None] * rest[seen]).sum(0)
        )
        return (turn, middle, scale) if np.isfinite(scale) and scale > 0 else None
    view = int(confidence.sum(1).argmax())
    used = confidence[view] > 0
    return _perspective(rest, used, cameras[view], pixels[view]) if used.sum() >= _FEWEST else None


def _perspective(
    rest: NDArray, used: NDArray, camera: Camera, pixels: NDArray
) -> tuple[NDArray, NDArray, float] | None:
    """Pose from one camera (PnP)."""
    middle = rest.mean(0)
    solved, turn, shift = cv2.solvePnP(
        (rest[used] - middle).astype(np.float64), pixels[used].astype(np.float64),
        camera.K.astype(np.float64), None, flags=cv2.SOLVEPNP_SQPNP,
    )  # fmt: skip
    if not solved or not _NEAREST_M < shift[2, 0] < _FARTHEST_M:
        return None
    rotation = camera.world_to_camera[:3, :3]
    matrix = rotation.T @ Rotation.from_rotvec(turn[:, 0]).as_matrix()
    return matrix, rotation.T @ (shift[:, 0] - camera.world_to_camera[:3, 3]), 1.0


def _rest_landmarks(head: TrackableHead) -> NDArray[np.float64]:
    return _landmarks(head, np.zeros((1, 3)))[0]


def _turned_middle(head: TrackableHead, rotation: NDArray) -> NDArray[np.float64]:
    """(T, 3) middle of the landmarks of the mean head under the rotations, not translated."""
    return _landmarks(head, rotation).mean(1)


def _landmarks(head: TrackableHead, rotation: NDArray) -> NDArray[np.float64]:
    corners = head.landmark_corners()
    points = head.points(corners.ravel())
    reference = points.positions(
        *_zero(points.identity_size, points.parameter_sizes, 1, _device_of(points))
    )
    identity, zero = _zero(
        points.identity_size, points.parameter_sizes, len(rotation), reference.device
    )
    turned = zero | {"rotation": torch.as_tensor(rotation).to(reference)}
    places = points.positions(identity, turned).double().cpu().numpy()
    return np.einsum(
        "tlkc,lk->tlc", places.reshape(len(rotation), -1, 3, 3), head.landmark_barycentric
    )


def _device_of(points) -> torch.device:
    return next(v.device for v in vars(points).values() if isinstance(v, torch.Tensor))


def _zero(k: int, sizes, n_frames: int, device) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    identity = torch.zeros(k, device=device)
    return identity, {n: torch.zeros(n_frames, d, device=device) for n, d in sizes.items()}
