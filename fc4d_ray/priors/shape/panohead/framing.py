"""PanoHead's framing of a face: the square around it, its refinement, the picture it crops.

Pixel coordinates in this module count from pixel centres (the first pixel's centre is 0), as the
published preparation does; ``alignment`` converts.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from fc4d_ray.errors import FitFailed

SQUARE_SIZE = 512
FRAME_SIZE = int(SQUARE_SIZE * 1.1)
"""The square lies in a larger frame: a tenth more on top, half of that on either side."""
TOP_MARGIN = 51
LEFT_MARGIN = 25
SCALE_RANGE = (0.7, 1.3)
MAX_SHIFT = 1.0
MAX_YAW_DEG, MAX_PITCH_DEG, MAX_ROLL_DEG = 90.0, 80.0, 50.0
_BLUR = int((SQUARE_SIZE - 1) * 0.03) * 2 + 1
_SOFTENING = int((SQUARE_SIZE - 1) * 0.02) * 2 + 1


@dataclass(frozen=True)
class FaceSquare:
    """A turned square: its centre and the vectors to the middles of its right and lower sides."""

    centre: NDArray[np.float64]  # [2] px
    x: NDArray[np.float64]  # [2] px, half a side long
    y: NDArray[np.float64]  # [2] px, x turned by a right angle

    @property
    def half_side(self) -> float:
        return float(np.hypot(*self.x))

    @property
    def corners(self) -> NDArray[np.float64]:
        """(4, 2): top left, bottom left, bottom right, top right."""
        c, x, y = self.centre, self.x, self.y
        return np.stack([c - x - y, c - x + y, c + x + y, c + x - y])

    def refined(self, shift: NDArray[np.floating], scale: float) -> FaceSquare:
        """Moved by ``shift`` (2,) half sides along its own axes, then scaled."""
        centre = self.centre + self.x * shift[0] + self.y * shift[1]
        return FaceSquare(centre, self.x * scale, self.y * scale)


def landmark_square(landmarks: NDArray[np.floating]) -> FaceSquare:
    """First square from 68 landmarks (68, 2) in pixels."""
    right_eye, left_eye = landmarks[36:42].mean(0), landmarks[42:48].mean(0)
    mouth = (landmarks[48] + landmarks[54]) / 2
    eyes = (right_eye + left_eye) / 2
    across, down = left_eye - right_eye, mouth - eyes
    x = across - np.array([-down[1], down[0]])
    length = np.hypot(*x)
    if not np.isfinite(length) or length < 1e-6:
        raise FitFailed("eyes and mouth lie in one point: they do not look like a face")
    x = x / length * max(2.0 * np.hypot(*across), 1.8 * np.hypot(*down))
    return FaceSquare(eyes + 0.1 * down, x, np.array([-x[1], x[0]]))


def check_refinement(
    shift: NDArray[np.floating], scale: float, angles_deg: NDArray[np.floating]
) -> None:
    """Raise ``FitFailed`` for refinements and poses (yaw, pitch, roll) PanoHead never saw."""
    low, high = SCALE_RANGE
    if not low <= scale <= high:
        raise FitFailed(f"the head is {scale:.2f} times as large as its landmarks suggest")
    if np.hypot(*shift) > MAX_SHIFT:
        raise FitFailed(f"the head lies {np.hypot(*shift):.2f} half sides off its landmarks")
    limits = (MAX_YAW_DEG, MAX_PITCH_DEG, MAX_ROLL_DEG)
    for name, angle, limit in zip(("yaw", "pitch", "roll"), angles_deg, limits, strict=True):
        if abs(angle) > limit:
            raise FitFailed(f"the head's {name} of {angle:.0f} degrees is beyond {limit:.0f}")


def frame_transform(square: FaceSquare, scale: float = 1.0) -> NDArray[np.float64]:
    """Affine map (2, 3) from the picture's pixels to the frame's at ``scale`` times its size.

    The square's first and last pixel centres land on its corners.
    """
    left, top = LEFT_MARGIN * scale, TOP_MARGIN * scale
    side = (SQUARE_SIZE - 1) * scale
    target = np.array([[left, top], [left, top + side], [left + side, top + side]])
    return cv2.getAffineTransform(
        square.corners[:3].astype(np.float32), target.astype(np.float32)
    ).astype(np.float64)


def framed_picture(image: NDArray[np.uint8], square: FaceSquare) -> NDArray[np.uint8]:
    """The frame (563, 563, 3): beyond the picture its blurred reflection.

    Drawn at twice the size with Lanczos and averaged.
    """
    matrix = frame_transform(square, 2.0)
    size = (2 * FRAME_SIZE, 2 * FRAME_SIZE)
    drawn = cv2.warpAffine(
        image, matrix, size, flags=cv2.INTER_LANCZOS4, borderMode=cv2.BORDER_REFLECT
    )
    drawn = _halved(drawn)
    covered = np.ones(image.shape[:2], np.float32)
    inside = _halved(cv2.warpAffine(covered, matrix, size, flags=cv2.INTER_LINEAR))
    if inside.min() == 1:
        return drawn
    share = cv2.blur(inside, (_SOFTENING, _SOFTENING))[..., None]
    mixed = drawn * share + cv2.blur(drawn, (_BLUR, _BLUR)) * (1 - share)
    return np.clip(mixed, 0, 255).astype(np.uint8)


def framed_matte(matte: NDArray[np.uint8], square: FaceSquare) -> NDArray[np.uint8]:
    """A matte (H, W) in the frame (563, 563); nothing lies beyond the picture."""
    size = (2 * FRAME_SIZE, 2 * FRAME_SIZE)
    return _halved(cv2.warpAffine(matte, frame_transform(square, 2.0), size))


def _halved(image: NDArray) -> NDArray:
    return cv2.resize(image, (FRAME_SIZE, FRAME_SIZE), interpolation=cv2.INTER_AREA)
