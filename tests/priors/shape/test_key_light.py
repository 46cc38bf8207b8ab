"""The lamp beside a face is told from the face, and reaches no farther than what was seen."""

from __future__ import annotations

import numpy as np

from fc4d_ray.priors.shape.key_light import key_light


def _sphere(count: int = 4000) -> np.ndarray:
    points = np.random.default_rng(0).normal(size=(count, 3))
    return points / np.linalg.norm(points, axis=1, keepdims=True)


def _lit(normals: np.ndarray, lamp: np.ndarray) -> np.ndarray:
    return np.array([0.5, 0.4, 0.3]) * np.exp(normals @ lamp)[:, None]


def test_the_side_that_faces_the_lamp_is_brighter_by_what_the_seen_side_tells() -> None:
    normals = _sphere()
    lamp = np.array([-0.4, 0.1, 0.2])
    colour = _lit(normals, lamp)
    weight = (normals @ [0.6, 0, 0.8] > 0.3).astype(float)
    light = key_light(normals, colour, weight, 0.8)
    seen = weight > 0
    truth = np.log(colour.mean(1))
    slope = np.polyfit(truth[seen], np.log(light[seen]), 1)[0]
    assert 0.6 < slope < 0.9, "most of the light, not all of it"
    # Out of sight the light goes on only as far as it was seen to.
    assert light[~seen].max() <= light[seen].max() * 1.001
    assert light[~seen].min() >= light[seen].min() * 0.999
    towards = normals[:, 0] < -0.8
    away = normals[:, 0] > 0.8
    assert light[towards].mean() > 1.3 * light[away].mean()


def test_dark_features_are_no_shadow() -> None:
    normals = _sphere()
    colour = np.full((len(normals), 3), 0.6)
    beard = (normals[:, 1] < -0.5) & (normals[:, 2] > 0)
    colour[beard & (np.arange(len(normals)) % 3 == 0)] *= 0.3
    light = key_light(normals, colour, (normals[:, 2] > 0).astype(float), 1.0)
    assert np.abs(light - 1).max() < 0.1


def test_too_little_skin_tells_nothing() -> None:
    normals = _sphere(50)
    lit = _lit(normals, normals[0])
    np.testing.assert_array_equal(key_light(normals, lit, np.ones(50), 0.8), 1.0)
