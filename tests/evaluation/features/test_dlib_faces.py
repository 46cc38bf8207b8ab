from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image
from skimage.data import astronaut

from fc4d_ray.evaluation.features import FeatureConfig, make_extractor

PORTRAITS = Path(__file__).resolve().parents[4] / "shared" / "portraits"


def test_one_person_under_crops_and_light_is_nearer_than_other_people() -> None:
    if not PORTRAITS.is_dir():
        pytest.skip("the shared portraits are not beside this checkout")
    person = astronaut()
    same = [
        person[:330, 80:380],
        np.clip(person * 0.55, 0, 255).astype(np.uint8),
        np.clip(person * [1.15, 1.0, 0.8], 0, 255).astype(np.uint8),
        cv2.resize(person, None, fx=0.6, fy=0.6, interpolation=cv2.INTER_AREA),
    ]
    names = ("mona_lisa.jpg", "painting_woman.jpg", "terracotta_warrior.jpg")
    others = [np.asarray(Image.open(PORTRAITS / name).convert("RGB")) for name in names]
    found = make_extractor("dlib", FeatureConfig()).extract([person, *same, *others])
    assert found.valid.all()
    distances = np.linalg.norm(found.vectors[1:] - found.vectors[0], axis=1)
    assert distances[: len(same)].max() < 0.35 < 0.5 < distances[len(same) :].min()


def test_a_picture_without_a_face_has_no_embedding() -> None:
    extractor = make_extractor("dlib", FeatureConfig())
    assert not extractor.extract([np.full((128, 128, 3), 127, np.uint8)]).valid.any()
    assert extractor.unavailable() is None
    assert extractor.model_id().startswith("dlib-")
