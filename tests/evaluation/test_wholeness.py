from __future__ import annotations

import numpy as np
import pytest
import torch

from fc4d_ray.avatar.binding import WorldSplats
from fc4d_ray.cameras import orbit_camera
from fc4d_ray.evaluation.wholeness import (
    Wholeness,
    above_fade,
    measure_wholeness,
    measured_region,
    surface_image,
    whole_share,
)
from fc4d_ray.priors.shape.bust import FADE_TOP_Y

RADIUS = 0.1


def _ball(keep=lambda points: np.ones(len(points), bool)) -> WorldSplats:
    """Opaque splats all over a ball around the origin, those that ``keep`` (N, 3) leaves."""
    n = 20_000
    index = np.arange(n) + 0.5
    polar, turn = np.arccos(1 - 2 * index / n), np.pi * (1 + 5**0.5) * index
    points = RADIUS * np.stack(
        [np.sin(polar) * np.cos(turn), np.cos(polar), np.sin(polar) * np.sin(turn)], 1
    )
    points = points[keep(points)]
    count = len(points)
    return WorldSplats(
        means=torch.from_numpy(points).float(),
        quats=torch.tensor([1.0, 0, 0, 0]).repeat(count, 1),
        scales=torch.full((count, 3), 0.0015),
        opacities=torch.full((count,), 0.9),
        sh0=torch.zeros(count, 3),
        shN=torch.zeros(count, 0, 3),
    )


def test_a_closed_ball_is_whole_from_every_side() -> None:
    result = measure_wholeness(_ball(), azimuths_deg=(0, 90, 180), size=256)
    assert list(result.shares) == [0, 90, 180]
    assert result.worst[1] == 1.0


def test_a_tunnel_is_found_where_one_looks_through_it() -> None:
    tunnel = 0.02
    splats = _ball(lambda points: np.hypot(points[:, 0], points[:, 1]) > tunnel)
    result = measure_wholeness(splats, azimuths_deg=(0, 90, 180), size=256)
    assert result.shares[90] == pytest.approx(1.0, abs=0.003)
    # The tunnel's share of the disc whose rim of four pixels of 512 is left out.
    pixel = 0.456 / 512
    expected = 1 - (tunnel / (RADIUS - 4 * pixel)) ** 2
    assert result.shares[0] == pytest.approx(expected, abs=0.01)
    assert result.worst[0] in (0, 180)


def test_positions_of_what_is_seen() -> None:
    camera = orbit_camera(30, size=128)
    alpha, points = surface_image(_ball(), camera)
    seen = alpha > 0.95
    assert np.isnan(points[alpha < 0.1]).all()
    distances = np.linalg.norm(points[seen], axis=-1)
    assert distances.mean() == pytest.approx(RADIUS, rel=0.02)
    towards = points[seen] @ camera.position
    assert (towards > 0).all()


def test_the_region_ends_at_the_fade_and_inside_the_rim() -> None:
    size = 64
    alpha = np.zeros((size, size))
    alpha[8:, 10:50] = 1
    alpha[20:24, 20:24] = 0
    height = FADE_TOP_Y + 0.002 * (39.5 - np.arange(size))
    points = np.full((size, size, 3), np.nan)
    points[alpha > 0.5] = 0
    points[..., 1] = np.where(alpha > 0.5, height[:, None], np.nan)
    region = measured_region(alpha, points, rim_px=8)
    rows, columns = np.flatnonzero(region.any(1)), np.flatnonzero(region.any(0))
    assert (rows[0], rows[-1], columns[0], columns[-1]) == (9, 38, 11, 48)
    assert region[20:24, 20:24].all()
    assert whole_share(alpha, region) == pytest.approx(1 - 16 / (30 * 38))


def test_nothing_there_has_no_share() -> None:
    empty = np.zeros((32, 32))
    points = np.full((32, 32, 3), np.nan)
    assert not above_fade(points).any()
    assert whole_share(empty, measured_region(empty, points)) is None
    assert Wholeness({0.0: 0.9, 15.0: None}).worst == (15.0, None)
