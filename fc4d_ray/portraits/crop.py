"""The aligned square crop: eyes level, head and shoulders in view, a fixed face size."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

BROWS = slice(17, 27)
RIGHT_EYE = slice(36, 42)
LEFT_EYE = slice(42, 48)
CHIN = 8


@dataclass(frozen=True)
class CropFrame:
    """Where the crop lies in the source image."""

    source_to_crop: NDArray[np.float64]
    """2x3 similarity, source pixels to crop pixels (centres at +0.5 in both)."""
    size: int
    """Side of the square crop in pixels."""

    @property
    def scale(self) -> float:
        """Crop pixels per source pixel."""
        return float(np.hypot(*self.source_to_crop[:, 0]))


def map_points(transform: NDArray, points: NDArray) -> NDArray[np.float64]:
    """Apply a 2x3 affine map to points (..., 2)."""
    return np.asarray(points, np.float64) @ transform[:, :2].T + transform[:, 2]


def invert_transform(transform: NDArray) -> NDArray[np.float64]:
    """The 2x3 inverse of a 2x3 affine map."""
    return np.linalg.inv(np.vstack([transform, [0.0, 0.0, 1.0]]))[:2]


def map_box(transform: NDArray, box: NDArray) -> NDArray[np.float64]:
    """A similarity's image of an upright box [l, t, r, b]: centre mapped, sides scaled."""
    box = np.asarray(box, np.float64)
    centre = map_points(transform, (box[:2] + box[2:]) / 2)
    half = (box[2:] - box[:2]) / 2 * np.hypot(*transform[:, 0])
    return np.concatenate([centre - half, centre + half])


def roll_rad(landmarks: NDArray) -> float:
    """In-plane rotation of the line through the eyes; positive turns clockwise on screen."""
    across = landmarks[LEFT_EYE].mean(0) - landmarks[RIGHT_EYE].mean(0)
    return float(np.arctan2(across[1], across[0]))


def face_height(landmarks: NDArray) -> float:
    """Distance from brows to chin along the levelled vertical, in the landmarks' pixels."""
    angle = roll_rad(landmarks)
    down = np.array([-np.sin(angle), np.cos(angle)])
    return float((landmarks[CHIN] - landmarks[BROWS].mean(0)) @ down)


def frame_crop(
    landmarks: NDArray,  # (68, 2) source pixels
    *,
    size: int,
    face_fraction: float,
    face_centre_y: float,
) -> CropFrame:
    """Similarity that levels the eyes and brings brows-to-chin to ``face_fraction`` of the side.

    A laughing mouth lowers the chin and a nod shortens the face, so the scale also listens to the
    distance between the eyes and the mouth's upper lip, which neither changes as much; it leans on
    that distance for at most a fifth.
    """
    angle = roll_rad(landmarks)
    levelling = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    level = landmarks @ levelling.T
    brow_y, chin_y = level[BROWS, 1].mean(), level[CHIN, 1]
    measured = chin_y - brow_y
    eye_y = level[36:48, 1].mean()
    steady = 2.05 * (level[51, 1] - eye_y)
    height = float(np.clip(steady, 0.85 * measured, 1.15 * measured) * 0.5 + measured * 0.5)

    jaw_x = (level[0, 0] + level[16, 0]) / 2
    # A turned face looks away from the bulk of the head.
    face_x = jaw_x + 0.3 * (jaw_x - level[27:31, 0].mean())
    anchor = np.array([face_x, brow_y + height / 2])
    scale = face_fraction * size / height
    linear = scale * levelling
    offset = np.array([0.5, face_centre_y]) * size - scale * anchor
    return CropFrame(np.column_stack([linear, offset]), size)


def warp(
    image: NDArray,  # (h, w) or (h, w, 3)
    transform: NDArray,  # 2x3, image pixels to output pixels, centres at +0.5
    size: tuple[int, int],  # width, height
    *,
    border: int = cv2.BORDER_REPLICATE,
) -> NDArray:
    """Resample an image; shrinking averages, so that nothing aliases."""
    scale = float(np.hypot(*transform[:, 0]))
    linear, offset = transform[:, :2].copy(), transform[:, 2].copy()
    while scale < 0.6 and min(image.shape[:2]) >= 4:
        height, width = image.shape[:2]
        half = (max(1, round(width / 2)), max(1, round(height / 2)))
        image = cv2.resize(image, half, interpolation=cv2.INTER_AREA)
        linear = linear * np.array([width / half[0], height / half[1]])
        scale *= 2.0
    # OpenCV counts from pixel centres: x_cv = x - 0.5.
    offset = offset + linear @ np.array([0.5, 0.5]) - 0.5
    matrix = np.column_stack([linear, offset])
    interpolation = cv2.INTER_CUBIC if scale > 1.0 else cv2.INTER_LINEAR
    return cv2.warpAffine(image, matrix, size, flags=interpolation, borderMode=border)


def inside_source(frame: CropFrame, source_size: tuple[int, int]) -> NDArray[np.bool_]:
    """(size, size) mask of crop pixels whose centre lies in the source image."""
    x, y = np.meshgrid(np.arange(frame.size) + 0.5, np.arange(frame.size) + 0.5)
    source = map_points(invert_transform(frame.source_to_crop), np.stack([x, y], -1))
    width, height = source_size
    return (
        (source[..., 0] >= 0)
        & (source[..., 0] <= width)
        & (source[..., 1] >= 0)
        & (source[..., 1] <= height)
    )
