"""Where the networks' square crop lies in a picture, from landmarks of any common layout.

A crop is a similarity: 2 x 3, picture to crop, both with pixel centres at +0.5.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

SOURCE_SCALE, SOURCE_SHIFT_UP = 2.3, 0.125
"""Side over the landmarks' box, and shift towards the forehead in sides, of a source's crop."""
DRIVING_SCALE, DRIVING_SHIFT_UP = 2.2, 0.1
"""The same for driving videos."""

_EYES_AND_MOUTH: dict[int, tuple[list[int], list[int], list[int]]] = {
    203: ([0, 6, 12, 18], [24, 30, 36, 42], [48, 66]),
    106: ([33, 35, 40, 39], [87, 89, 94, 93], [52, 61]),
    68: ([36, 39], [42, 45], [48, 54]),
    5: ([0], [1], [3, 4]),
}
"""Indices of both eyes and of the mouth's corners, by number of landmarks."""


def crop_transform(
    landmarks: NDArray[np.floating],  # [N, 2], N = 203, 106, 68 or 5
    size: int,
    *,
    scale: float = SOURCE_SCALE,
    shift_up: float = SOURCE_SHIFT_UP,
    upright: bool = True,
) -> NDArray[np.float64]:
    """Picture to a ``size`` x ``size`` crop of the face.

    ``upright`` turns the line from eyes to mouth vertical; the box is measured along that line
    in either case.
    """
    centre, side, angle = _face_square(landmarks, scale, shift_up)
    factor, angle = size / side, angle if upright else 0.0
    turn = factor * np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    return np.column_stack([turn, size / 2 - turn @ centre])


def driving_box(landmarks: NDArray[np.floating]) -> NDArray[np.float64]:
    """Left, top, right, bottom of the square around one frame's face, px."""
    centre, side, _ = _face_square(landmarks, DRIVING_SCALE, DRIVING_SHIFT_UP)
    return np.concatenate([centre - side / 2, centre + side / 2])


def box_transform(box: NDArray[np.floating], size: int) -> NDArray[np.float64]:
    """Picture to a ``size`` x ``size`` crop of an axis-aligned square."""
    factor = size / (box[2] - box[0])
    return np.array([[factor, 0, -factor * box[0]], [0, factor, -factor * box[1]]])


def inverse(transform: NDArray[np.floating]) -> NDArray[np.float64]:
    """Crop to picture."""
    linear = np.linalg.inv(transform[:, :2])
    return np.column_stack([linear, -linear @ transform[:, 2]])


def _face_square(
    landmarks: NDArray[np.floating], scale: float, shift_up: float
) -> tuple[NDArray[np.float64], float, float]:
    """Centre (2,), side and turn (radians) of the square around a face."""
    points = np.asarray(landmarks, np.float64)
    if len(points) not in _EYES_AND_MOUTH:
        known = ", ".join(map(str, _EYES_AND_MOUTH))
        raise ValueError(f"expected one of {known} landmarks, found {len(points)}")
    left, right, mouth = (points[list(part)].mean(0) for part in _EYES_AND_MOUTH[len(points)])
    down = mouth - (left + right) / 2
    length = np.linalg.norm(down)
    if length < 1e-9:
        raise ValueError("the eyes and the mouth fall together: no direction to frame the face by")
    down /= length
    across = np.array([down[1], -down[0]])
    along = points @ np.stack([across, down], 1)
    low, high = along.min(0), along.max(0)
    side = scale * float((high - low).max())
    middle = (low + high) / 2
    centre = middle[0] * across + middle[1] * down - down * shift_up * side
    return centre, side, float(np.arctan2(across[1], across[0]))
