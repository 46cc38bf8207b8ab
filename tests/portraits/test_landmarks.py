from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from fc4d_ray.errors import (
    ConfigError,
    ImageTooSmall,
    InvalidAnnotation,
    NoFaceFound,
    SeveralFaces,
)
from fc4d_ray.evaluation.synthetic import make_person
from fc4d_ray.portraits.config import IngestConfig
from fc4d_ray.portraits.crop import roll_rad
from fc4d_ray.portraits.decoding import DecodedPortrait, decode_portrait
from fc4d_ray.portraits.detection import overlap
from fc4d_ray.portraits.dlib_models import FaceModels
from fc4d_ray.portraits.landmarks import MIRRORED_LANDMARK, locate_face

SHARED = Path(__file__).resolve().parents[2].parent / "shared"
EXPECTED_BOXES = {
    "mona_lisa": [230, 232, 448, 448],
    "painting_woman": [213, 132, 336, 255],
    "pearl_earring": [264, 384, 624, 748],
    "terracotta_warrior": [267, 267, 443, 444],
}


@pytest.fixture(scope="module")
def models() -> FaceModels:
    return FaceModels()


@pytest.fixture(scope="module")
def astronaut() -> np.ndarray:
    return pytest.importorskip("skimage.data").astronaut()


def portrait_of(picture: np.ndarray) -> DecodedPortrait:
    return DecodedPortrait(picture, None, (picture.shape[1], picture.shape[0]))


@pytest.mark.parametrize("name", EXPECTED_BOXES)
def test_finds_paintings_turned_heads_and_statues(models: FaceModels, name: str) -> None:
    path = SHARED / "portraits" / f"{name}.jpg"
    if not path.exists():
        pytest.skip("the shared example portraits are not here")
    portrait = decode_portrait(path, max_pixels=10**8, working_side=3072, min_side=40)
    face = locate_face(models, portrait, {}, IngestConfig(faces="single"))
    assert overlap(face.box, np.array(EXPECTED_BOXES[name], float)) > 0.5
    assert face.landmarks.shape == (68, 2)
    centre = face.landmarks.mean(0)
    assert (centre > face.box[:2]).all() and (centre < face.box[2:]).all()


def test_an_alpaca_is_no_face(models: FaceModels) -> None:
    path = SHARED / "portraits" / "not_a_face_alpaca.jpg"
    if not path.exists():
        pytest.skip("the shared example portraits are not here")
    portrait = decode_portrait(path, max_pixels=10**8, working_side=3072, min_side=40)
    with pytest.raises(NoFaceFound, match="face_box"):
        locate_face(models, portrait, {}, IngestConfig())


@pytest.mark.parametrize("tilt_deg", [-25, 35])
def test_landmarks_turn_with_the_picture(
    models: FaceModels, astronaut: np.ndarray, tilt_deg: int
) -> None:
    upright = locate_face(models, portrait_of(astronaut), {}, IngestConfig())
    turn = cv2.getRotationMatrix2D((221.0, 128.0), -tilt_deg, 1.0)
    tilted = cv2.warpAffine(astronaut, turn, (512, 512), borderMode=cv2.BORDER_REPLICATE)
    face = locate_face(models, portrait_of(tilted), {}, IngestConfig())
    expected = upright.landmarks @ turn[:, :2].T + turn[:, 2]
    width = np.ptp(upright.landmarks[:17, 0])
    error = np.linalg.norm(face.landmarks - expected, axis=1).mean() / width
    assert error < 0.04
    turned = np.rad2deg(roll_rad(face.landmarks) - roll_rad(upright.landmarks))
    assert turned == pytest.approx(tilt_deg, abs=3)


@pytest.mark.parametrize("change", ["dark", "mirrored"])
def test_neither_darkness_nor_a_mirror_moves_landmarks(
    models: FaceModels, astronaut: np.ndarray, change: str
) -> None:
    plain = locate_face(models, portrait_of(astronaut), {}, IngestConfig())
    if change == "dark":
        picture, expected = (astronaut * 0.25 + 10).astype(np.uint8), plain.landmarks
    else:
        picture = np.ascontiguousarray(astronaut[:, ::-1])
        expected = (plain.landmarks * [-1, 1] + [astronaut.shape[1], 0])[list(MIRRORED_LANDMARK)]
    face = locate_face(models, portrait_of(picture), {}, IngestConfig())
    width = np.ptp(plain.landmarks[:17, 0])
    error = np.linalg.norm(face.landmarks - expected, axis=1)[17:].mean() / width
    assert error < 0.012


def test_dark_faces_are_found_where_they_are(models: FaceModels) -> None:
    """The one whose eyes the bare predictor put on the brows, 15 % of their distance off."""
    portrait = make_person(7).portrait()
    face = locate_face(models, portrait_of(portrait.image), {}, IngestConfig())
    truth = portrait.landmarks
    error = np.linalg.norm(face.landmarks - truth, axis=1) / np.linalg.norm(truth[36] - truth[45])
    assert error[36:48].mean() < 0.09
    assert error[17:].mean() < 0.075


def test_several_faces(models: FaceModels, astronaut: np.ndarray) -> None:
    small = cv2.resize(astronaut, (300, 300), interpolation=cv2.INTER_AREA)
    both = np.full((512, 812, 3), 200, np.uint8)
    both[:, :512] = astronaut
    both[:300, 512:] = small
    face = locate_face(models, portrait_of(both), {}, IngestConfig())
    assert face.box[2] < 512, "the larger face is used"
    assert any("2 faces" in note for note in face.warnings)
    with pytest.raises(SeveralFaces, match="2 faces"):
        locate_face(models, portrait_of(both), {}, IngestConfig(faces="single"))


def test_a_tiny_face_is_too_small(models: FaceModels, astronaut: np.ndarray) -> None:
    tiny = cv2.resize(astronaut, (128, 128), interpolation=cv2.INTER_AREA)
    canvas = np.full((256, 256, 3), 180, np.uint8)
    canvas[40:168, 60:188] = tiny
    with pytest.raises(ImageTooSmall, match="min_face_px = 40"):
        locate_face(models, portrait_of(canvas), {}, IngestConfig())


def test_annotations_replace_the_detectors(models: FaceModels, astronaut: np.ndarray) -> None:
    found = locate_face(models, portrait_of(astronaut), {}, IngestConfig())
    boxed = locate_face(
        models, portrait_of(astronaut), {"face_box": [178, 83, 265, 170]}, IngestConfig()
    )
    assert boxed.look == "table"
    assert boxed.landmarks_source == "detector"
    assert np.abs(boxed.landmarks - found.landmarks).mean() < 1.0
    grey = np.full_like(astronaut, 128)
    row = {"landmarks": [np.array(point) for point in found.landmarks.tolist()]}
    given = locate_face(models, portrait_of(grey), row, IngestConfig())
    assert given.landmarks_source == "table"
    np.testing.assert_allclose(given.landmarks, found.landmarks)
    assert overlap(given.box, found.box) > 0.5


@pytest.mark.parametrize(
    "row",
    [
        {"face_box": [1, 2, 3]},
        {"face_box": [200, 80, 100, 160]},
        {"face_box": [900, 900, 1000, 1000]},
        {"face_box": [0, 0, float("nan"), 50]},
        {"face_box": "left"},
        {"landmarks": [[1, 2]] * 67},
        {"landmarks": [[100.0, 100.0]] * 68},
        {"landmarks": [[5000.0, 5000.0]] * 68},
    ],
)
def test_bad_annotations(models: FaceModels, astronaut: np.ndarray, row: dict) -> None:
    with pytest.raises(InvalidAnnotation, match=next(iter(row))):
        locate_face(models, portrait_of(astronaut), row, IngestConfig())


@pytest.mark.parametrize(
    "option", [{"crop_size": 8}, {"faces": "all"}, {"max_pixels": 0}, {"min_face_px": 2}]
)
def test_config_names_the_bad_option(option: dict) -> None:
    with pytest.raises(ConfigError, match=f"ingest.{next(iter(option))}"):
        IngestConfig(**option)
