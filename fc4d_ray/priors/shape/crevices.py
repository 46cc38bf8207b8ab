"""How dark a surface's hollows are: what shows an ear's folds where no photograph does.

Light from all around reaches a hollow less than a ridge. Without a photograph that much is known of
the light: how far the neighbourhood of a point stands above its tangent plane, at the scale of an
ear's folds and at that of a jaw above a neck, and how near the hair is that hangs over it.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from fc4d_ray.images import smoothstep

_SCALES_M = (0.004, 0.012)
_STRENGTHS = (1.1, 0.9)
_DARKEST, _BRIGHTEST = 0.55, 1.10
_NEIGHBOURS = 48
_UNDER_HAIR, _HAIR_REACH_M = 0.30, 0.012
"""How much darker skin is right beside hair, and how far from it that is over."""


def crevice_light(
    points: NDArray[np.floating],  # [V, 3] metres
    normals: NDArray[np.floating],  # [V, 3] unit length
    hair: NDArray[np.floating],  # [H, 3] metres
) -> NDArray[np.float64]:
    """Relative brightness (V,) of a surface in even light; 1 on a plane far from hair."""
    neighbours = min(_NEIGHBOURS, len(points))
    distance, index = cKDTree(points).query(points, neighbours)
    # How far neighbours stand above the tangent plane, positive in a hollow.
    rise = np.einsum("vnc,vc->vn", points[index] - points[:, None], normals)
    logarithm = np.zeros(len(points))
    for scale, strength in zip(_SCALES_M, _STRENGTHS, strict=True):
        weight = np.exp(-np.square(distance / scale))
        logarithm -= strength * (rise * weight).sum(1) / (weight.sum(1) * scale)
    light = np.exp(logarithm).clip(_DARKEST, _BRIGHTEST)
    if len(hair):
        away, _ = cKDTree(hair).query(points)
        light *= 1 - _UNDER_HAIR * (1 - smoothstep(away, 0.0, _HAIR_REACH_M))
    return light
