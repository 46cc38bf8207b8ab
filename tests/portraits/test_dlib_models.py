from __future__ import annotations

import hashlib
import importlib.metadata
import sys

import numpy as np
import pytest

from fc4d_ray.errors import WeightsMissing
from fc4d_ray.portraits.dlib_models import (
    LANDMARKS_FILE,
    FaceModels,
    model_digest,
    model_file,
)


def test_finds_files_without_importing_the_distribution() -> None:
    path = model_file(LANDMARKS_FILE)
    assert path.is_file()
    assert "face_recognition_models" not in sys.modules


def test_digest_is_the_files_sha256() -> None:
    content = model_file("shape_predictor_5_face_landmarks.dat").read_bytes()
    digest = model_digest("shape_predictor_5_face_landmarks.dat")
    assert digest == hashlib.sha256(content).hexdigest()


def test_missing_file_names_the_remedy() -> None:
    with pytest.raises(WeightsMissing, match="pip install face_recognition_models"):
        model_file("no_such_model.dat")


def test_missing_distribution(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> None:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "files", absent)
    with pytest.raises(WeightsMissing, match="pip install face_recognition_models"):
        model_file(LANDMARKS_FILE)


def test_landmarks_follow_a_shift_of_the_picture() -> None:
    data = pytest.importorskip("skimage.data")
    picture = data.astronaut()
    models = FaceModels()
    (face,) = models.find_hog(picture, upsample=0, threshold=0.5)
    landmarks = models.landmarks(picture, face.box)
    assert landmarks.shape == (68, 2)
    shifted = np.roll(picture, (7, 11), (0, 1))
    moved = models.landmarks(shifted, face.box + np.array([11, 7, 11, 7]))
    np.testing.assert_allclose(moved - landmarks, np.broadcast_to([11, 7], (68, 2)), atol=1e-6)
