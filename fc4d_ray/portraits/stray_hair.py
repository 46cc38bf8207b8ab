"""Collars that were taken for hair, and glints on hair that were taken for skin.

Dark clothing beside the neck looks like hair and lies where long hair lies. Hair on the head says
what this person's hair looks like: a patch below the nose of another colour, or one that nothing
joins to that hair, is clothing. A small light patch in the midst of hair or headwear is part of it.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from fc4d_ray.portraits.geometry_prior import BACKGROUND, CLOTHING, HAIR, SKIN

_CHIN, _NOSE, _NOSE_BASE = 8, 30, 33
_ISLAND = 0.004
"""Largest share of the crop that a patch of skin in the midst of hair may take up."""
_COLLAR = 0.002
"""Least share of the crop of a collar that goes on below what was taken for hair."""
_SURROUNDED = 0.7
_CELLS = 24
"""Cells of the colour histogram per Lab axis."""


def without_stray_hair(
    labels: NDArray[np.uint8],  # (S, S)
    crop: NDArray[np.uint8],  # (S, S, 3) RGB
    landmarks: NDArray[np.floating],  # (68, 2) px
) -> NDArray[np.uint8]:
    """Labels with hair below the nose kept where it joins the head's hair and has its colours."""
    rows = np.arange(labels.shape[0])[:, None]
    hair = labels == HAIR
    on_head = hair & (rows < landmarks[_NOSE, 1])
    below = hair & (rows > landmarks[_NOSE_BASE, 1])
    if on_head.sum() < 100:
        return _without_loose_hair(labels, landmarks)
    labels = _without_skin_islands(labels)
    if not below.any():
        return labels
    labels = _without_loose_hair(labels, landmarks)
    smooth = cv2.GaussianBlur(crop, (0, 0), labels.shape[0] / 150)
    cells = (cv2.cvtColor(smooth, cv2.COLOR_RGB2LAB).astype(int) * _CELLS) // 256
    likelihood = _histogram(cells[on_head])[tuple(cells.transpose(2, 0, 1))]
    usual = np.percentile(likelihood[on_head], 8)
    result = labels.copy()
    below &= labels == HAIR
    strange = (below & (likelihood < usual)).astype(np.uint8)
    # A patch decides as a whole, so that dark hair keeps its highlights.
    share = cv2.blur(strange.astype(np.float32), (25, 25))
    room = cv2.blur(below.astype(np.float32), (25, 25))
    result[below & (share > 0.5 * room)] = CLOTHING
    return result


def _without_skin_islands(labels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Labels with small patches of skin that hair surrounds made hair."""
    count, patches, stats, _ = cv2.connectedComponentsWithStats((labels == SKIN).astype(np.uint8))
    result = labels.copy()
    for patch in range(1, count):
        if stats[patch, cv2.CC_STAT_AREA] > _ISLAND * labels.size:
            continue
        island = (patches == patch).astype(np.uint8)
        shore = labels[(cv2.dilate(island, np.ones((5, 5), np.uint8)) > 0) & (island == 0)]
        shore = shore[shore != BACKGROUND]
        if len(shore) and (shore == HAIR).mean() > _SURROUNDED:
            result[island > 0] = HAIR
    return result


def _without_loose_hair(
    labels: NDArray[np.uint8], landmarks: NDArray[np.floating]
) -> NDArray[np.uint8]:
    """Labels with hair that lies wholly below the nose, beside the chin, made clothing.

    Nothing holds it there; what hangs from the chin itself is a beard.
    """
    count, patches, stats, _ = cv2.connectedComponentsWithStats((labels == HAIR).astype(np.uint8))
    result = labels.copy()
    for patch in range(1, count):
        left, top, width = stats[patch, [cv2.CC_STAT_LEFT, cv2.CC_STAT_TOP, cv2.CC_STAT_WIDTH]]
        is_beard = left <= landmarks[_CHIN, 0] <= left + width
        if top > landmarks[_NOSE_BASE, 1] and not is_beard:
            collar = patches == patch
            result[collar] = CLOTHING
            if stats[patch, cv2.CC_STAT_AREA] > _COLLAR * labels.size:
                result[_skin_under(collar, result)] = CLOTHING
    return result


def _skin_under(collar: NDArray[np.bool_], labels: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Skin (S, S) between a collar and the garment below it, which is the collar's lower half."""
    rows = np.arange(len(labels))[:, None]
    lowest = np.where(collar, rows, -1).max(0)
    garment = (labels == CLOTHING) & (rows > lowest) & (lowest >= 0)
    ends = np.where(garment.any(0), garment.argmax(0), -1)
    return (labels == SKIN) & (lowest >= 0) & (rows > lowest) & (rows < ends)


def _histogram(cells: NDArray[np.intp]) -> NDArray[np.float32]:
    """Smoothed frequencies (C, C, C) of colour cells (N, 3)."""
    from scipy.ndimage import gaussian_filter

    counts = np.zeros((_CELLS,) * 3, np.float32)
    np.add.at(counts, tuple(cells.T), 1)
    return gaussian_filter(counts, 1.0)
