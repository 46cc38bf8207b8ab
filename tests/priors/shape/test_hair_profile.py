from __future__ import annotations

import numpy as np

from fc4d_ray.priors.shape.hair_profile import fill_dents

VOXEL = 0.0065
CENTRE = np.array([0.0, 0.03, -0.01])


def _grid() -> np.ndarray:
    axis = np.arange(-0.16, 0.19, VOXEL)
    return np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), -1).reshape(-1, 3)


def _directions(points: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    way = points - CENTRE
    distance = np.linalg.norm(way, axis=1)
    elevation = np.rad2deg(np.arcsin(way[:, 1] / np.maximum(distance, 1e-9)))
    return distance, elevation, np.rad2deg(np.arctan2(way[:, 0], way[:, 2]))


def _ball(points: np.ndarray, dent_deg: tuple[float, float]) -> np.ndarray:
    """Hair 12 cm around the centre, 9 cm in a valley of these elevations in front."""
    distance, elevation, azimuth = _directions(points)
    in_dent = (elevation > dent_deg[0]) & (elevation < dent_deg[1]) & (np.abs(azimuth) < 60)
    return np.clip(0.5 + (np.where(in_dent, 0.09, 0.12) - distance) / (2 * VOXEL), 0, 1)


def test_a_dent_above_a_fringe_is_filled_and_nothing_else_grows() -> None:
    points = _grid()
    field = _ball(points, (35, 60)).astype(np.float32)
    filled = fill_dents(field, points, np.ones(len(points), bool), VOXEL)
    distance, elevation, azimuth = _directions(points)
    dent = (
        (np.abs(elevation - 47) < 6) & (np.abs(azimuth) < 40) & (np.abs(distance - 0.105) < 0.005)
    )
    assert (field[dent] < 0.5).all() and (filled[dent] > 0.5).mean() > 0.95
    assert (filled >= field).all()
    assert (filled[distance > 0.12 + 1.5 * VOXEL] <= 0.5).all()


def test_hair_grows_neither_over_the_brows_nor_where_the_portrait_has_none() -> None:
    points = _grid()
    field = _ball(points, (-40, 60)).astype(np.float32)
    _, elevation, azimuth = _directions(points)
    filled = fill_dents(field, points, azimuth > 0, VOXEL)
    np.testing.assert_array_equal(filled[elevation < 5], field[elevation < 5])
    np.testing.assert_array_equal(filled[azimuth <= 0], field[azimuth <= 0])


def test_a_bald_head_stays_bald() -> None:
    points = _grid()
    nothing = np.zeros(len(points), np.float32)
    assert not fill_dents(nothing, points, np.ones(len(points), bool), VOXEL).any()
