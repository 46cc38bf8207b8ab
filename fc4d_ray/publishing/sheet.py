"""The contact sheet of an avatar: the portrait beside rows of labelled renders, on white."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

INK = (30, 30, 30)
FAINT_INK = (120, 120, 120)
PAPER = (255, 255, 255)


@dataclass(frozen=True)
class Tile:
    """A picture (h, w, 3) uint8 and what stands under it."""

    image: NDArray[np.uint8]
    label: str


@dataclass(frozen=True)
class SheetStyle:
    """Measures of a sheet in pixels."""

    tile_width: int = 240
    tile_height: int = 288
    gap: int = 6
    margin: int = 36
    label_height: int = 34
    caption_height: int = 22
    font_size: int = 19
    caption_size: int = 17


def compose_sheet(
    portrait: Tile,
    rows: Sequence[Sequence[Tile]],
    caption: str = "",
    style: SheetStyle | None = None,
) -> NDArray[np.uint8]:
    """(h, w, 3) sheet: the portrait as high as all rows together, then the rows.

    Pictures fill their tiles: what sticks out on two sides is cut off evenly. The caption, where
    there is one, stands below everything. Labels keep to the embedded font: no minus sign, no
    dashes.
    """
    style = style or SheetStyle()
    n_columns = max(len(row) for row in rows)
    row_height = style.tile_height + style.label_height
    block_height = len(rows) * row_height + (len(rows) - 1) * style.gap
    portrait_side = block_height - style.label_height
    left = style.margin + portrait_side + 3 * style.gap
    width = left + n_columns * (style.tile_width + style.gap) - style.gap + style.margin
    height = 2 * style.margin + block_height + (style.caption_height if caption else 0)

    canvas = Image.new("RGB", (width, height), PAPER)
    pen = ImageDraw.Draw(canvas)
    font = ImageFont.load_default(style.font_size)
    _paste(canvas, pen, font, portrait, (style.margin, style.margin), (portrait_side,) * 2)
    for i, row in enumerate(rows):
        top = style.margin + i * (row_height + style.gap)
        for j, tile in enumerate(row):
            corner = (left + j * (style.tile_width + style.gap), top)
            _paste(canvas, pen, font, tile, corner, (style.tile_width, style.tile_height))
    if caption:
        caption_font = ImageFont.load_default(style.caption_size)
        bottom = height - style.margin + 8
        pen.text((style.margin, bottom), caption, FAINT_INK, caption_font, anchor="ls")
    return np.asarray(canvas)


def _paste(
    canvas: Image.Image,
    pen: ImageDraw.ImageDraw,
    font: ImageFont.FreeTypeFont | ImageFont.ImageFont,
    tile: Tile,
    corner: tuple[int, int],
    size: tuple[int, int],
) -> None:
    picture = _fitted(Image.fromarray(tile.image), size)
    canvas.paste(picture, corner)
    foot = (corner[0] + size[0] // 2, corner[1] + size[1] + 8)
    pen.text(foot, tile.label, INK, font, anchor="mt")


def _fitted(picture: Image.Image, size: tuple[int, int]) -> Image.Image:
    """Scale to the height and cut the sides, or scale to the width and cut top and bottom."""
    width, height = size
    scale = max(width / picture.width, height / picture.height)
    scaled = picture.resize(
        (max(round(picture.width * scale), width), max(round(picture.height * scale), height)),
        Image.Resampling.LANCZOS,
    )
    x, y = (scaled.width - width) // 2, (scaled.height - height) // 2
    return scaled.crop((x, y, x + width, y + height))
