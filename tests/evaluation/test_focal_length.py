from __future__ import annotations

import numpy as np
import pytest

from fc4d_ray.cameras import orbit_camera
from fc4d_ray.evaluation.focal_length import lens_camera, spread


def test_factor_one_is_the_default_camera() -> None:
    lens, orbit = lens_camera(30, 1.0), orbit_camera(30, size=512)
    np.testing.assert_allclose(lens.K, orbit.K)
    np.testing.assert_allclose(lens.world_to_camera, orbit.world_to_camera, atol=1e-12)


@pytest.mark.parametrize("factor", [0.5, 2.0])
def test_the_centre_keeps_its_size_and_perspective_changes(factor: float) -> None:
    azimuth = 40
    across = np.array([np.cos(np.deg2rad(azimuth)), 0, -np.sin(np.deg2rad(azimuth))]) * 0.1
    towards = np.array([np.sin(np.deg2rad(azimuth)), 0, np.cos(np.deg2rad(azimuth))]) * 0.1
    points = np.stack([across, across + towards])
    usual, _ = orbit_camera(azimuth, size=512).project(points)
    lens, _ = lens_camera(azimuth, factor).project(points)
    np.testing.assert_allclose(lens[0], usual[0], atol=1e-9)
    nearer_is_larger = abs(lens[1, 0] - 256) > abs(usual[1, 0] - 256)
    assert nearer_is_larger == (factor < 1)


def test_refuses_no_lens() -> None:
    with pytest.raises(ValueError, match="positive"):
        lens_camera(0, 0)


def test_spread_needs_every_value() -> None:
    assert spread([0.2, 0.25, 0.21]) == pytest.approx(0.05)
    assert spread([0.2, None]) is None
    assert spread([]) is None
