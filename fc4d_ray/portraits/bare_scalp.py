"""Bare scalps and necks that were taken for hair.

Geometry expects hair on every head. Where nothing in the picture tells the "hair" from the skin
beside it, neither colour nor texture across the border between them, there is none.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from fc4d_ray.portraits.geometry_prior import BACKGROUND, HAIR, SKIN

_STRIP = (0.008, 0.03)
"""Distance from the border, in crop sides, at which the two sides are compared."""
_LEAST_AREA = 0.0008
"""Smaller patches, as a share of the crop, are left as they are."""
_LEAST_STRIP_PX = 30
_LEAST_DIFFERENCE = 6.0
"""CIELAB distance between neighbours across the border below which both are skin."""
_TEXTURE_WEIGHT = 4.0
"""CIELAB units per natural logarithm of how much rougher the hair is."""


def without_imagined_hair(
    labels: NDArray[np.uint8],  # (S, S)
    crop: NDArray[np.uint8],  # (S, S, 3) RGB
) -> NDArray[np.uint8]:
    """Labels with each connected patch of hair that looks like its skin made skin."""
    count, patches = cv2.connectedComponents((labels == HAIR).astype(np.uint8))
    areas = np.bincount(patches.ravel(), minlength=count)
    looks = _looks(crop)
    result = labels.copy()
    for patch in range(1, count):
        if areas[patch] < _LEAST_AREA * labels.size:
            continue
        difference = _across_border(patches == patch, labels, looks)
        if difference is not None and difference < _LEAST_DIFFERENCE:
            result[patches == patch] = SKIN
    return result


def _looks(crop: NDArray[np.uint8]) -> NDArray[np.float32]:
    """(S, S, 4) smoothed CIELAB and the log of lightness' local spread."""
    side = crop.shape[0]
    sigma = max(0.6, side / 400)
    colour = cv2.GaussianBlur(crop, (0, 0), sigma).astype(np.float32) / 255
    lightness = cv2.cvtColor(crop.astype(np.float32) / 255, cv2.COLOR_RGB2LAB)[..., 0]
    window = (2 * max(1, side // 150) + 1,) * 2
    variance = cv2.blur(lightness**2, window) - cv2.blur(lightness, window) ** 2
    texture = np.log(np.sqrt(np.maximum(variance, 0)) + 0.5)
    return np.dstack([cv2.cvtColor(colour, cv2.COLOR_RGB2LAB), texture]).astype(np.float32)


def _across_border(
    hair: NDArray[np.bool_],  # (S, S)
    labels: NDArray[np.uint8],
    looks: NDArray[np.float32],  # (S, S, 4)
) -> float | None:
    """Median difference between the patch and the skin nearest to it; None without a border."""
    side = len(labels)
    inner = _distance_from(labels == BACKGROUND) > _STRIP[0] * side
    skin = _strip(labels == SKIN, _distance_from(hair), side) & inner
    own = _strip(hair, _distance_from(labels == SKIN), side) & inner
    if min(skin.sum(), own.sum()) < _LEAST_STRIP_PX:
        return None
    _, nearest = cv2.distanceTransformWithLabels(
        (~skin).astype(np.uint8), cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL
    )
    flat = np.zeros(int(nearest.max()) + 1, np.intp)
    flat[nearest[skin]] = np.flatnonzero(skin)
    difference = looks[own] - looks.reshape(-1, 4)[flat[nearest[own]]]
    colour = np.median(np.linalg.norm(difference[:, :3], axis=1))
    return float(colour + _TEXTURE_WEIGHT * max(np.median(difference[:, 3]), 0.0))


def _distance_from(mask: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Distance (S, S), px, to the nearest pixel of the mask; infinite where it is empty."""
    if not mask.any():
        return np.full(mask.shape, np.inf, np.float32)
    return cv2.distanceTransform((~mask).astype(np.uint8), cv2.DIST_L2, 5)


def _strip(mask: NDArray, distance: NDArray, side: int) -> NDArray[np.bool_]:
    low, high = _STRIP
    return mask & (distance > low * side) & (distance < high * side)
