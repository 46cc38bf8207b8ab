from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from fc4d_ray.errors import UndecodableImage
from fc4d_ray.evaluation.image_sets.preparation import prepare_image

WHITE, BLACK = (255, 255, 255), (0, 0, 0)


def encoded(array: np.ndarray, mode: str | None = None) -> bytes:
    buffer = io.BytesIO()
    picture = Image.fromarray(array)
    (picture if mode is None else picture.convert(mode)).save(buffer, "PNG")
    return buffer.getvalue()


def test_alpha_is_composited_on_the_background() -> None:
    rgba = np.zeros((8, 8, 4), np.uint8)
    rgba[2:6, 2:6] = (200, 100, 50, 255)
    for ground in (WHITE, BLACK):
        prepared = prepare_image(encoded(rgba), 8, ground)
        assert tuple(prepared[0, 0]) == ground
        assert tuple(prepared[3, 3]) == (200, 100, 50)


@pytest.mark.parametrize("mode", ["L", "LA", "P", "RGB", "RGBA", "1"])
def test_every_mode_becomes_rgb(mode: str) -> None:
    prepared = prepare_image(encoded(np.full((10, 20, 3), 255, np.uint8), mode), 5, BLACK)
    assert prepared.shape == (5, 5, 3) and prepared.dtype == np.uint8
    assert (prepared == 255).all()


def test_the_middle_square_is_kept_and_resized_without_aliasing() -> None:
    wide = np.zeros((100, 300, 3), np.uint8)
    wide[:, 100:200:2] = 255
    prepared = prepare_image(encoded(wide), 25, WHITE)
    assert abs(prepared[5:20, 5:20].astype(int) - 127).max() <= 3
    assert abs(int(prepared.mean()) - 127) <= 3


@pytest.mark.parametrize("data", [b"", b"not a picture", None])
def test_what_is_no_picture_is_named(data: bytes | None) -> None:
    data = encoded(np.zeros((64, 64, 3), np.uint8))[:60] if data is None else data
    with pytest.raises(UndecodableImage, match="ann/left.png"):
        prepare_image(data, 8, WHITE, "ann/left.png")
