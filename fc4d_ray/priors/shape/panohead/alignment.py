"""From the fitted head to PanoHead's crop and camera label, and back to the head frame.

PanoHead's own preparation asks a face model for the head's pose and size; here the head fitted by
the embedded prior gives both. Its axes are PanoHead's, so the two frames differ by a scale and a
shift: ``world = scale * panohead + offset``, no rotation.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from fc4d_ray.cameras import Camera
from fc4d_ray.priors.shape.panohead.framing import (
    FRAME_SIZE,
    LEFT_MARGIN,
    SQUARE_SIZE,
    TOP_MARGIN,
    FaceSquare,
    check_refinement,
    landmark_square,
)
from fc4d_ray.priors.shape.panohead.labels import (
    FOCAL,
    RADIUS,
    make_label,
    pose_angles_deg,
    pose_label,
)

SQUARE_SIDE_M = 0.24
"""Width of the refined square at the head's centre: PanoHead's preparation scales it so."""
HEAD_CENTRE = np.array([0.0, 0.0095, 0.0])
"""Centre of the square in the head frame, metres: on the average head seen from the front it lies
where the eyes and the mouth put it, a tenth of the way from the one to the other."""
FRAME_SIDE_M = SQUARE_SIDE_M * FRAME_SIZE / SQUARE_SIZE
UNIT_M = FRAME_SIDE_M * FOCAL / RADIUS
"""Metres per PanoHead unit, 0.417: what makes its frame as wide as the crop above."""


@dataclass(frozen=True)
class Placement:
    """Where PanoHead's world lies in the head frame."""

    scale_m: float
    """Metres per PanoHead unit."""
    offset_m: NDArray[np.float64]  # [3], the head frame's position of PanoHead's origin

    def label(self, camera: Camera) -> NDArray[np.float32]:
        """Label (25,) of a camera of the head frame."""
        to_world = np.linalg.inv(camera.world_to_camera)
        to_world[:3, 3] = (to_world[:3, 3] - self.offset_m) / self.scale_m
        K = np.diag([1 / camera.width, 1 / camera.height, 1.0]) @ camera.K
        return make_label(to_world, K)

    def camera(self, label: NDArray[np.floating], size: int) -> Camera:
        """The head frame's camera of a label (25,), ``size`` pixels a side."""
        to_world = np.asarray(label[:16], np.float64).reshape(4, 4).copy()
        to_world[:3, 3] = to_world[:3, 3] * self.scale_m + self.offset_m
        K = np.diag([size, size, 1.0]) @ np.asarray(label[16:], np.float64).reshape(3, 3)
        return Camera(K, np.linalg.inv(to_world), size, size)

    def about(self, label: NDArray[np.floating], scale_m: float) -> Placement:
        """Another scale that leaves what the camera of ``label`` sees where it is."""
        position = np.asarray(label, np.float64)[[3, 7, 11]]
        centre = self.offset_m + self.scale_m * position
        return Placement(scale_m, centre - scale_m * position)


@dataclass(frozen=True)
class Alignment:
    """A portrait's place in PanoHead."""

    square: FaceSquare
    """In the portrait's pixels, counted from pixel centres."""
    label: NDArray[np.float32]  # [25], looking at the origin from 2.7 units
    angles_deg: NDArray[np.float64]  # [3] yaw, pitch, roll of the head
    reference: Camera
    """PanoHead's camera in the head frame, on the portrait's pixel grid."""

    def placement(self, label: NDArray[np.floating]) -> Placement:
        """The head frame with the portrait taken from ``label``'s camera (offset included)."""
        position = np.asarray(label, np.float64)[[3, 7, 11]]
        return Placement(UNIT_M, self.reference.position - UNIT_M * position)


def focal_for_panohead(camera: Camera) -> float:
    """Focal length in pixels at which a fitted head keeps its size at PanoHead's distance."""
    return camera.K[0, 0] * RADIUS * UNIT_M / _depth_of_centre(camera)


def align(camera: Camera, landmarks: NDArray[np.floating]) -> Alignment:
    """Crop, label and reference camera of a portrait.

    ``camera`` is the fitted head's, ``landmarks`` (68, 2) are in its pixels. Raises ``FitFailed``
    for poses and sizes PanoHead was never trained on.
    """
    depth = _depth_of_centre(camera)
    pixels_per_m = camera.K[0, 0] / depth
    first = landmark_square(np.asarray(landmarks, np.float64) - 0.5)
    centre = camera.project(HEAD_CENTRE)[0] - 0.5
    axes = np.stack([first.x, first.y]) / first.half_side**2
    shift = axes @ (centre - first.centre)
    scale = SQUARE_SIDE_M * pixels_per_m / 2 / first.half_side
    square = first.refined(shift, scale)
    frame_centre, frame_side = _frame(square)
    forward = _direction(camera, frame_centre)
    right = _orthogonal(_direction(camera, frame_centre + square.x) - forward, forward)
    rotation = np.stack([right, np.cross(forward, right), forward])
    head_rotation = np.diag([1.0, -1.0, -1.0]) @ rotation
    angles = pose_angles_deg(head_rotation)
    check_refinement(shift, scale, angles)
    reference = _reference_camera(camera, frame_centre, frame_side, forward)
    return Alignment(square, pose_label(head_rotation), angles, reference)


def _frame(square: FaceSquare) -> tuple[NDArray[np.float64], float]:
    """Centre (pixel centres at +0.5) and side of the frame around a square, in pixels."""
    pixel = 2 * square.half_side / (SQUARE_SIZE - 1)
    across = (FRAME_SIZE / 2 - 0.5 - LEFT_MARGIN) / (SQUARE_SIZE - 1) * 2 - 1
    down = (FRAME_SIZE / 2 - 0.5 - TOP_MARGIN) / (SQUARE_SIZE - 1) * 2 - 1
    return square.centre + across * square.x + down * square.y + 0.5, FRAME_SIZE * pixel


def _reference_camera(
    camera: Camera, frame_centre: NDArray, frame_side: float, forward: NDArray
) -> Camera:
    """PanoHead's camera, level with the portrait's pixel grid and at PanoHead's distance."""
    right = _orthogonal(_direction(camera, frame_centre + np.array([1.0, 0.0])) - forward, forward)
    rotation = np.stack([right, np.cross(forward, right), forward])
    focal = FOCAL * frame_side
    K = np.array([[focal, 0, frame_centre[0]], [0, focal, frame_centre[1]], [0, 0, 1]])
    # Along its own axis until the head is as large as in the portrait.
    to_centre = HEAD_CENTRE - camera.position
    on_axis = camera.position + forward * (to_centre @ forward)
    distance = (to_centre @ forward) * focal / camera.K[0, 0]
    matrix = np.eye(4)
    matrix[:3, :3] = rotation
    matrix[:3, 3] = -rotation @ (on_axis - forward * distance)
    return replace(camera, K=K, world_to_camera=matrix)


def _depth_of_centre(camera: Camera) -> float:
    return float(camera.project(HEAD_CENTRE)[1])


def _direction(camera: Camera, pixel: NDArray[np.floating]) -> NDArray[np.float64]:
    """Unit direction (3,) in the head frame of a pixel (centres at +0.5)."""
    local = np.append((pixel - camera.K[:2, 2]) / camera.K[[0, 1], [0, 1]], 1.0)
    direction = camera.world_to_camera[:3, :3].T @ local
    return direction / np.linalg.norm(direction)


def _orthogonal(vector: NDArray, axis: NDArray) -> NDArray[np.float64]:
    rest = vector - (vector @ axis) * axis
    return rest / np.linalg.norm(rest)
