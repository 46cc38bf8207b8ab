"""Every picture, render or portrait, goes through here before anything is measured on it.

Equal treatment is what makes figures comparable: composite on the protocol's background, cut the
central square, resize with antialiasing to the protocol's size.
"""

from __future__ import annotations

import io
import warnings

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from fc4d_ray.errors import UndecodableImage

LARGEST_PIXELS = 100_000_000


def prepare_image(
    data: bytes, size: int, background: tuple[int, int, int], name: str = "the picture"
) -> NDArray[np.uint8]:
    """(size, size, 3) uint8 RGB of an encoded picture: grey, palette, RGB or RGBA, of any size.

    Raises ``UndecodableImage`` naming the picture where the bytes are none, are cut short or hold
    more than 100 megapixels.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(data)) as picture:
                if picture.width * picture.height > LARGEST_PIXELS:
                    raise UndecodableImage(f"{name} has {picture.width}x{picture.height} pixels")
                picture.load()
                return _prepared(picture, size, background)
    except (UnidentifiedImageError, OSError, ValueError, Image.DecompressionBombWarning) as error:
        raise UndecodableImage(f"{name} cannot be decoded: {error}") from error


def _prepared(
    picture: Image.Image, size: int, background: tuple[int, int, int]
) -> NDArray[np.uint8]:
    rgba = picture.convert("RGBA")
    paper = Image.new("RGBA", rgba.size, (*background, 255))
    flat = Image.alpha_composite(paper, rgba).convert("RGB")
    side = min(flat.size)
    left, top = (flat.width - side) // 2, (flat.height - side) // 2
    square = flat.crop((left, top, left + side, top + side))
    if side != size:
        square = square.resize((size, size), Image.Resampling.BICUBIC)
    return np.array(square, np.uint8)
