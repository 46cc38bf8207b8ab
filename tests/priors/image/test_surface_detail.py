from __future__ import annotations

import numpy as np

from fc4d_ray.priors.image.surface_detail import (
    SHEET_HEIGHT,
    SHEET_WIDTH,
    even_skin,
    is_headwear,
    strand_sheet,
    texture_sheet,
    wrap_sheet,
)

METRES_PER_PX = 0.0012


def _stripes(angle_deg: float, size: int = 160) -> np.ndarray:
    """A picture of straight strands; at 0 they run down."""
    x, y = np.meshgrid(np.arange(size), np.arange(size))
    angle = np.deg2rad(angle_deg)
    wave = np.sin((x * np.cos(angle) + y * np.sin(angle)) * 2 * np.pi / 5)
    return np.repeat((0.4 + 0.15 * wave)[..., None], 3, 2).astype(np.float32)


def _all_hair(size: int = 160) -> np.ndarray:
    mask = np.zeros((size, size), bool)
    mask[8:-8, 8:-8] = True
    return mask


def test_strands_of_any_direction_run_down_the_sheet() -> None:
    for angle in (0, 30, 90, 140):
        sheet = strand_sheet(_stripes(angle), _all_hair(), METRES_PER_PX, seed=0)
        grey = sheet.mean(-1)
        along = np.abs(np.diff(grey, axis=0)).mean()
        across = np.abs(np.diff(grey, axis=1)).mean()
        assert across > 4 * along, f"{angle} degrees"


def test_long_hair_hangs_in_longer_strands_than_short() -> None:
    """Of the same picture, nearer: the more of the head hair covers, the longer it is."""

    def strand_length(metres_per_px: float) -> float:
        sheet = strand_sheet(_stripes(0), _all_hair(), metres_per_px, seed=0).mean(-1)
        return float(np.abs(sheet).mean() / np.abs(np.diff(sheet, axis=0)).mean())

    assert strand_length(0.35 / 160) > 1.3 * strand_length(0.18 / 160)


def test_the_sheet_is_detail_around_zero_and_closes_round_the_head() -> None:
    sheet = strand_sheet(_stripes(20), _all_hair(), METRES_PER_PX, seed=0)
    assert sheet.shape == (SHEET_HEIGHT, SHEET_WIDTH, 3)
    assert abs(sheet.mean()) < 0.01
    assert 0.05 < sheet.std() < 0.2
    seam = np.abs(sheet[:, 0] - sheet[:, -1]).mean()
    assert seam < 2 * np.abs(np.diff(sheet, axis=1)).mean()


def test_flat_hair_gives_flat_detail_and_little_hair_none() -> None:
    flat = np.full((160, 160, 3), 0.3, np.float32)
    assert np.abs(strand_sheet(flat, _all_hair(), METRES_PER_PX, seed=0)).max() < 1e-3
    few = np.zeros((160, 160), bool)
    few[80:86, 80:86] = True
    assert strand_sheet(flat, few, METRES_PER_PX, seed=0) is None


def test_equal_seeds_give_equal_sheets() -> None:
    one, two, other = (
        strand_sheet(_stripes(20), _all_hair(), METRES_PER_PX, seed=s) for s in (3, 3, 4)
    )
    assert one.tobytes() == two.tobytes() != other.tobytes()


def test_wrapping_depends_on_the_place_alone_and_has_no_seam_behind() -> None:
    sheet = strand_sheet(_stripes(20), _all_hair(), METRES_PER_PX, seed=0)
    points = np.random.default_rng(0).uniform(-0.1, 0.1, (6, 5, 3))
    wrapped = wrap_sheet(sheet, points)
    assert wrapped.shape == (6, 5, 3)
    np.testing.assert_array_equal(wrap_sheet(sheet, points[::-1])[::-1], wrapped)
    y = np.linspace(-0.05, 0.05, 20)[:, None]
    behind = [np.stack([np.full_like(y, s * 1e-5), y, np.full_like(y, -0.1)], -1) for s in (1, -1)]
    left, right = (wrap_sheet(sheet, p) for p in behind)
    assert np.abs(left - right).mean() < 0.05


def test_skin_has_no_direction() -> None:
    sheet = texture_sheet(_stripes(0), _all_hair(), METRES_PER_PX, seed=0, coarsest_m=0.003)
    grey = sheet.mean(-1)
    along, across = (np.abs(np.diff(grey, axis=axis)).mean() for axis in (0, 1))
    assert 0.8 < along / across < 1.25


def test_even_skin_keeps_clear_of_features() -> None:
    generator = np.random.default_rng(0)
    face = np.full((160, 160, 3), 0.6, np.float32)
    face += generator.normal(0, 0.01, (160, 160, 1)).astype(np.float32)
    face[60:80, 40:120] = 0.1  # brows
    skin = np.zeros((160, 160), bool)
    skin[10:-10, 10:-10] = True
    even = even_skin(face, skin, METRES_PER_PX)
    assert 0.3 * skin.sum() < even.sum() < 0.6 * skin.sum()
    assert not even[55:85, 35:125].any()
    assert not even[~skin].any()
    assert not even_skin(face, np.zeros_like(skin), METRES_PER_PX).any()


def test_headwear_is_told_by_colours_that_hair_does_not_grow_in() -> None:
    covered = np.ones((40, 40), bool)
    brown, black, blond, blue = (
        np.broadcast_to(np.array(colour, np.float32), (40, 40, 3)).copy()
        for colour in ((0.4, 0.27, 0.18), (0.06, 0.06, 0.08), (0.8, 0.7, 0.45), (0.3, 0.45, 0.75))
    )
    assert not any(is_headwear(hair, covered) for hair in (brown, black, blond))
    assert is_headwear(blue, covered)
    turban = brown.copy()
    turban[:12] = blue[:12]
    assert is_headwear(turban, covered)
    below = covered.copy()
    below[:12] = False
    assert not is_headwear(turban, below)
    assert not is_headwear(blue, ~covered)
