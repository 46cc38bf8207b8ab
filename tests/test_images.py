from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fc4d_ray.errors import StoreError
from fc4d_ray.images import read_depth, read_png, smoothstep, write_depth, write_png


@pytest.mark.parametrize("shape", [(5, 7), (5, 7, 3), (5, 7, 4)])
def test_png_round_trip_keeps_every_byte_and_channel(tmp_path: Path, shape: tuple) -> None:
    image = np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)
    path = tmp_path / "made" / "on" / "the way.png"
    write_png(path, image)
    read = read_png(path)
    assert read.dtype == np.uint8
    np.testing.assert_array_equal(read, image)
    # Other programs agree on which channel is red.
    np.testing.assert_array_equal(np.asarray(Image.open(path)), image)


def test_colour_under_transparent_pixels_is_kept(tmp_path: Path) -> None:
    image = np.full((4, 4, 4), 200, np.uint8)
    image[..., 3] = 0
    write_png(tmp_path / "a.png", image)
    np.testing.assert_array_equal(read_png(tmp_path / "a.png"), image)


def test_depth_round_trip_is_finer_than_a_tenth_of_a_millimetre(tmp_path: Path) -> None:
    depth = np.random.default_rng(0).uniform(1.7, 2.3, (40, 30)).astype(np.float32)
    depth[:10] = 0
    unit = write_depth(tmp_path / "d.png", depth)
    read = read_depth(tmp_path / "d.png", unit)
    assert read.dtype == np.float32 and read_png(tmp_path / "d.png").dtype == np.uint16
    assert (read[:10] == 0).all(), "nothing stays nothing"
    assert np.abs(read - depth).max() < 5e-5


def test_empty_depth_is_written_too(tmp_path: Path) -> None:
    unit = write_depth(tmp_path / "d.png", np.zeros((3, 3), np.float32))
    assert unit > 0 and (read_depth(tmp_path / "d.png", unit) == 0).all()


def test_missing_and_damaged_files_are_store_errors(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="absent.png"):
        read_png(tmp_path / "absent.png")
    (tmp_path / "torn.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    with pytest.raises(StoreError, match="torn.png"):
        read_png(tmp_path / "torn.png")


def test_smoothstep_is_flat_outside_and_symmetric_inside() -> None:
    values = smoothstep(np.array([-1.0, 2.0, 3.0, 4.0, 9.0]), 2.0, 4.0)
    np.testing.assert_allclose(values, [0, 0, 0.5, 1, 1])
    x = np.linspace(2, 4, 21)
    np.testing.assert_allclose(smoothstep(x, 2, 4) + smoothstep(6 - x, 2, 4), 1)
