"""Bare scalps, foreheads and necks that were taken for hair.

Geometry expects hair on every head, down to where foreheads usually end. Where nothing in the
picture tells the "hair" from the skin beside it, neither colour nor texture across the border
between them, skin goes on: up to the next contour, which is the hairline, or over a bald head.
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
_LEAST_DIFFERENCE = 4.5
"""CIELAB distance between neighbours across the border below which both are skin."""
_FEATURELESS = 30
"""Percentile over the border that is taken: brows lie along much of a forehead's."""
_TEXTURE_WEIGHT = 4.0
"""CIELAB units per natural logarithm of how much rougher the hair is."""
_CONTOUR = 3.0
"""Times the gradient that is usual on skin: where skin that goes on comes to its end."""
_LEAST_GRADIENT = 1.0
"""CIELAB units per eighth of a pixel (Sobel's) that skin has at least, however smooth it looks."""
_CONTOUR_SCALE = 1 / 250
"""Standard deviation of the blur before gradients, in crop sides."""
_GAP = 0.006
"""Half the widest gap of a contour that is held to be closed, in crop sides."""
_LEAST_HAIR = 0.25
"""Share of a patch that must lie beyond such a contour to be hair after all."""


def without_imagined_hair(
    labels: NDArray[np.uint8],  # (S, S)
    crop: NDArray[np.uint8],  # (S, S, 3) RGB
) -> NDArray[np.uint8]:
    """Labels with patches of hair that look like their skin made skin, up to a hairline."""
    count, patches = cv2.connectedComponents((labels == HAIR).astype(np.uint8))
    areas = np.bincount(patches.ravel(), minlength=count)
    looks = _looks(crop)
    result = labels.copy()
    for patch in range(1, count):
        if areas[patch] < _LEAST_AREA * labels.size:
            continue
        difference = _across_border(patches == patch, labels, looks)
        if difference is not None and difference < _LEAST_DIFFERENCE:
            result[_continued_skin(patches == patch, labels == SKIN, crop)] = SKIN
    return result


def _continued_skin(
    hair: NDArray[np.bool_],  # (S, S) one patch
    skin: NDArray[np.bool_],  # (S, S)
    crop: NDArray[np.uint8],
) -> NDArray[np.bool_]:
    """What of a patch (S, S) is reached from the skin without crossing a contour."""
    side = len(hair)
    lab = cv2.cvtColor(crop.astype(np.float32) / 255, cv2.COLOR_RGB2LAB)
    smooth = cv2.GaussianBlur(lab, (0, 0), _CONTOUR_SCALE * side)
    rise = cv2.Sobel(smooth, cv2.CV_32F, 1, 0) ** 2 + cv2.Sobel(smooth, cv2.CV_32F, 0, 1) ** 2
    gradient = np.sqrt(rise.sum(-1))
    usual = max(float(np.median(gradient[skin])), _LEAST_GRADIENT)
    passable = (hair & (gradient < _CONTOUR * usual)) | skin
    # No way through gaps in a contour.
    gap = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * round(_GAP * side) + 1,) * 2)
    _, parts = cv2.connectedComponents(cv2.erode(passable.astype(np.uint8), gap), connectivity=4)
    shore = np.unique(parts[skin & (_distance_from(hair) < 4 + 2 * _GAP * side)])
    reached = np.isin(parts, shore[shore > 0]).astype(np.uint8)
    reached = (cv2.dilate(reached, gap) > 0) & hair
    # The contour itself, and specks within the skin, go with the larger side.
    grain = round(0.02 * side) | 1
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (grain, grain))
    beyond = cv2.morphologyEx((hair & ~reached).astype(np.uint8), cv2.MORPH_OPEN, disc) > 0
    return hair if beyond.sum() < _LEAST_HAIR * hair.sum() else hair & ~beyond


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
    """Usual difference between the patch and the skin nearest to it; None without a border."""
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
    colour = np.percentile(np.linalg.norm(difference[:, :3], axis=1), _FEATURELESS)
    return float(colour + _TEXTURE_WEIGHT * max(np.median(difference[:, 3]), 0.0))


def _distance_from(mask: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Distance (S, S), px, to the nearest pixel of the mask; infinite where it is empty."""
    if not mask.any():
        return np.full(mask.shape, np.inf, np.float32)
    return cv2.distanceTransform((~mask).astype(np.uint8), cv2.DIST_L2, 5)


def _strip(mask: NDArray, distance: NDArray, side: int) -> NDArray[np.bool_]:
    low, high = _STRIP
    return mask & (distance > low * side) & (distance < high * side)
