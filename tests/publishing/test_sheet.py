from __future__ import annotations

import numpy as np

from fc4d_ray.publishing.sheet import SheetStyle, Tile, compose_sheet


def _flat(colour: tuple[int, int, int], height: int = 50, width: int = 40) -> np.ndarray:
    return np.full((height, width, 3), colour, np.uint8)


RED, GREEN, BLUE = (200, 0, 0), (0, 200, 0), (0, 0, 200)


def _box(sheet: np.ndarray, colour: tuple[int, int, int]) -> tuple[int, int, int, int]:
    rows, columns = np.nonzero((sheet == colour).all(-1))
    return columns.min(), rows.min(), columns.max() + 1, rows.max() + 1


def test_portrait_is_as_high_as_all_rows_and_nothing_overlaps() -> None:
    style = SheetStyle()
    rows = [[Tile(_flat(GREEN), "0°"), Tile(_flat(GREEN), "+30°")], [Tile(_flat(BLUE), "smile")]]
    sheet = compose_sheet(Tile(_flat(RED, 90, 90), "input"), rows, "identity 0.21", style)
    red, green, blue = (_box(sheet, colour) for colour in (RED, GREEN, BLUE))
    assert red[1] == green[1] == style.margin
    assert red[3] == blue[3], "portrait and last row end on one line"
    assert red[2] - red[0] == red[3] - red[1], "the portrait stays square"
    assert green[2] - green[0] == 2 * style.tile_width + style.gap
    assert red[2] < green[0] and green[3] < blue[1] and green[0] == blue[0]
    edge = np.concatenate([sheet[0], sheet[-1], sheet[:, 0], sheet[:, -1]])
    assert (edge == 255).all(), "white margin"


def test_pictures_fill_their_tiles_centred_and_undistorted() -> None:
    image = _flat(GREEN, 100, 200)
    image[:, 80:120] = BLUE
    style = SheetStyle(tile_width=100, tile_height=100)
    sheet = compose_sheet(Tile(_flat(RED), "input"), [[Tile(image, "wide")]], style=style)
    left, _, right, _ = _box(sheet, BLUE)
    middle = (_box(sheet, GREEN)[0] + _box(sheet, GREEN)[2]) / 2
    assert abs((right - left) - 40) <= 3 and abs((left + right) / 2 - middle) <= 1


def test_labels_and_caption_are_drawn_below_their_pictures() -> None:
    tile = Tile(_flat(GREEN), "0°")
    plain = compose_sheet(Tile(_flat(RED), ""), [[Tile(_flat(GREEN), "")]])
    labelled = compose_sheet(Tile(_flat(RED), "input"), [[tile]])
    changed = np.nonzero((plain != labelled).any(-1))
    assert len(changed[0]) > 50
    assert changed[0].min() >= _box(labelled, GREEN)[3]
    captioned = compose_sheet(Tile(_flat(RED), "input"), [[tile]], "caption")
    assert captioned.shape[0] > labelled.shape[0]
    assert (captioned[labelled.shape[0] - 30 :] < 200).any()
