"""The soft foreground matte: cleaned segmentation, then edges that follow the picture."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from fc4d_ray.portraits.geometry_prior import BACKGROUND, HAIR
from fc4d_ray.portraits.regions import Regions

HAIR_BAND = 0.016
BODY_BAND = 0.007
"""Half width of the undecided band along hair and along skin or cloth, in crop sides."""
HOLE_LIMIT = 0.004
"""Gaps in the foreground up to this share of the crop are closed."""

SURE_FOREGROUND = 0.7
"""Larger gaps are closed too where geometry expects the person, such as the neck in black wool."""


@dataclass(frozen=True)
class Matte:
    """Coverage of the person."""

    alpha: NDArray[np.uint8]
    """(S, S), 0 background to 255 person"""
    confidence: float
    """0 (guesswork) to 1 (clear separation, stable result)"""


def compute_matte(
    crop: NDArray[np.uint8],  # (S, S, 3)
    regions: Regions,
    inside: NDArray[np.bool_],  # (S, S)
) -> Matte:
    """Matte of the whole person from the crop's regions; 0 where the source shows nothing."""
    size = crop.shape[0]
    mask = clean_mask(regions)
    soft_mask = cv2.resize(mask.astype(np.float32), (size, size), interpolation=cv2.INTER_CUBIC)
    soft_mask = np.clip(cv2.GaussianBlur(soft_mask, (0, 0), 0.5 * size / len(mask)), 0, 1)
    band = _undecided_band(regions, mask, size)
    guide = cv2.GaussianBlur(crop, (0, 0), 0.6).astype(np.float32) / 255
    alpha = guided_filter(guide, soft_mask, radius=max(2, round(0.012 * size)), epsilon=2e-4)
    alpha = np.clip((alpha - 0.08) / 0.84, 0, 1)
    alpha = np.where(band, alpha, soft_mask > 0.5)
    alpha = cv2.GaussianBlur(alpha.astype(np.float32), (0, 0), 0.6)
    alpha[~inside] = 0
    return Matte(np.rint(alpha * 255).astype(np.uint8), _confidence(regions, mask))


def clean_mask(regions: Regions) -> NDArray[np.bool_]:
    """(s, s) the one connected person: specks dropped, small gaps closed."""
    mask = (regions.foreground > 0.5) | regions.prior.face
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (3, 3))
    opened = cv2.morphologyEx(mask.astype(np.uint8), cv2.MORPH_OPEN, kernel)
    _, parts = cv2.connectedComponents(opened, connectivity=4)
    ours = np.bincount(parts[regions.prior.face & (opened > 0)], minlength=parts.max() + 1)
    ours[0] = 0
    person = parts == ours.argmax()
    _, gaps, stats, _ = cv2.connectedComponentsWithStats((~person).astype(np.uint8))
    areas = np.maximum(stats[:, cv2.CC_STAT_AREA], 1)
    expected = 1 - regions.prior.probabilities[..., BACKGROUND]
    expected = np.bincount(gaps.ravel(), expected.ravel(), minlength=len(areas)) / areas
    closed = (areas <= HOLE_LIMIT * mask.size) | (expected > SURE_FOREGROUND)
    closed[0] = False
    return person | closed[gaps]


def guided_filter(
    guide: NDArray[np.float32],  # (h, w, 3)
    target: NDArray[np.float32],  # (h, w)
    *,
    radius: int,
    epsilon: float,
) -> NDArray[np.float32]:
    """Locally linear in the guide's colours, near the target (He et al. 2010, section 3.5)."""
    window = (2 * radius + 1, 2 * radius + 1)

    def mean(image: NDArray) -> NDArray:
        return cv2.blur(image, window, borderType=cv2.BORDER_REFLECT)

    mean_guide, mean_target = mean(guide), mean(target)
    covariance = mean(guide * target[..., None]) - mean_guide * mean_target[..., None]
    outer = (guide[..., :, None] * guide[..., None, :]).reshape(*guide.shape[:2], 9)
    spread = np.stack([mean(outer[..., i]) for i in range(9)], -1).reshape(*guide.shape[:2], 3, 3)
    spread -= mean_guide[..., :, None] * mean_guide[..., None, :]
    spread += epsilon * np.eye(3, dtype=np.float32)
    slope = _solve_symmetric(spread, covariance)
    offset = mean_target - (slope * mean_guide).sum(-1)
    return (mean(slope) * guide).sum(-1) + mean(offset)


def _solve_symmetric(matrix: NDArray, vector: NDArray) -> NDArray:
    """Solve (..., 3, 3) x (..., 3) by Cramer's rule; the rows' cross products are the adjugate."""
    first, second, third = matrix[..., 0, :], matrix[..., 1, :], matrix[..., 2, :]
    adjugate = [np.cross(second, third), np.cross(third, first), np.cross(first, second)]
    determinant = (first * adjugate[0]).sum(-1)
    solution = sum(adjugate[i] * vector[..., i : i + 1] for i in range(3))
    return solution / determinant[..., None]


def _undecided_band(regions: Regions, mask: NDArray[np.bool_], size: int) -> NDArray[np.bool_]:
    distance_in = cv2.distanceTransform(mask.astype(np.uint8), cv2.DIST_L2, 5)
    distance_out = cv2.distanceTransform((~mask).astype(np.uint8), cv2.DIST_L2, 5)
    distance = np.where(mask, distance_in, distance_out) / len(mask)
    hair = (regions.probabilities.argmax(-1) == HAIR).astype(np.uint8)
    reach = 2 * round(2 * HAIR_BAND * len(mask)) + 1
    near_hair = cv2.dilate(hair, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (reach, reach))) > 0
    band = distance < np.where(near_hair, HAIR_BAND, BODY_BAND)
    return cv2.resize(band.astype(np.float32), (size, size)) > 0.3


def _confidence(regions: Regions, mask: NDArray[np.bool_]) -> float:
    """Share of the outline at which colours alone tell the sides apart, times stability."""
    ring = 5
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * ring + 1, 2 * ring + 1))
    as_bytes = mask.astype(np.uint8)
    outer = (cv2.dilate(as_bytes, kernel) > 0) & ~mask
    inner = mask & (cv2.erode(as_bytes, kernel) == 0)
    if not outer.any() or not inner.any():
        return 0.0
    agreeing = 0.5 * (
        np.clip(0.5 + regions.evidence[inner] / 6, 0, 1).mean()
        + np.clip(0.5 - regions.evidence[outer] / 6, 0, 1).mean()
    )
    separated = np.clip((agreeing - 0.5) * 2, 0, 1)
    stable = np.clip((regions.agreement - 0.85) / 0.15, 0, 1)
    return float(np.clip(separated * (0.4 + 0.6 * stable), 0, 1))


__all__ = ["BACKGROUND", "Matte", "clean_mask", "compute_matte", "guided_filter"]
