"""Does the avatar still look like its portrait, and does its face move? Measures on dlib.

The identity protocol: HOG detector with one upsampling, threshold -0.3 for front views and 0.0
for the test that the back of the head shows no face; a box counts only where it overlaps the
head; the descriptor is that of the largest such face. Renders are 512 x 512 on white in the
default framing. Distances below 0.6 mean the same person to dlib.
"""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray

from fc4d_ray.portraits.dlib_models import FaceModels, ScoredBox

FRONT_THRESHOLD = -0.3
BACK_THRESHOLD = 0.0
SAME_PERSON_DISTANCE = 0.6
WHITE_MARGIN = 12
"""Levels below white from which a pixel belongs to the head."""
HEAD_OVERLAP = 0.5
"""Least share of a face box that must be covered by the head's pixels."""


@cache
def _models() -> FaceModels:
    return FaceModels()


def largest_face(
    image: NDArray[np.uint8],  # (h, w, 3) or (h, w, 4)
    threshold: float = FRONT_THRESHOLD,
    head: NDArray[np.bool_] | None = None,  # (h, w)
) -> ScoredBox | None:
    """The largest detected face that overlaps the head, None where there is none.

    ``head`` is where the head is; by default the pixels with alpha, or those that are not white.
    """
    picture, covered = _on_white(image)
    head = covered if head is None else head
    faces = _models().find_hog(picture, upsample=1, threshold=threshold)
    on_head = [face for face in faces if _share_inside(face.box, head) >= HEAD_OVERLAP]
    return max(on_head, key=lambda face: face.width, default=None)


def face_detected(
    render: NDArray[np.uint8],
    threshold: float = FRONT_THRESHOLD,
    head: NDArray[np.bool_] | None = None,
) -> bool:
    """Whether the render shows a face; use ``BACK_THRESHOLD`` for views from behind."""
    return largest_face(render, threshold, head) is not None


def face_descriptor(
    image: NDArray[np.uint8], threshold: float = FRONT_THRESHOLD
) -> NDArray[np.float64] | None:
    """(128,) descriptor of the largest face, None where there is none."""
    face = largest_face(image, threshold)
    if face is None:
        return None
    return _models().descriptor(_on_white(image)[0], face.box)


def identity_distance(
    reference_image: NDArray[np.uint8], render: NDArray[np.uint8]
) -> float | None:
    """Euclidean distance of the two descriptors, None where either image shows no face."""
    reference, rendered = face_descriptor(reference_image), face_descriptor(render)
    if reference is None or rendered is None:
        return None
    return float(np.linalg.norm(reference - rendered))


def render_landmarks(
    render: NDArray[np.uint8], threshold: float = FRONT_THRESHOLD
) -> NDArray[np.float64] | None:
    """(68, 2) landmarks of the largest face in pixels, None where there is none."""
    face = largest_face(render, threshold)
    if face is None:
        return None
    return _models().landmarks(_on_white(render)[0], face.box)


def eye_aspect_ratio(landmarks: NDArray) -> tuple[float, float]:
    """Opening over width of the subject's right and left eye: about 0.3 open, below 0.15 shut."""
    return _aspect(landmarks[36:42]), _aspect(landmarks[42:48])


def outer_eye_distance(landmarks: NDArray) -> float:
    """Distance between the outer corners of the eyes, in the landmarks' pixels."""
    return float(np.linalg.norm(landmarks[45] - landmarks[36]))


def inner_lip_opening(landmarks: NDArray) -> float:
    """Mean gap between the inner lips, in outer eye distances: 0 with the mouth shut."""
    gaps = np.linalg.norm(landmarks[[61, 62, 63]] - landmarks[[67, 66, 65]], axis=-1)
    return float(gaps.mean() / outer_eye_distance(landmarks))


def _aspect(eye: NDArray) -> float:
    heights = np.linalg.norm(eye[[1, 2]] - eye[[5, 4]], axis=-1).mean()
    return float(heights / np.linalg.norm(eye[3] - eye[0]))


def _on_white(image: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """The RGB image over white, and where it is covered."""
    if image.ndim != 3 or image.shape[2] not in (3, 4) or image.dtype != np.uint8:
        raise ValueError(f"expected (h, w, 3 or 4) uint8, found {image.shape} {image.dtype}")
    if image.shape[2] == 3:
        return image, (image < 255 - WHITE_MARGIN).any(-1)
    alpha = image[..., 3:].astype(np.float32) / 255
    over = image[..., :3] * alpha + 255 * (1 - alpha)
    return np.rint(over).astype(np.uint8), image[..., 3] > 127


def _share_inside(box: NDArray, head: NDArray[np.bool_]) -> float:
    left, top, right, bottom = np.rint(box).astype(int)
    window = head[max(top, 0) : max(bottom, 0), max(left, 0) : max(right, 0)]
    area = max((right - left) * (bottom - top), 1)
    return float(window.sum() / area)
