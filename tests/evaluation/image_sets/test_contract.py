from __future__ import annotations

import json
from pathlib import Path

import pytest

from fc4d_ray.evaluation.image_sets.contract import (
    ImageKey,
    ImageSet,
    InvalidImageSet,
    SetImage,
    read_image_set,
)
from fc4d_ray.store.filesystem import Storage


def document(**changes: object) -> dict:
    image = {"subject": "ann", "view": "left", "azimuth_deg": 90, "path": "ann/left.png"}
    return {"format": "fc4d-image-set/1", "method": "theirs", "images": [image]} | changes


def write(folder: Path, content: object) -> str:
    (folder / "manifest.json").write_text(json.dumps(content))
    return str(folder)


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    images = (
        SetImage(
            ImageKey("ann", "left"), 90.0, 0.0, "ann/left.png", depth="d.png", depth_unit_m=0.1,
        ),
        SetImage(
            ImageKey("ann", "left", 3), 90.0, 0.0, "ann/left_f0003.png",
            driver_landmarks=((1.0, 2.0),), truth="t.png",
        ),
    )  # fmt: skip
    written = ImageSet("ours", Storage(str(tmp_path)), images, {"size": 64}, "1")
    written.write()
    assert read_image_set(str(tmp_path)) == written
    assert read_image_set(str(tmp_path), "renamed").method == "renamed"
    assert written.subjects == ("ann",)


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ({"format": "other"}, "not of format fc4d-image-set/1"),
        ([], "not of format"),
        (document(images={}), "images must be a list"),
        (document(images=[]), "there are no images"),
        (document(images=[{"subject": "ann"}]), "image 0: view is missing"),
        (document(images=[document()["images"][0] | {"path": "../x.png"}]), "leads out"),
        (document(images=[document()["images"][0] | {"path": "/etc/x.png"}]), "leads out"),
        (document(images=[document()["images"][0] | {"subject": "../ann"}]), "'../ann'"),
        (document(images=[document()["images"][0] | {"azimuth_deg": "left"}]), "image 0"),
        (document(images=document()["images"] * 2), "both view left of ann"),
    ],
)
def test_what_breaks_the_contract_is_refused_with_its_place(tmp_path, content, complaint) -> None:
    with pytest.raises(InvalidImageSet, match=complaint):
        read_image_set(write(tmp_path, content))


def test_a_folder_without_a_manifest_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(InvalidImageSet, match="fc4d baseline"):
        read_image_set(str(tmp_path))
