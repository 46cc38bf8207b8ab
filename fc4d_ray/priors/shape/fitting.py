"""Camera, identity and expression of the embedded head from 68 landmarks.

Perspective camera of a fixed field of view; linear identity with a unit Gaussian prior; the 52
actions in 0…1 with a sparse prior. On the side of the face that turns away, the detector marks the
visible outline instead of the jaw line, so those landmarks slide along the mesh's own outline.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fc4d_ray.cameras import Camera
from fc4d_ray.errors import ConfigError, FitFailed
from fc4d_ray.heads.anny import AnnyHead
from fc4d_ray.heads.rig import Region

_JAW = slice(0, 17)
_OUTER_EYE = (36, 45)
_POSE_FIRST = 0.12
"""Share of the steps in which the mean face only turns: free identity would explain a nod."""


@dataclass(frozen=True)
class FitConfig:
    """How the head model is fitted to landmarks."""

    __pydantic_config__: ClassVar = {"extra": "forbid"}

    fov_deg: float = 20.0
    """Field of view assumed for the portrait crop; a typical portrait lens seen from 1.4 m."""
    steps: int = 700
    """Optimiser steps; the fit is flat well before."""
    jaw_weight: float = 0.35
    """Weight of the 17 jaw-line landmarks, whose position along the jaw is vague."""
    identity_weight: float = 0.00035
    """Weight of the Gaussian prior on identity coefficients."""
    action_weight: float = 0.0025
    """Weight of the sparse prior on actions."""
    max_error: float = 0.12
    """Mean landmark error, in outer eye distances, above which the fit counts as failed."""

    def __post_init__(self) -> None:
        if not 5.0 <= self.fov_deg <= 60.0:
            raise ConfigError(f"shape.fit.fov_deg must lie in 5…60, got {self.fov_deg}")
        if self.steps < 10:
            raise ConfigError(f"shape.fit.steps must be at least 10, got {self.steps}")


@dataclass(frozen=True)
class HeadFit:
    """The fitted head as the portrait shows it."""

    identity: NDArray[np.float32]  # [K]
    actions: NDArray[np.float32]  # [52], 0…1
    camera: Camera
    error: float
    """Mean landmark distance in outer eye distances."""

    @property
    def azimuth_deg(self) -> float:
        """Direction the portrait was taken from, in the head frame."""
        x, _, z = self.camera.position
        return float(np.rad2deg(np.arctan2(x, z)))

    @property
    def elevation_deg(self) -> float:
        position = self.camera.position
        return float(np.rad2deg(np.arcsin(position[1] / np.linalg.norm(position))))


class _LandmarkModel:
    """The head at its landmarks only: a few thousand numbers instead of the whole mesh."""

    def __init__(self, head: AnnyHead) -> None:
        corners = head.faces[head.landmark_faces]
        weights = head.landmark_barycentric[..., None]
        self.mean = torch.from_numpy((head.mean[corners] * weights).sum(1)).float()
        self.identity = torch.from_numpy((head.identity_basis[:, corners] * weights).sum(2)).float()
        self.actions = torch.from_numpy((head.action_basis[:, corners] * weights).sum(2)).float()

    def __call__(self, identity: Tensor, actions: Tensor) -> Tensor:
        offset = torch.tensordot(identity, self.identity, 1)
        return self.mean + offset + torch.tensordot(actions, self.actions, 1)


def fit_head(
    head: AnnyHead, landmarks: NDArray[np.floating], size: int, config: FitConfig
) -> HeadFit:
    """Fit to ``landmarks`` (68, 2) in pixels of a square crop of ``size`` pixels.

    Raises ``FitFailed`` where the landmarks are not those of a face.
    """
    target = torch.as_tensor(np.asarray(landmarks), dtype=torch.float32)
    eye_distance = (target[_OUTER_EYE[0]] - target[_OUTER_EYE[1]]).norm()
    if not torch.isfinite(target).all() or eye_distance < 1:
        raise FitFailed("the landmarks are not finite or lie in one point")
    # A turned face shortens the eye line; the height of the face does not shrink with it.
    scale = torch.maximum(eye_distance, 0.75 * (target[27] - target[8]).norm())
    focal = 0.5 * size / np.tan(np.deg2rad(config.fov_deg) / 2)
    model = _LandmarkModel(head)
    outline = _FarOutline(head)
    rotation, translation = _initial_pose(model.mean, target, focal, size)
    identity = torch.zeros(len(head.identity_basis), requires_grad=True)
    logits = torch.full((len(head.action_names),), -4.0, requires_grad=True)
    pose = [rotation.requires_grad_(), translation.requires_grad_()]
    optimiser = torch.optim.Adam(
        [
            {"params": pose, "lr": 0.01},
            {"params": [identity], "lr": 0.03},
            {"params": [logits], "lr": 0.08},
        ]
    )
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, config.steps, 1e-4)
    weights = torch.ones(68)
    weights[_JAW] = config.jaw_weight
    usable = _usable_actions(head.action_names)
    for step in range(config.steps):
        progress = step / config.steps
        actions = logits.sigmoid() * usable * float(progress > 0.25)
        points = model(identity, actions)
        if step % 25 == 0 and step >= 100:
            outline.update(identity, actions, rotation, translation)
        points = outline.replace(points, identity, actions)
        camera_points = points @ _rotation(rotation).T + translation
        pixels = camera_points[:, :2] / camera_points[:, 2:] * focal + size / 2
        distance = ((pixels - target).square().sum(-1) + 1e-6).sqrt() / scale
        data = (
            (
                weights
                * torch.nn.functional.huber_loss(
                    distance, torch.zeros(68), delta=0.05, reduction="none"
                )
            ).sum()
            / weights.sum()
            * 40
        )
        prior = config.identity_weight * identity.square().sum()
        prior = prior + config.action_weight * actions.sum()
        optimiser.zero_grad()
        (data + prior).backward()
        if progress < _POSE_FIRST:
            identity.grad.zero_()
        optimiser.step()
        schedule.step()
    with torch.no_grad():
        error = float(distance[17:].mean())
        matrix = np.eye(4)
        matrix[:3, :3] = _rotation(rotation).double().numpy()
        matrix[:3, 3] = translation.double().numpy()
    if not np.isfinite(error) or error > config.max_error:
        raise FitFailed(
            f"the head model misses the landmarks by {error:.3f} outer eye distances "
            f"(limit {config.max_error}): they do not look like a face"
        )
    K = np.array([[focal, 0, size / 2], [0, focal, size / 2], [0, 0, 1]], np.float64)
    return HeadFit(
        identity.detach().numpy(), actions.detach().numpy(), Camera(K, matrix, size, size), error
    )


class _FarOutline:
    """Stand-ins for the jaw landmarks on the side that turns away from the camera."""

    def __init__(self, head: AnnyHead) -> None:
        y = head.mean[:, 1]
        lower_face = (head.region == Region.FACE) & (y < 0.03) & (y > -0.14)
        lower_face &= head.mean[:, 2] > 0.0
        self.candidates = np.flatnonzero(lower_face)
        self.mean = torch.from_numpy(head.mean[self.candidates])
        self.identity = torch.from_numpy(head.identity_basis[:, self.candidates])
        self.actions = torch.from_numpy(head.action_basis[:, self.candidates])
        self.chosen: dict[int, int] = {}
        self._jaw_height = (
            head.mean[head.faces[head.landmark_faces[_JAW]]]
            * head.landmark_barycentric[_JAW, :, None]
        ).sum(1)[:, 1]

    @torch.no_grad()
    def update(self, identity: Tensor, actions: Tensor, rotation: Tensor, shift: Tensor) -> None:
        """Choose, for the present pose, the outermost vertex at each far landmark's height."""
        matrix = _rotation(rotation)
        position = -(matrix.T @ shift)
        yaw = float(torch.rad2deg(torch.atan2(position[0], position[2])))
        self.chosen = {}
        if abs(yaw) < 10:
            return
        # Camera on the subject's left (+x): the right side (-x, landmarks 0…7) is the far one.
        far = range(8) if yaw > 0 else range(9, 17)
        points = self.mean + torch.tensordot(identity, self.identity, 1)
        points = points + torch.tensordot(actions, self.actions, 1)
        view = points @ matrix.T + shift
        across = view[:, 0] / view[:, 2]
        outward = -across if yaw > 0 else across
        for i in far:
            band = (self.mean[:, 1] - float(self._jaw_height[i])).abs() < 0.008
            if band.any():
                rows = torch.nonzero(band)[:, 0]
                self.chosen[i] = int(rows[outward[rows].argmax()])

    def replace(self, points: Tensor, identity: Tensor, actions: Tensor) -> Tensor:
        if not self.chosen:
            return points
        rows = torch.tensor(list(self.chosen.values()))
        moved = self.mean[rows] + torch.tensordot(identity, self.identity[:, rows], 1)
        moved = moved + torch.tensordot(actions, self.actions[:, rows], 1)
        return points.index_copy(0, torch.tensor(list(self.chosen)), moved)


def _usable_actions(names: tuple[str, ...]) -> Tensor:
    """Actions that 68 landmarks can tell; gaze and the tongue they cannot."""
    hidden = ("eyeLook", "tongueOut", "cheekPuff", "jawForward", "mouthRoll", "mouthClose")
    return torch.tensor([0.0 if n.startswith(hidden) else 1.0 for n in names])


def _rotation(axis_angle: Tensor) -> Tensor:
    x, y, z = axis_angle
    zero = torch.zeros_like(x)
    skew = torch.stack([zero, -z, y, z, zero, -x, -y, x, zero]).reshape(3, 3)
    return torch.linalg.matrix_exp(skew)


def _initial_pose(points: Tensor, target: Tensor, focal: float, size: int) -> tuple[Tensor, Tensor]:
    """Pose from a PnP solution on the rigid landmarks, else a frontal guess."""
    import cv2

    rigid = [36, 39, 42, 45, 27, 30, 33, 48, 54, 8]
    K = np.array([[focal, 0, size / 2], [0, focal, size / 2], [0, 0, 1]])
    spread = float((target[17:].amax(0) - target[17:].amin(0)).max())
    distance = focal * 0.115 / max(spread, 1.0)
    # Half a turn about x takes the head frame (y up, z to the camera) to OpenCV's axes.
    rotation = np.array([np.pi, 0.0, 0.0])
    centre = target[30].numpy().astype(float)
    shift = np.array([*((centre - size / 2) / focal * distance), distance])
    solved, r, t = cv2.solvePnP(
        points[rigid].numpy().astype(float), target[rigid].numpy().astype(float), K, None,
        rvec=rotation.reshape(3, 1).copy(), tvec=shift.reshape(3, 1).copy(),
        useExtrinsicGuess=True, flags=cv2.SOLVEPNP_ITERATIVE,
    )  # fmt: skip
    if solved and 0.3 * distance < t[2, 0] < 3 * distance:
        rotation, shift = r[:, 0], t[:, 0]
    return torch.tensor(rotation).float(), torch.tensor(shift).float()
