"""Which face of the picture is used, and its 68 landmarks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from fc4d_ray.errors import ImageTooSmall, InvalidAnnotation, NoFaceFound, SeveralFaces
from fc4d_ray.portraits.config import IngestConfig
from fc4d_ray.portraits.crop import face_height, invert_transform, map_box, map_points, roll_rad
from fc4d_ray.portraits.crop import warp as warp_image
from fc4d_ray.portraits.decoding import DecodedPortrait
from fc4d_ray.portraits.detection import find_faces
from fc4d_ray.portraits.dlib_models import FaceModels

LANDMARKS = 68
_REFINED_FACE_PX = 220.0
_BOXES = (
    (0.0, 0.0, 1.0), (0.0, 0.0, 0.94), (0.0, 0.0, 1.08),
    (0.04, 0.0, 1.0), (-0.04, 0.0, 1.0), (0.0, 0.04, 1.0), (0.0, -0.04, 1.0),
)  # fmt: skip
"""Shifts, in box widths, and sizes of the box over which predictions are averaged, each for the
face and its mirror image: one alone is noisy."""
_CLIP_LIMIT, _TILES = 2.0, 4
"""Contrast-limited equalisation: the predictor compares pixels, and hardly sees dark skin's."""
MIRRORED_LANDMARK = (
    *range(16, -1, -1), *range(26, 16, -1), 27, 28, 29, 30, 35, 34, 33, 32, 31,
    45, 44, 43, 42, 47, 46, 39, 38, 37, 36, 41, 40,
    54, 53, 52, 51, 50, 49, 48, 59, 58, 57, 56, 55, 64, 63, 62, 61, 60, 67, 66, 65,
)  # fmt: skip
"""``MIRRORED_LANDMARK[i]`` is landmark ``i``'s partner on the other side of the face."""


@dataclass(frozen=True)
class LocatedFace:
    """The chosen face, in source pixels (centres at +0.5)."""

    box: NDArray[np.float64]
    """[left, top, right, bottom]"""
    landmarks: NDArray[np.float64]
    """(68, 2), iBUG order"""
    look: str
    """Name of the detector pass that showed the face, or ``table``."""
    landmarks_source: Literal["detector", "table"]
    warnings: tuple[str, ...] = ()

    @property
    def width(self) -> float:
        return float(self.box[2] - self.box[0])


def locate_face(
    models: FaceModels, portrait: DecodedPortrait, row: Mapping[str, Any], config: IngestConfig
) -> LocatedFace:
    """Choose the face and find its landmarks; annotations of the row replace the detectors.

    Raises:
        NoFaceFound, SeveralFaces, ImageTooSmall: as their names say.
        InvalidAnnotation: ``face_box`` or ``landmarks`` is malformed or outside the image.
    """
    box = annotated_box(row.get("face_box"), portrait.source_size)
    landmarks = annotated_landmarks(row.get("landmarks"), portrait.source_size)
    if box is None and landmarks is not None:
        box = box_around(landmarks)
    notes: list[str] = []
    look = "table"
    if box is None:
        box, look = _detected_box(models, portrait, config, notes)
    if box[2] - box[0] < config.min_face_px:
        raise ImageTooSmall(
            f"the face is {box[2] - box[0]:.0f} px wide, at least "
            f"ingest.min_face_px = {config.min_face_px} are needed"
        )
    source: Literal["detector", "table"] = "table"
    if landmarks is None:
        source = "detector"
        to_decoded = np.column_stack([np.diag(portrait.scale), np.zeros(2)])
        decoded_box = box * np.tile(portrait.scale, 2)
        found = predict_landmarks(models, portrait.rgb, decoded_box)
        landmarks = map_points(invert_transform(to_decoded), found)
    return LocatedFace(box, landmarks, look, source, tuple(notes))


def predict_landmarks(
    models: FaceModels, picture: NDArray[np.uint8], box: NDArray
) -> NDArray[np.float64]:
    """(68, 2) landmarks in the picture's pixels.

    A first guess gives the tilt; the predictor, which knows upright faces only, then sees the
    face levelled, at one size and with even contrast, through several slightly different boxes.
    """
    angle = 0.0
    landmarks = None
    for _ in range(2):
        transform, window = _levelled_window(box, angle)
        face = _even_contrast(warp_image(picture, transform, (window, window)))
        found = _averaged(models, face, map_box(transform, box))
        landmarks = map_points(invert_transform(transform), found)
        turn = roll_rad(landmarks) - angle
        angle += turn
        if abs(turn) < np.deg2rad(3.0):
            break
    return landmarks


def _averaged(models: FaceModels, face: NDArray[np.uint8], box: NDArray) -> NDArray[np.float64]:
    """Mean (68, 2) over boxes and mirror images."""
    side = face.shape[1]
    mirrored = np.ascontiguousarray(face[:, ::-1])
    centre, half = (box[:2] + box[2:]) / 2, (box[2:] - box[:2]) / 2
    guesses = []
    for right, down, size in _BOXES:
        middle = centre + 2 * half[0] * np.array([right, down])
        low, high = middle - size * half, middle + size * half
        guesses.append(models.landmarks(face, np.concatenate([low, high])))
        across = np.array([side - high[0], low[1], side - low[0], high[1]])
        flipped = models.landmarks(mirrored, across)
        guesses.append((flipped * [-1, 1] + [side, 0])[list(MIRRORED_LANDMARK)])
    return np.mean(guesses, 0)


def _even_contrast(face: NDArray[np.uint8]) -> NDArray[np.uint8]:
    lab = cv2.cvtColor(face, cv2.COLOR_RGB2LAB)
    lab[..., 0] = cv2.createCLAHE(_CLIP_LIMIT, (_TILES, _TILES)).apply(lab[..., 0])
    return cv2.cvtColor(lab, cv2.COLOR_LAB2RGB)


def _levelled_window(box: NDArray, angle: float) -> tuple[NDArray[np.float64], int]:
    """Map that turns ``angle`` (rad) level and brings the box to ``_REFINED_FACE_PX``."""
    scale = _REFINED_FACE_PX / (box[2] - box[0])
    window = round(2.2 * _REFINED_FACE_PX)
    linear = scale * np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    centre = (box[:2] + box[2:]) / 2
    return np.column_stack([linear, np.full(2, window / 2) - linear @ centre]), window


def _detected_box(
    models: FaceModels, portrait: DecodedPortrait, config: IngestConfig, notes: list[str]
) -> tuple[NDArray[np.float64], str]:
    found = find_faces(models, portrait.rgb)
    if found is None:
        raise NoFaceFound(
            "no human face was found; give a `face_box` column (left, top, right, bottom in "
            "pixels) if there is one"
        )
    if len(found.faces) > 1:
        if config.faces == "single":
            raise SeveralFaces(
                f"{len(found.faces)} faces were found while ingest.faces is 'single'"
            )
        notes.append(f"{len(found.faces)} faces found, the largest was used")
    return found.faces[0].box / np.tile(portrait.scale, 2), found.look


def box_around(landmarks: NDArray) -> NDArray[np.float64]:
    """The box dlib's detector would draw around these landmarks, about brows to chin."""
    side = 1.15 * max(face_height(landmarks), np.ptp(landmarks[:17], axis=0).max() * 0.85)
    centre = (landmarks[17:27].mean(0) + landmarks[8]) / 2
    return np.concatenate([centre - side / 2, centre + side / 2])


def annotated_box(value: Any, source_size: tuple[int, int]) -> NDArray[np.float64] | None:
    """The row's ``face_box`` as (4,) floats, None where there is none."""
    if value is None:
        return None
    box = _numbers(value, "face_box")
    if box.shape != (4,):
        raise InvalidAnnotation(
            f"face_box must be [left, top, right, bottom], found shape {box.shape}"
        )
    width, height = source_size
    if box[2] <= box[0] or box[3] <= box[1]:
        raise InvalidAnnotation(f"face_box must have right > left and bottom > top: {box.tolist()}")
    centre = (box[:2] + box[2:]) / 2
    if not (0 <= centre[0] <= width and 0 <= centre[1] <= height):
        raise InvalidAnnotation(f"face_box {box.tolist()} lies outside the {width}x{height} image")
    return box


def annotated_landmarks(value: Any, source_size: tuple[int, int]) -> NDArray[np.float64] | None:
    """The row's ``landmarks`` as (68, 2) floats, None where there are none."""
    if value is None:
        return None
    points = _numbers(value, "landmarks")
    if points.shape == (2 * LANDMARKS,):
        points = points.reshape(LANDMARKS, 2)
    if points.shape != (LANDMARKS, 2):
        raise InvalidAnnotation(f"landmarks must be 68 x 2 numbers, found shape {points.shape}")
    size = np.array(source_size, np.float64)
    if (points < -0.1 * size).any() or (points > 1.1 * size).any():
        raise InvalidAnnotation(
            f"landmarks lie outside the {source_size[0]}x{source_size[1]} image; they must be "
            "pixels of the upright image"
        )
    eyes = np.linalg.norm(points[42:48].mean(0) - points[36:42].mean(0))
    if eyes < 4.0 or face_height(points) < eyes * 0.5:
        raise InvalidAnnotation("landmarks do not form a face in the iBUG 68-point order")
    return points


def _numbers(value: Any, column: str) -> NDArray[np.float64]:
    try:
        rows = [list(one) if np.ndim(one) else one for one in value]
        numbers = np.array(rows, np.float64)
    except (TypeError, ValueError) as error:
        raise InvalidAnnotation(f"{column} must hold numbers: {error}") from error
    if not np.isfinite(numbers).all():
        raise InvalidAnnotation(f"{column} holds a value that is not finite")
    return numbers
