from __future__ import annotations

import numpy as np

from fc4d_ray.priors.image.hair_detail import (
    SHEET_HEIGHT,
    SHEET_WIDTH,
    hair_detail_sheet,
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
        sheet = hair_detail_sheet(_stripes(angle), _all_hair(), METRES_PER_PX, seed=0)
        grey = sheet.mean(-1)
        along = np.abs(np.diff(grey, axis=0)).mean()
        across = np.abs(np.diff(grey, axis=1)).mean()
        assert across > 2 * along, f"{angle} degrees"


def test_the_sheet_is_detail_around_zero_and_closes_round_the_head() -> None:
    sheet = hair_detail_sheet(_stripes(20), _all_hair(), METRES_PER_PX, seed=0)
    assert sheet.shape == (SHEET_HEIGHT, SHEET_WIDTH, 3)
    assert abs(sheet.mean()) < 0.01
    assert 0.05 < sheet.std() < 0.2
    seam = np.abs(sheet[:, 0] - sheet[:, -1]).mean()
    assert seam < 2 * np.abs(np.diff(sheet, axis=1)).mean()


def test_flat_hair_gives_flat_detail_and_little_hair_none() -> None:
    flat = np.full((160, 160, 3), 0.3, np.float32)
    assert np.abs(hair_detail_sheet(flat, _all_hair(), METRES_PER_PX, seed=0)).max() < 1e-3
    few = np.zeros((160, 160), bool)
    few[80:86, 80:86] = True
    assert hair_detail_sheet(flat, few, METRES_PER_PX, seed=0) is None


def test_equal_seeds_give_equal_sheets() -> None:
    one, two, other = (
        hair_detail_sheet(_stripes(20), _all_hair(), METRES_PER_PX, seed=s) for s in (3, 3, 4)
    )
    assert one.tobytes() == two.tobytes() != other.tobytes()


def test_wrapping_depends_on_the_place_alone_and_has_no_seam_behind() -> None:
    sheet = hair_detail_sheet(_stripes(20), _all_hair(), METRES_PER_PX, seed=0)
    points = np.random.default_rng(0).uniform(-0.1, 0.1, (6, 5, 3))
    wrapped = wrap_sheet(sheet, points)
    assert wrapped.shape == (6, 5, 3)
    np.testing.assert_array_equal(wrap_sheet(sheet, points[::-1])[::-1], wrapped)
    y = np.linspace(-0.05, 0.05, 20)[:, None]
    behind = [np.stack([np.full_like(y, s * 1e-5), y, np.full_like(y, -0.1)], -1) for s in (1, -1)]
    left, right = (wrap_sheet(sheet, p) for p in behind)
    assert np.abs(left - right).mean() < 0.05
