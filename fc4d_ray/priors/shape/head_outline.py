"""The skull laid inside the matte's outline, which no landmark sees.

The fit knows the face; how high and wide the cranium is above it, the model only guesses. Rays
from the middle of the head meet the outline of the fitted skull and that of the matte. A bare
scalp ends where the matte ends; under hair the skull ends a little inside, or stays where it is.
Rays along which the source image or the picture of the head ends say nothing.

Asking the identity to explain the outline as well bends the face to suit the skull (0.3 to 0.5 mm
more surface error on synthetic people), so the cranium is scaled along the rays instead.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter1d, minimum_filter1d

from fc4d_ray.cameras import Camera
from fc4d_ray.heads.rig import HeadRig, Region
from fc4d_ray.images import smoothstep
from fc4d_ray.portraits.regions import HAIR, SKIN
from fc4d_ray.rendering.mesh import rasterize_mesh

_SIDE = 384
_RAYS = 90
_CENTRE = np.array([0.0, 0.035, -0.012])
_WIDEST_DEG = 100.0
"""Rays farther from upright than this meet jaws and collars."""
_LEAST_HAIR_M = 0.004
_RIM = 6
"""Samples of a ray before the outline at which its label is read."""
_BORDER_M = 0.005
"""An outline this near to the source's border is the border's."""
_SCALES = (0.72, 1.12)
"""Bounds of the change."""
_LEAST_SHARE = 0.65
"""A matte that ends nearer to the middle, as a share of the skull, has lost a piece of the head."""
_LEAST_RAYS = 0.3
"""Share of the rays that must say something; the others then follow their neighbours."""
_SMOOTH_RAYS = 2.0
_FULL_Y_M, _NONE_Y_M = 0.075, 0.03
"""Heights in the head frame above which the cranium follows fully, and below which not at all."""
_FACE_M = (0.012, 0.05)
"""Distances from the brows between which the change sets in."""


@dataclass(frozen=True)
class _Rays:
    """What each ray found, sorted by angle."""

    angle: NDArray[np.float64]  # [N] rad from upright, clockwise
    skull_px: NDArray[np.float64]  # [N] length of the ray inside the skull, 0 = not met
    matte_px: NDArray[np.float64]  # [N] length of the ray inside the matte
    kind: NDArray[np.uint8]  # [N] label where it leaves the matte, 0 = says nothing


def follow_outline(
    rig: HeadRig,
    camera: Camera,
    matte: NDArray[np.uint8],  # [S, S]
    labels: NDArray[np.uint8],  # [S, S] portraits/regions.py
    inside: NDArray[np.bool_],  # [S, S], False beyond the source image
) -> HeadRig:
    """The rig with its cranium scaled, as seen from the camera, to where the matte shows it."""
    small = camera.resized(_SIDE, _SIDE)
    rays = _cast(rig, small, matte, labels, inside)
    metres_per_px = float(np.linalg.norm(camera.position - _CENTRE)) / small.K[0, 0]
    scale = _wanted_scale(rays, metres_per_px)
    if np.abs(scale - 1).max() < 1e-3:
        return rig
    points = rig.neutral.astype(np.float64)
    centre, _ = small.project(_CENTRE)
    pixels, depth = small.project(points)
    along = pixels - centre
    angle = np.arctan2(along[:, 0], -along[:, 1])
    change = (np.interp(angle, rays.angle, scale) - 1) * _mobility(rig)
    # The same displacement in metres at every depth: the back of the head goes with the front.
    rotation = small.world_to_camera[:3, :3]
    shift = along * (depth / small.K[0, 0] * change)[:, None]
    moved = points + shift @ rotation[:2]
    return replace(rig, neutral=moved.astype(np.float32))


def _cast(rig: HeadRig, camera: Camera, matte, labels, inside) -> _Rays:
    size = (_SIDE, _SIDE)
    person = cv2.resize(matte, size, interpolation=cv2.INTER_AREA) > 127
    known = cv2.resize(inside.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST)
    label = cv2.resize(labels, size, interpolation=cv2.INTER_NEAREST)
    head = np.isin(rig.region, (Region.SCALP, Region.FACE, Region.EAR))
    skull = rasterize_mesh(rig.neutral, rig.faces[head[rig.faces].all(1)], camera).face >= 0
    to_border = cv2.distanceTransform(np.pad(known, 1), cv2.DIST_L2, 5)[1:-1, 1:-1]
    border_px = _BORDER_M * camera.K[0, 0] / float(np.linalg.norm(camera.position))
    centre, _ = camera.project(_CENTRE)
    angles = np.deg2rad(np.linspace(-_WIDEST_DEG, _WIDEST_DEG, _RAYS))
    lengths = np.arange(0, _SIDE, 0.5)
    found = []
    for angle in angles:
        ray = centre + lengths[:, None] * [np.sin(angle), -np.cos(angle)]
        ray = ray[((ray >= 0) & (ray < _SIDE)).all(1)].astype(int)
        column, row = ray.T
        skull_px = _exit(skull[row, column]) * 0.5
        # Where the matte has holes, the outermost edge is the outline.
        leaves = _exit(person[row, column])
        met = 0 < leaves < len(ray)
        edge, rim = ray[max(leaves - 1, 0)], ray[max(leaves - _RIM, 0)]
        speaks = met and to_border[edge[1], edge[0]] > border_px
        found.append((skull_px, leaves * 0.5, label[rim[1], rim[0]] if speaks else 0))
    skull_px, matte_px, kind = (np.array(column) for column in zip(*found, strict=True))
    return _Rays(angles, skull_px, matte_px, kind.astype(np.uint8))


def _exit(mask: NDArray[np.bool_]) -> int:
    """Number of samples of a ray up to the last one in the mask."""
    inside = np.flatnonzero(mask)
    return int(inside[-1]) + 1 if len(inside) else 0


def _wanted_scale(rays: _Rays, metres_per_px: float) -> NDArray[np.float64]:
    """Factor per ray on the skull, smooth over the angle; 1 where nothing is known."""
    skull = np.maximum(rays.skull_px, 1e-6)
    under_hair = np.minimum((rays.matte_px - _LEAST_HAIR_M / metres_per_px) / skull, 1.0)
    bare = rays.matte_px / skull
    scale = np.select([rays.kind == HAIR, rays.kind == SKIN], [under_hair, bare], 1.0)
    known = np.isin(rays.kind, (HAIR, SKIN)) & (rays.skull_px > 0) & (bare > _LEAST_SHARE)
    if known.mean() < _LEAST_RAYS:
        return np.ones_like(scale)
    scale = np.interp(rays.angle, rays.angle[known], scale[known].clip(*_SCALES))
    smooth = gaussian_filter1d(scale, _SMOOTH_RAYS, mode="nearest")
    # Smoothing must not let the skull out through its hair again.
    lowest = gaussian_filter1d(minimum_filter1d(scale, 5, mode="nearest"), 1.0, mode="nearest")
    return np.where(scale < 1, np.minimum(smooth, lowest), smooth)


def _mobility(rig: HeadRig) -> NDArray[np.float64]:
    """How far each vertex (V,) follows, 0-1: the cranium, but neither face nor ears."""
    brows = rig.landmarks(torch.from_numpy(rig.neutral)).numpy()[17:27].astype(np.float64)
    gap = np.linalg.norm(rig.neutral[:, None] - brows[None], axis=-1).min(1)
    height = smoothstep(rig.neutral[:, 1].astype(np.float64), _NONE_Y_M, _FULL_Y_M)
    return height * smoothstep(gap, *_FACE_M)
