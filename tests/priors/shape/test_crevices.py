from __future__ import annotations

import numpy as np

from fc4d_ray.priors.shape.crevices import crevice_light

NO_HAIR = np.zeros((0, 3))


def _sheet(height: np.ndarray, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A height field's points and normals, metres."""
    points = np.stack([x, y, height], -1)
    slope_y, slope_x = np.gradient(height, y[:, 0], x[0])
    normals = np.stack([-slope_x, -slope_y, np.ones_like(height)], -1)
    normals /= np.linalg.norm(normals, axis=-1, keepdims=True)
    return points.reshape(-1, 3), normals.reshape(-1, 3)


def _grid() -> tuple[np.ndarray, np.ndarray]:
    return np.meshgrid(np.arange(-0.03, 0.03, 0.002), np.arange(-0.03, 0.03, 0.002))


def test_a_groove_is_darker_and_its_rims_are_brighter_than_the_plane_around() -> None:
    x, y = _grid()
    points, normals = _sheet(-0.004 * np.exp(-np.square(x / 0.004)), x, y)
    light = crevice_light(points, normals, NO_HAIR).reshape(x.shape)
    row = light[len(light) // 2]
    bottom, rim, plane = row[np.abs(x[0]).argmin()], row[np.abs(x[0] - 0.008).argmin()], row[-3]
    assert bottom < 0.85 < plane < rim <= 1.1
    assert abs(plane - 1) < 0.03


def test_a_plane_is_even_and_darker_only_beside_hair() -> None:
    x, y = _grid()
    points, normals = _sheet(np.zeros_like(x), x, y)
    np.testing.assert_allclose(crevice_light(points, normals, NO_HAIR), 1, atol=1e-6)
    hair = points[points[:, 0] < -0.025]
    light = crevice_light(points, normals, hair)
    assert light[np.isclose(points[:, 0], -0.024)].max() < 0.85
    np.testing.assert_allclose(light[points[:, 0] > 0], 1, atol=1e-6)
