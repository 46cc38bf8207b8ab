from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fc4d_ray.errors import UndecodableImage
from fc4d_ray.evaluation.features import FeatureConfig
from fc4d_ray.evaluation.features.protocol import Embeddings
from fc4d_ray.evaluation.image_sets.contract import ImageKey, SetImage
from fc4d_ray.evaluation.image_sets.runs import encode_png
from fc4d_ray.evaluation.protocols import Protocol, View
from fc4d_ray.evaluation.subject import ImageMissing, SubjectTask, measure_subject
from fc4d_ray.store.filesystem import Storage

PROTOCOL = Protocol("tiny", "Tiny", views=(View("front", 0.0), View("back", 180.0)), size=48)


class Colours:
    """Embeds pictures by their mean colour, under the name of a real extractor."""

    def __init__(self, key: str) -> None:
        self.key = key
        self.batches = 0

    def unavailable(self) -> None:
        return None

    def model_id(self) -> str:
        return f"{self.key}-1"

    def extract(self, images) -> Embeddings:
        self.batches += 1
        vectors = np.array([image.mean((0, 1)) for image in images], np.float32)
        return Embeddings(np.where(vectors.min(1, keepdims=True) < 250, vectors, np.nan))


def plain(level: int) -> np.ndarray:
    image = np.full((48, 48, 3), 255, np.uint8)
    image[8:40, 8:40] = (level, 100, 255 - level)
    return image


@pytest.fixture
def task(tmp_path: Path) -> SubjectTask:
    pictures = Storage(str(tmp_path / "pictures"))
    for name, image in {
        "front": plain(200), "back": plain(40), "truth": plain(190), "reference": plain(200),
    }.items():  # fmt: skip
        pictures.replace(f"ann/{name}.png", encode_png(image))
    images = (
        SetImage(ImageKey("ann", "front"), 0.0, 0.0, "ann/front.png"),
        SetImage(ImageKey("ann", "back"), 180.0, 0.0, "ann/back.png"),
    )
    reference = pictures.uri_of("ann/reference.png")
    truths = (pictures.uri_of("ann/truth.png"), None)
    return SubjectTask(
        "ours", "ann", pictures, images, reference, PROTOCOL, FeatureConfig(), truths
    )


def measured(out: Storage, task: SubjectTask, *extractors: Colours) -> dict:
    path = measure_subject(out, task, {e.key: e for e in extractors}, None)
    return json.loads(out.read(path))


def test_figures_by_hand(task: SubjectTask, tmp_path: Path) -> None:
    found = measured(Storage(str(tmp_path)), task, Colours("clip"), Colours("inception"))
    front, back = found["images"]
    assert front["clip_i"] == pytest.approx(1, abs=1e-6)
    means = [plain(level).mean((0, 1)) for level in (200, 40)]
    cosine = means[0] @ means[1] / np.linalg.norm(means[0]) / np.linalg.norm(means[1])
    assert back["clip_i"] == pytest.approx(cosine, abs=1e-5)
    assert found["figures"]["clip_i_pair"] == pytest.approx((1 + 2 * cosine) / 3, abs=1e-5)
    error = 2 * (10 / 255) ** 2 / 3
    assert front["psnr"] == pytest.approx(-10 * np.log10(error), abs=1e-4)
    assert "psnr" not in back and "lpips" not in front
    assert back["face_behind"] is False and "face_behind" not in front
    assert set(found["features"]) == {"clip", "inception"}


def test_measured_once_and_again_where_anything_changed(task: SubjectTask, tmp_path: Path) -> None:
    out, extractor = Storage(str(tmp_path)), Colours("clip")
    first = measure_subject(out, task, {"clip": extractor}, None)
    assert measure_subject(out, task, {"clip": extractor}, None) == first
    assert extractor.batches == 1
    other = replace(task, protocol=replace(PROTOCOL, background=(0, 0, 0)))
    assert measure_subject(out, other, {"clip": extractor}, None) != first


def test_without_a_portrait_there_is_no_similarity_to_it(task, tmp_path: Path) -> None:
    found = measured(Storage(str(tmp_path)), replace(task, reference=None), Colours("clip"))
    assert found["figures"] == {"has_reference": False}
    assert all("clip_i" not in row for row in found["images"])


def test_a_portrait_without_a_face_gives_nulls(task: SubjectTask, tmp_path: Path) -> None:
    task.pictures.replace("ann/reference.png", encode_png(np.full((48, 48, 3), 255, np.uint8)))
    found = measured(Storage(str(tmp_path)), task, Colours("arcface"))
    assert [row["id_arcface"] for row in found["images"]] == [None, None]
    assert found["figures"]["arcface_reference_valid"] is False


def test_missing_and_broken_pictures_are_named(task: SubjectTask, tmp_path: Path) -> None:
    out = Storage(str(tmp_path))
    task.pictures.replace("ann/back.png", b"no picture")
    with pytest.raises(UndecodableImage, match="ann/back.png"):
        measure_subject(out, task, {}, None)
    task.pictures.remove("ann/back.png")
    with pytest.raises(ImageMissing, match="ann/back.png is named in the manifest"):
        measure_subject(out, task, {}, None)
