"""How far eyes and lips are open, from landmarks: a height over a width."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_EPSILON = 1e-6


def openness_203(landmarks: NDArray[np.floating]) -> tuple[NDArray, NDArray]:
    """Eyes (N, 2), left then right, and lips (N, 1) of 203-point landmarks (N, 203, 2).

    Left is LivePortrait's: the eye on the picture's left.
    """
    return (
        np.stack([_ratio(landmarks, 6, 18, 0, 12), _ratio(landmarks, 30, 42, 24, 36)], -1),
        _ratio(landmarks, 90, 102, 48, 66)[:, None],
    )


def openness_68(landmarks: NDArray[np.floating]) -> tuple[NDArray, NDArray]:
    """The same measures on the 68 iBUG landmarks (N, 68, 2 or 3).

    The lids' middles are the means of the two points on each lid; the lips' are the inner ones.
    """
    points = np.asarray(landmarks, np.float64)

    def eye(first: int) -> NDArray:
        upper = points[:, first + 1 : first + 3].mean(1)
        lower = points[:, first + 4 : first + 6].mean(1)
        width = np.linalg.norm(points[:, first] - points[:, first + 3], axis=-1)
        return np.linalg.norm(upper - lower, axis=-1) / (width + _EPSILON)

    return np.stack([eye(36), eye(42)], -1), _ratio(points, 62, 66, 48, 54)[:, None]


def _ratio(points: NDArray, upper: int, lower: int, one: int, other: int) -> NDArray:
    height = np.linalg.norm(points[:, upper] - points[:, lower], axis=-1)
    width = np.linalg.norm(points[:, one] - points[:, other], axis=-1)
    return height / (width + _EPSILON)
