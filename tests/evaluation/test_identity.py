from __future__ import annotations

import numpy as np
import pytest

from fc4d_ray.evaluation.identity import (
    BACK_THRESHOLD,
    SAME_PERSON_DISTANCE,
    eye_aspect_ratio,
    face_detected,
    identity_distance,
    inner_lip_opening,
    largest_face,
    outer_eye_distance,
    render_landmarks,
)


@pytest.fixture(scope="module")
def astronaut() -> np.ndarray:
    return pytest.importorskip("skimage.data").astronaut()[:300, 60:360].copy()


def test_a_picture_is_itself_and_its_mirror_the_same_person(astronaut: np.ndarray) -> None:
    assert identity_distance(astronaut, astronaut) == pytest.approx(0, abs=1e-9)
    mirrored = np.ascontiguousarray(astronaut[:, ::-1])
    distance = identity_distance(astronaut, mirrored)
    assert distance is not None
    assert 0 < distance < SAME_PERSON_DISTANCE


def test_no_face_gives_none(astronaut: np.ndarray) -> None:
    white = np.full((256, 256, 3), 255, np.uint8)
    assert identity_distance(astronaut, white) is None
    assert not face_detected(white)
    assert not face_detected(white, BACK_THRESHOLD)


def test_boxes_off_the_head_do_not_count(astronaut: np.ndarray) -> None:
    assert face_detected(astronaut)
    elsewhere = np.zeros(astronaut.shape[:2], bool)
    elsewhere[250:] = True
    assert not face_detected(astronaut, head=elsewhere)
    transparent = np.dstack([astronaut, np.zeros(astronaut.shape[:2], np.uint8)])
    assert not face_detected(transparent)
    opaque = np.dstack([astronaut, np.full(astronaut.shape[:2], 255, np.uint8)])
    face = largest_face(opaque)
    assert face is not None
    assert face.width > 60


def test_refuses_float_images() -> None:
    with pytest.raises(ValueError, match="uint8"):
        face_detected(np.zeros((8, 8, 3), np.float32))


def test_an_open_smile_with_open_eyes(astronaut: np.ndarray) -> None:
    landmarks = render_landmarks(astronaut)
    assert landmarks is not None
    assert min(eye_aspect_ratio(landmarks)) > 0.2
    assert max(eye_aspect_ratio(landmarks)) < 0.45
    assert 0.05 < inner_lip_opening(landmarks) < 0.3


def test_measures_by_hand() -> None:
    landmarks = np.zeros((68, 2))
    eye = np.array([[0, 0], [1, -1], [2, -1], [3, 0], [2, 1], [1, 1]], float)
    landmarks[36:42] = eye
    landmarks[42:48] = eye * [1, 0.5] + [7, 0]
    assert eye_aspect_ratio(landmarks) == pytest.approx((2 / 3, 1 / 3))
    assert outer_eye_distance(landmarks) == pytest.approx(10)
    landmarks[61:64] = [[4, 10], [5, 10], [6, 10]]
    landmarks[65:68] = [[6, 12], [5, 12], [4, 12]]
    assert inner_lip_opening(landmarks) == pytest.approx(0.2)
    rotation = np.array([[0.6, -0.8], [0.8, 0.6]]) * 3
    assert inner_lip_opening(landmarks @ rotation.T) == pytest.approx(0.2)
