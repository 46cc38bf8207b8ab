"""Where background, skin, hair and clothing lie around 68 landmarks, before any colour is seen.

Head coordinates: the unit is the distance from brows to chin, y = 0 at the brows and 1 at the
chin, x = 0 at the middle of the head, which for a turned face lies behind the middle of the jaw.
The numbers are ordinary head proportions with room for hair, hats and narrow shoulders.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from fc4d_ray.portraits.crop import BROWS, CHIN, face_height

BACKGROUND, SKIN, HAIR, CLOTHING = range(4)
LABELS = ("background", "skin", "hair", "clothing")


@dataclass(frozen=True)
class GeometryPrior:
    """Maps on a square grid of pixels."""

    probabilities: NDArray[np.float32]
    """(s, s, 4), in the order of ``LABELS``, summing to one"""
    face: NDArray[np.bool_]
    """(s, s), the landmark hull: skin (or beard) for certain"""
    head_xy: NDArray[np.float32]
    """(s, s, 2), head coordinates of the pixel centres"""


def geometry_prior(landmarks: NDArray, size: int) -> GeometryPrior:
    """Prior for levelled landmarks (68, 2) in the pixels of a ``size`` x ``size`` grid."""
    unit = face_height(landmarks)
    jaw_x = (landmarks[0, 0] + landmarks[16, 0]) / 2
    turn = float(np.clip((jaw_x - landmarks[27:31, 0].mean()) / unit, -0.5, 0.5))
    origin = np.array([jaw_x + 0.35 * turn * unit, landmarks[BROWS, 1].mean()])
    centres = np.stack(np.meshgrid(np.arange(size) + 0.5, np.arange(size) + 0.5), -1)
    head_xy = (centres - origin) / unit
    x, y = head_xy[..., 0], head_xy[..., 1]
    across = np.abs(x)

    head = _inside(_ellipse(x, y, 0.0, 0.10, 0.88, 0.98), 0.16)
    long_hair = 0.45 * _inside(_ellipse(x, y, 0.0, 0.95, 1.05, 1.0), 0.22)
    neck = _rising(0.45 - across, 0.10) * _rising(y - 0.55, 0.1)
    shoulder_y = 1.22 + 0.30 * np.clip(across - 0.3, 0, None) + 0.25 * np.clip(across - 1.3, 0, 9)
    body = _rising(y - shoulder_y, 0.13 + 0.08 * np.clip(across - 0.5, 0, None)) * _rising(
        2.25 - across, 0.2
    )
    foreground = 1 - (1 - head) * (1 - long_hair) * (1 - neck) * (1 - body)
    foreground = np.clip(foreground, 0.04, 0.93)

    face_width = np.ptp(landmarks[:17, 0]) / unit / 2
    face_x = (jaw_x - origin[0]) / unit
    scalp = _inside(_ellipse(x, y, face_x, 0.33, face_width * 1.0, 0.80), 0.10)
    skin = np.maximum.reduce(
        [
            0.75 * scalp * _rising(y + 0.38, 0.10),
            0.85 * neck * _rising(y - 0.8, 0.08) * _rising(1.38 - y, 0.12),
            0.28 * _rising(0.75 - across, 0.15) * _rising(y - 1.1, 0.1),
            np.full_like(x, 0.05),
        ]
    )
    clothing = np.maximum(0.95 * _rising(y - np.minimum(shoulder_y, 1.45), 0.14), 0.015)
    hair = np.maximum.reduce(
        [
            0.95 * _rising(0.55 - y, 0.18),
            0.40 * _rising(1.3 - y, 0.2) * _rising(1.0 - across, 0.15) * (1 - 0.75 * neck),
            0.14 * _rising(1.1 - across, 0.2) * (1 - 0.5 * neck),
            np.full_like(x, 0.02),
        ]
    )
    parts = np.stack([skin, hair * (1 - 0.8 * scalp * _rising(y + 0.25, 0.1)), clothing], -1)
    parts /= parts.sum(-1, keepdims=True)
    face = face_hull(landmarks, size)
    probabilities = np.concatenate(
        [1 - foreground[..., None], foreground[..., None] * parts], -1
    ).astype(np.float32)
    probabilities[face] = (0.004, 0.98, 0.008, 0.008)
    return GeometryPrior(probabilities, face, head_xy.astype(np.float32))


def face_hull(landmarks: NDArray, size: int, shrink: float = 0.93) -> NDArray[np.bool_]:
    """Mask of the landmarks' convex hull, shrunk about its centre, raised above the brows."""
    points = landmarks.copy()
    points[BROWS, 1] -= 0.06 * (landmarks[CHIN, 1] - landmarks[BROWS, 1].mean())
    centre = points.mean(0)
    hull = cv2.convexHull(((points - centre) * shrink + centre - 0.5).astype(np.float32))
    mask = np.zeros((size, size), np.uint8)
    cv2.fillConvexPoly(mask, np.rint(hull).astype(np.int32), 1)
    return mask.astype(bool)


def _ellipse(
    x: NDArray, y: NDArray, centre_x: float, centre_y: float, radius_x: float, radius_y: float
) -> NDArray:
    """1 minus the normalised radius: positive inside."""
    return 1 - np.hypot((x - centre_x) / radius_x, (y - centre_y) / radius_y)


def _rising(value: NDArray, width: NDArray | float) -> NDArray:
    return 1 / (1 + np.exp(np.clip(-value / (width / 2), -60, 60)))


def _inside(value: NDArray, width: float) -> NDArray:
    return _rising(value, width)
