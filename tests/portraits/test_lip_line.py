"""A gap that looks like lip is closed on its darkest line; teeth and darkness keep it open."""

from __future__ import annotations

import numpy as np
import pytest

from fc4d_ray.portraits.lip_line import with_shut_lips

SIDE = 120
LIP, SEAM = (170, 90, 85), (90, 40, 40)


def _landmarks(gap: float) -> np.ndarray:
    """A mouth 60 px wide whose inner lips lie ``gap`` px apart about row 60."""
    marks = np.zeros((68, 2))
    columns = np.linspace(30, 90, 7)
    marks[48:55] = np.stack([columns, [60, 52, 50, 51, 50, 52, 60]], 1)
    marks[55:60] = np.stack([columns[5:0:-1], [68, 70, 71, 70, 68]], 1)
    marks[60], marks[64] = (34, 60), (86, 60)
    marks[61:64] = np.stack([columns[2:5], np.full(3, 60 - gap / 2)], 1)
    marks[65:68] = np.stack([columns[4:1:-1], np.full(3, 60 + gap / 2)], 1)
    return marks


def _mouth(between: tuple[int, int, int] | None, gap: float, seam: int) -> np.ndarray:
    rows = np.arange(SIDE)[:, None]
    image = np.full((SIDE, SIDE, 3), LIP, np.float64)
    image += np.random.default_rng(0).normal(0, 6, image.shape)
    image[rows[:, 0] == seam] = SEAM
    if between is not None:
        image[np.abs(rows[:, 0] - 60) < gap / 2] = between
    return image.clip(0, 255).astype(np.uint8)


def test_a_gap_of_lip_is_closed_on_the_dark_line() -> None:
    marks = _landmarks(8)
    shut = with_shut_lips(marks, _mouth(None, 8, seam=57))
    for upper, lower in ((61, 67), (62, 66), (63, 65)):
        np.testing.assert_allclose(shut[upper], shut[lower])
        assert abs(shut[upper, 1] - 57.5) < 1.5
    others = [i for i in range(68) if i not in (61, 62, 63, 65, 66, 67)]
    np.testing.assert_array_equal(shut[others], marks[others])


@pytest.mark.parametrize("between", [(235, 230, 215), (25, 12, 12)])
def test_teeth_and_darkness_keep_it_open(between: tuple[int, int, int]) -> None:
    marks = _landmarks(8)
    np.testing.assert_array_equal(with_shut_lips(marks, _mouth(between, 8, seam=45)), marks)


def test_a_mouth_beyond_the_picture_is_left_alone() -> None:
    marks = _landmarks(8) + np.array([50, 0])
    np.testing.assert_array_equal(with_shut_lips(marks, _mouth(None, 8, seam=57)), marks)
