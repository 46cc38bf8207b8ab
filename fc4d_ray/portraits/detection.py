"""Finding the faces of a picture with dlib, from the quick and certain to the slow and daring.

The HOG detector knows upright frontal faces and answers in tenths of a second. Turned, tilted,
painted, dim or tiny faces need other looks at the picture; the first look that shows a face ends
the search, and its name is reported.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from fc4d_ray.portraits.crop import invert_transform, map_box, warp
from fc4d_ray.portraits.dlib_models import FaceModels, ScoredBox

HOG_CERTAIN = 0.4
"""HOG scores above this are faces; in suits, hair and foliage it reaches about 0.2."""
HOG_CONFIRMED = -0.4
"""Scores above this count where the convolutional detector sees a face at the same place."""
CNN_CERTAIN = 0.45
SAME_FACE_IOU = 0.3


@dataclass(frozen=True)
class FoundFaces:
    """Boxes in the given picture's pixels, widest first, and the look that showed them."""

    faces: tuple[ScoredBox, ...]
    look: str


@dataclass(frozen=True)
class _Look:
    name: str
    find: Callable[[NDArray[np.uint8]], list[ScoredBox]]
    transform: NDArray[np.float64]  # 2x3, picture to looked-at pixels
    size: tuple[int, int]
    retouch: Callable[[NDArray[np.uint8]], NDArray[np.uint8]] = lambda image: image
    mirrored: bool = False


def find_faces(models: FaceModels, picture: NDArray[np.uint8]) -> FoundFaces | None:
    """Faces of an (h, w, 3) RGB picture, or None where no look shows any."""
    for look in _looks(models, picture.shape[1], picture.shape[0]):
        seen = look.retouch(warp(picture, look.transform, look.size))
        if look.mirrored:
            seen = np.ascontiguousarray(seen[:, ::-1])
        found = look.find(seen)
        if not found:
            continue
        boxes = [_to_picture(one, look) for one in found]
        faces = _without_overlaps(boxes)
        return FoundFaces(tuple(sorted(faces, key=lambda f: -f.width)), look.name)
    return None


def _looks(models: FaceModels, width: int, height: int) -> Iterator[_Look]:
    def hog(upsample: int) -> Callable[[NDArray[np.uint8]], list[ScoredBox]]:
        return lambda image: models.find_hog(image, upsample=upsample, threshold=HOG_CERTAIN)

    def cnn(image: NDArray[np.uint8]) -> list[ScoredBox]:
        return [_as_hog_box(one) for one in models.find_cnn(image, threshold=CNN_CERTAIN)]

    def confirmed(image: NDArray[np.uint8]) -> list[ScoredBox]:
        return _confirmed(models.find_hog(image, upsample=1, threshold=HOG_CONFIRMED), cnn(image))

    yield _Look("hog", hog(1), *_scaled(width, height, 640))
    yield _Look("hog_coarse", hog(1), *_scaled(width, height, 320))
    yield _Look("hog_equalised", hog(1), *_scaled(width, height, 640), retouch=_equalised)
    yield _Look("cnn", confirmed, *_scaled(width, height, 480))
    for tilt_deg in (-25.0, 25.0):
        yield _Look(f"hog_tilted{tilt_deg:+.0f}", hog(1), *_scaled(width, height, 480, tilt_deg))
    yield _Look("hog_mirrored", hog(1), *_scaled(width, height, 640), mirrored=True)
    yield _Look("hog_fine", hog(1), *_scaled(width, height, 1600))
    yield _Look("cnn_fine", cnn, *_scaled(width, height, 800))


def _scaled(
    width: int, height: int, long_side: int, tilt_deg: float = 0.0
) -> tuple[NDArray[np.float64], tuple[int, int]]:
    """Map to a picture of the given long side (never blown up more than 8 times), tilted."""
    scale = min(long_side / max(width, height), 8.0)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    angle = np.deg2rad(tilt_deg)
    linear = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    offset = np.array(size) / 2 - linear @ (np.array([width, height]) / 2)
    return np.column_stack([linear, offset]), size


def _equalised(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    lab = cv2.cvtColor(image, cv2.COLOR_RGB2LAB)
    lab[..., 0] = cv2.createCLAHE(2.0, (8, 8)).apply(np.ascontiguousarray(lab[..., 0]))
    return cv2.cvtColor(lab, cv2.COLOR_LAB2RGB)


def _to_picture(found: ScoredBox, look: _Look) -> ScoredBox:
    box = found.box
    if look.mirrored:
        width = look.size[0]
        box = np.array([width - box[2], box[1], width - box[0], box[3]])
    return ScoredBox(map_box(invert_transform(look.transform), box), found.score)


def _as_hog_box(found: ScoredBox) -> ScoredBox:
    """The two detectors frame faces alike, the convolutional one slightly higher."""
    shift = 0.06 * found.width
    return ScoredBox(found.box + np.array([0.0, shift, 0.0, shift]), found.score)


def _confirmed(weak: list[ScoredBox], certain: list[ScoredBox]) -> list[ScoredBox]:
    """Each certain face, framed by the HOG detector where that saw it too."""
    faces = []
    for face in certain:
        matches = [one for one in weak if overlap(one.box, face.box) >= SAME_FACE_IOU]
        faces.append(
            ScoredBox(max(matches, key=lambda one: one.score).box, face.score) if matches else face
        )
    return faces


def overlap(one: NDArray, other: NDArray) -> float:
    """Intersection over union of two boxes [l, t, r, b]."""
    sides = np.clip(np.minimum(one[2:], other[2:]) - np.maximum(one[:2], other[:2]), 0, None)
    shared = float(sides.prod())
    areas = (one[2:] - one[:2]).prod() + (other[2:] - other[:2]).prod()
    return shared / max(float(areas) - shared, 1e-9)


def _without_overlaps(faces: list[ScoredBox]) -> list[ScoredBox]:
    kept: list[ScoredBox] = []
    for face in sorted(faces, key=lambda f: -f.score):
        if all(overlap(face.box, other.box) < SAME_FACE_IOU for other in kept):
            kept.append(face)
    return kept
