"""Both eyes look the same way.

A photographed iris lands on the model's eyeball wherever its pixel's ray meets it. Where the ball
lies a millimetre beside the true one, the eye looks five degrees to the side; two such balls squint
as soon as the head is turned. Eyes move together, so the difference between both is such an error,
and half of it is taken from each by moving the balls.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from fc4d_ray.cameras import Camera
from fc4d_ray.heads.rig import HeadRig, Region

_EYES = (range(36, 42), range(42, 48))
_IRIS_SHARE = 0.3
"""About how much of an open eye's visible area is iris and pupil."""
_LEAST_CONTRAST = 0.12
"""By how much, of white, an iris is darker than the rest of the eye, to be believed."""
_LEAST_PX = 40
"""Visible pixels of an eye below which its iris has no place to speak of."""
_FARTHEST_M = 0.002
_STEPS = 81


@dataclass(frozen=True)
class _Eyeball:
    """One ball of the rig, and the ray through the iris that the portrait shows on it."""

    vertices: NDArray[np.intp]
    centre: NDArray[np.float64]  # [3] metres
    radius: float
    ray: NDArray[np.float64]  # [3] unit length, from the camera

    def yaw(self, camera: Camera, shift: NDArray[np.float64]) -> float:
        """Degrees, in the head frame, that the ball looks to its left after it moved."""
        origin, centre = camera.position, self.centre + shift
        nearest = (centre - origin) @ self.ray
        beside = np.linalg.norm(origin + nearest * self.ray - centre)
        depth = nearest - np.sqrt(max(self.radius**2 - beside**2, 0.0))
        x, _, z = origin + depth * self.ray - centre
        return float(np.rad2deg(np.arctan2(x, z)))


def look_together(
    rig: HeadRig,
    camera: Camera,
    portrait: NDArray[np.uint8],  # [S, S, 3]
    landmarks: NDArray[np.floating],  # [68, 2] px
) -> HeadRig:
    """The rig with its eyeballs moved across the line of sight until both look one way.

    Each moves by two millimetres at most. The rig itself comes back where an iris cannot be made
    out in both eyes: shut or dim ones, statues, drawings.
    """
    balls = [_eyeball(rig, camera, portrait, landmarks, marks) for marks in _EYES]
    right, left = balls
    if right is None or left is None:
        return rig
    across = camera.world_to_camera[0, :3].astype(np.float64)
    target = 0.5 * (right.yaw(camera, np.zeros(3)) + left.yaw(camera, np.zeros(3)))
    neutral = rig.neutral.copy()
    for ball in balls:
        shifts = np.linspace(-_FARTHEST_M, _FARTHEST_M, _STEPS)[:, None] * across
        errors = [abs(ball.yaw(camera, shift) - target) for shift in shifts]
        neutral[ball.vertices] += shifts[int(np.argmin(errors))].astype(np.float32)
    return replace(rig, neutral=neutral)


def _eyeball(rig: HeadRig, camera: Camera, portrait, landmarks, marks: range) -> _Eyeball | None:
    """The ball behind an eye's landmarks; None where its iris cannot be made out."""
    iris = _iris(portrait, np.asarray(landmarks)[list(marks)])
    if iris is None:
        return None
    outline = rig.landmarks(torch.from_numpy(rig.neutral)).numpy()[list(marks)]
    is_own = (rig.region == Region.EYE) & (rig.neutral[:, 0] * outline[:, 0].mean() > 0)
    vertices = np.flatnonzero(is_own)
    low, high = rig.neutral[vertices].min(0), rig.neutral[vertices].max(0)
    ray = camera.unproject(iris[None], np.ones(1))[0] - camera.position
    centre = (0.5 * (low + high)).astype(np.float64)
    radius = 0.5 * float((high - low).min())
    return _Eyeball(vertices, centre, radius, ray / np.linalg.norm(ray))


def _iris(portrait: NDArray[np.uint8], outline: NDArray) -> NDArray[np.float64] | None:
    """Middle (2,) px of the darkest part of an eye that is outlined by landmarks (6, 2)."""
    visible = np.zeros(portrait.shape[:2], np.uint8)
    cv2.fillPoly(visible, [outline.round().astype(np.int32)], 1)
    rows, columns = np.nonzero(visible)
    if len(rows) < _LEAST_PX:
        return None
    grey = cv2.cvtColor(portrait, cv2.COLOR_RGB2GRAY).astype(np.float32) / 255
    width = float(np.ptp(columns))
    value = cv2.GaussianBlur(grey, (0, 0), max(0.04 * width, 0.5))[rows, columns]
    dark = value <= np.quantile(value, _IRIS_SHARE)
    if dark.all() or value[~dark].mean() - value[dark].mean() < _LEAST_CONTRAST:
        return None
    return np.array([np.median(columns[dark]) + 0.5, np.median(rows[dark]) + 0.5])
