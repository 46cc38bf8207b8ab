"""Lids and lips laid exactly on the portrait's, after the fit has explained what a model can.

The fitted head misses landmarks by one or two per cent of the outer eye distance. That is little
for a head and much for a lid: where its edge lies two millimetres below the photographed one, the
lashes are painted on the skin above, and stay there while the eye shuts. A smooth warp takes the
rest out; a shut eye is warped by the lower lid and the corners alone, so that it still shuts.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from fc4d_ray.cameras import Camera
from fc4d_ray.heads.rig import HeadRig, Region

_REACH_M = 0.009
"""Standard deviation of the warp around a landmark: about half the opening of an eye's width."""
_LIMIT_M = 0.004
"""A landmark is moved by no more; what is farther off is a misdetection."""
_OVERLAP_M = 0.0016
"""How far a shut lid goes beyond the lower one's edge, whose moist rim it has to cover."""
_WAY_LIMITS = (0.5, 1.3)
_STIFFNESS = 0.05
"""Added to the kernel's diagonal: neighbouring landmarks that disagree are averaged."""


@dataclass(frozen=True)
class _Eye:
    """Landmarks of one eye and the action that shuts it."""

    blink: str
    upper: tuple[int, int]
    others: tuple[int, int, int, int]
    """Both corners, then the lower lid, in iBUG's order: the last lies below the first of upper."""


_EYES = (
    _Eye("eyeBlinkRight", (37, 38), (36, 39, 40, 41)),
    _Eye("eyeBlinkLeft", (43, 44), (42, 45, 46, 47)),
)
_MOUTH = tuple(range(48, 68))
_LIPS_THAT_MEET = ((48, 60), (54, 64), (61, 67), (62, 66), (63, 65))
"""Marks on either side of the lips' line: they move as one, or the line would gape."""


@dataclass(frozen=True)
class _Warp:
    """Displacements of a few points, spread smoothly over their surroundings."""

    centres: NDArray[np.float64]  # [N, 3] metres
    weights: NDArray[np.float64]  # [N, 3] metres

    @staticmethod
    def through(points: NDArray, displacements: NDArray) -> _Warp:
        """The warp that moves ``points`` (N, 3) by nearly ``displacements`` (N, 3)."""
        kernel = _kernel(points, points) + _STIFFNESS * np.eye(len(points))
        return _Warp(points, np.linalg.solve(kernel, displacements))

    def at(self, points: NDArray) -> NDArray[np.float64]:
        """Displacements (M, 3) of any points (M, 3)."""
        return np.einsum("mn,nc->mc", _kernel(points, self.centres), self.weights)


def align_features(
    rig: HeadRig,
    camera: Camera,
    landmarks: NDArray[np.floating],  # [68, 2] px
) -> HeadRig:
    """The rig with lids and lips where the portrait's landmarks are, seen from its camera.

    Eyeballs stay and teeth keep their shape. ``eyeBlink`` actions end where the lower lid is
    after the warp; all other actions move as before.
    """
    neutral = rig.neutral.astype(np.float64)
    points = rig.landmarks(torch.from_numpy(rig.neutral)).numpy().astype(np.float64)
    wanted = _on_surface(rig, points, camera, landmarks)
    moved = _limited(wanted - points)
    for pair in _LIPS_THAT_MEET:
        moved[list(pair)] = moved[list(pair)].mean(0)
    offset = np.zeros_like(neutral)
    mouth = list(_MOUTH)
    around_mouth = _Warp.through(points[mouth], moved[mouth])
    soft = ~np.isin(rig.region, (Region.EYE, Region.TEETH))
    offset[soft] += around_mouth.at(neutral[soft])
    teeth = rig.region == Region.TEETH
    offset[teeth] += around_mouth.at(neutral[teeth]).mean(0)
    skin = np.isin(rig.region, (Region.FACE, Region.SCALP, Region.EAR, Region.NECK))
    basis = rig.action_basis.copy()
    for eye in _EYES:
        opened = [*eye.upper, *eye.others]
        change = _Warp.through(points[opened], moved[opened]).at(neutral[skin])
        offset[skin] += change
        shut = list(eye.others)
        row = rig.action_names.index(eye.blink)
        closed = neutral[skin] + rig.action_basis[row][skin]
        basis[row][skin] += _Warp.through(points[shut], moved[shut]).at(closed) - change
    aligned = replace(rig, neutral=(neutral + offset).astype(np.float32), action_basis=basis)
    for eye in _EYES:
        basis[rig.action_names.index(eye.blink)] *= _way_to_shut(aligned, eye)[:, None]
    return replace(aligned, action_basis=basis)


def _way_to_shut(rig: HeadRig, eye: _Eye) -> NDArray[np.float64]:
    """Factors (V,) on a blink that bring the upper lid's edge just over the lower one's.

    They vary across the eye: the model's lids overlap by two millimetres at the inner end and by
    four at the outer one.
    """
    shut = rig.pose(rig.parameters_from_actions({eye.blink: 1.0}))[0]
    before = rig.landmarks(torch.from_numpy(rig.neutral)).numpy().astype(np.float64)
    after = rig.landmarks(shut).numpy().astype(np.float64)
    upper, lower = list(eye.upper), list(eye.others[:1:-1])
    way = np.maximum(before[upper, 1] - after[upper, 1], 1e-4)
    factors = ((before[upper, 1] - after[lower, 1] + _OVERLAP_M) / way).clip(*_WAY_LIMITS)
    across = np.argsort(before[upper, 0])
    return np.interp(rig.neutral[:, 0], before[upper, 0][across], factors[across])


def _on_surface(
    rig: HeadRig, points: NDArray, camera: Camera, landmarks: NDArray
) -> NDArray[np.float64]:
    """Where the landmarks (68, 3) belong: on their pixels' rays, as deep as before.

    Lids keep their distance from the eyeball's centre, since they slide over it.
    """
    _, depth = camera.project(points)
    wanted = camera.unproject(landmarks, depth)
    origin = camera.position
    eyes = rig.neutral[rig.region == Region.EYE].astype(np.float64)
    for eye in _EYES:
        rows = [*eye.upper, *eye.others]
        side = np.sign(points[rows, 0].mean())
        ball = eyes[eyes[:, 0] * side > 0]
        centre = 0.5 * (ball.min(0) + ball.max(0))
        for row in rows:
            ray = wanted[row] - origin
            ray /= np.linalg.norm(ray)
            nearest = (centre - origin) @ ray
            radius = np.linalg.norm(points[row] - centre)
            beside = np.linalg.norm(origin + nearest * ray - centre)
            if beside < radius:
                wanted[row] = origin + (nearest - np.sqrt(radius**2 - beside**2)) * ray
    return wanted


def _limited(displacements: NDArray) -> NDArray[np.float64]:
    """Displacements no longer than the limit."""
    length = np.linalg.norm(displacements, axis=1, keepdims=True)
    return displacements * np.minimum(1.0, _LIMIT_M / np.maximum(length, 1e-12))


def _kernel(points: NDArray, centres: NDArray) -> NDArray[np.float64]:
    squares = np.square(points[:, None] - centres[None]).sum(-1)
    return np.exp(-0.5 * squares / _REACH_M**2)
