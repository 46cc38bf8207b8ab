from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fc4d_ray.errors import ConfigError
from fc4d_ray.evaluation.image_sets.adapters import import_outputs
from fc4d_ray.evaluation.image_sets.contract import InvalidImageSet, read_image_set
from fc4d_ray.evaluation.protocols import load_protocol
from fc4d_ray.images import read_png, write_png
from fc4d_ray.publishing.video import write_video

STATIC = load_protocol("static")


def level(value: int) -> np.ndarray:
    return np.full((32, 32, 3), value, np.uint8)


def levels(out: Path, subject: str) -> dict[str, int]:
    return {
        view.name: int(read_png(out / subject / f"{view.name}.png").mean().round())
        for view in STATIC.views
        if (out / subject / f"{view.name}.png").is_file()
    }


def test_sv3d_s_last_frame_is_the_front_and_the_nearest_frame_is_taken(tmp_path: Path) -> None:
    for i in range(21):
        write_png(tmp_path / "in" / "ann" / f"{i:02d}.png", level(10 * i))
    found = import_outputs("sv3d", tmp_path / "in", tmp_path / "out", STATIC)
    step = 360 / 21
    expected = {"frontal": 20, "left_frontal": 2, "left": 4, "right_frontal": 17, "right": 15}
    assert levels(tmp_path / "out", "ann") == {name: 10 * i for name, i in expected.items()}
    back = read_image_set(str(tmp_path / "out"))
    azimuths = {image.key.view: image.azimuth_deg for image in back.images}
    assert azimuths["left"] == pytest.approx(5 * step)
    assert back.camera_set is None and found.missing == ()


def test_a_video_with_given_angles_and_views_it_does_not_show(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    write_video(tmp_path / "in" / "eve.mp4", iter([level(40), level(120), level(200)]), 5)
    found = import_outputs("aniportrait", tmp_path / "in", tmp_path / "out", STATIC, (-45, 0, 45))
    got = levels(tmp_path / "out", "eve")
    assert set(got) == {"right_frontal", "frontal", "left_frontal"}
    assert abs(got["left_frontal"] - 200) < 6
    assert [line.split(":")[0] for line in found.missing] == ["eve", "eve"]


def test_pictures_named_after_views_are_taken_as_they_are(tmp_path: Path) -> None:
    write_png(tmp_path / "in" / "bob" / "left.png", level(7))
    found = import_outputs("named", tmp_path / "in", tmp_path / "out", STATIC)
    assert levels(tmp_path / "out", "bob") == {"left": 7}
    assert len(found.missing) == 4


def test_what_cannot_be_imported_is_said(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="known: sv3d"):
        import_outputs("sv4d", tmp_path, tmp_path, STATIC)
    with pytest.raises(ConfigError, match="give --azimuths"):
        import_outputs("portrait3d", tmp_path, tmp_path, STATIC)
    with pytest.raises(ConfigError, match="is no folder"):
        import_outputs("sv3d", tmp_path / "none", tmp_path, STATIC)
    (tmp_path / "in").mkdir()
    with pytest.raises(InvalidImageSet, match="nothing in"):
        import_outputs("sv3d", tmp_path / "in", tmp_path, STATIC)
    write_png(tmp_path / "in" / "ann" / "0.png", level(0))
    with pytest.raises(InvalidImageSet, match="1 frames, --azimuths names 2"):
        import_outputs("portrait3d", tmp_path / "in", tmp_path, STATIC, (0, 90))
    (tmp_path / "in" / "ann" / "0.png").write_bytes(b"no picture")
    with pytest.raises(InvalidImageSet, match="is no picture"):
        import_outputs("portrait3d", tmp_path / "in", tmp_path, STATIC, (0,))
