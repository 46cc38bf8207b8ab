"""Lips that meet although the detector parts them.

A carved, bearded or brightly lit lip leads the detector to draw a gap of a few pixels into a shut
mouth, and a mouth fitted to it shows teeth that nobody saw. Between parted lips there are teeth or
darkness; where the gap looks like the lips themselves, there is none, and both inner outlines
belong on the darkest line between them.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

_PAIRS = ((61, 67), (62, 66), (63, 65))
_UPPER_LIP = (49, 50, 51, 52, 53, 63, 62, 61)
_LOWER_LIP = (55, 56, 57, 58, 59, 67, 66, 65)
_GAP = (61, 62, 63, 65, 66, 67)
_SCALE = 4
"""Enlargement before masks are drawn: a gap is a few pixels high."""
_LIGHTNESS_WEIGHT = 0.5
"""Of lightness against hue: a lip has light and shade of its own."""
_LIKE_LIPS = 75
"""Percentile of the lips' own distances from their usual colour within which a gap is lip."""
_STEPS = 13
_FEWEST_PX = 8


def with_shut_lips(
    landmarks: NDArray[np.floating],  # (68, 2) crop pixels
    crop: NDArray[np.uint8],  # (S, S, 3)
) -> NDArray[np.float64]:
    """Landmarks with the inner lips on one line where nothing but lip shows between them."""
    result = np.array(landmarks, np.float64)
    low = np.floor(landmarks[48:].min(0)).astype(int) - 2
    high = np.ceil(landmarks[48:].max(0)).astype(int) + 2
    if (low < 0).any() or (high >= len(crop)).any():
        return result
    mouth = crop[low[1] : high[1], low[0] : high[0]].astype(np.float32) / 255
    mouth = cv2.resize(mouth, None, fx=_SCALE, fy=_SCALE, interpolation=cv2.INTER_LINEAR)
    lab = cv2.cvtColor(mouth, cv2.COLOR_RGB2LAB)
    points = (landmarks - low) * _SCALE - 0.5
    gap = _filled(points[list(_GAP)], lab.shape[:2])
    lips = _filled(points[list(_UPPER_LIP)], lab.shape[:2])
    lips |= _filled(points[list(_LOWER_LIP)], lab.shape[:2])
    lips &= ~gap
    if min(gap.sum(), lips.sum()) < _FEWEST_PX * _SCALE**2:
        return result
    usual = np.median(lab[lips], 0)
    distance = np.linalg.norm((lab - usual) * [_LIGHTNESS_WEIGHT, 1, 1], axis=-1)
    if np.median(distance[gap]) > np.percentile(distance[lips], _LIKE_LIPS):
        return result
    for upper, lower in _PAIRS:
        way = np.linspace(points[upper], points[lower], _STEPS).astype(np.float32)
        along = cv2.remap(lab[..., 0], way[None, :, 0], way[None, :, 1], cv2.INTER_LINEAR)[0]
        share = np.argmin(along) / (_STEPS - 1)
        result[[upper, lower]] = (1 - share) * landmarks[upper] + share * landmarks[lower]
    return result


def _filled(outline: NDArray, shape: tuple[int, int]) -> NDArray[np.bool_]:
    mask = np.zeros(shape, np.uint8)
    cv2.fillPoly(mask, [np.rint(outline).astype(np.int32)], 1)
    return mask > 0
