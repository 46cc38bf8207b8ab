from __future__ import annotations

import numpy as np
import pytest

from fc4d_ray.portraits.mixtures import fit_mixture

FLOOR = np.full(3, 1e-3)


@pytest.fixture
def two_clouds() -> np.ndarray:
    generator = np.random.default_rng(0)
    left = generator.normal([0, 0, 0], [0.5, 0.2, 0.3], (3000, 3))
    right = generator.normal([5, 3, 1], [0.3, 0.6, 0.2], (1000, 3))
    return np.concatenate([left, right])


def test_recovers_means_and_weights(two_clouds: np.ndarray) -> None:
    mixture = fit_mixture(
        two_clouds,
        np.ones(4000),
        components=2,
        variance_floor=FLOOR,
        generator=np.random.default_rng(1),
    )
    order = mixture.means[:, 0].argsort()
    np.testing.assert_allclose(mixture.means[order], [[0, 0, 0], [5, 3, 1]], atol=0.1)
    np.testing.assert_allclose(np.exp(mixture.log_weights[order]), [0.75, 0.25], atol=0.03)


def test_weights_choose_the_samples(two_clouds: np.ndarray) -> None:
    weights = np.r_[np.zeros(3000), np.ones(1000)]
    mixture = fit_mixture(
        two_clouds,
        weights,
        components=2,
        variance_floor=FLOOR,
        generator=np.random.default_rng(1),
    )
    assert (mixture.means[:, 0] > 3).all()


def test_density_integrates_to_one_and_conditions() -> None:
    generator = np.random.default_rng(3)
    samples = generator.multivariate_normal([0, 0], [[1, 0.8], [0.8, 1]], 4000)
    mixture = fit_mixture(
        samples,
        np.ones(4000),
        components=2,
        variance_floor=np.full(2, 1e-3),
        generator=generator,
    )
    axis = np.linspace(-6, 6, 241)
    grid = np.stack(np.meshgrid(axis, axis, indexing="ij"), -1).reshape(-1, 2)
    cell = (axis[1] - axis[0]) ** 2
    assert np.exp(mixture.log_density(grid)).sum() * cell == pytest.approx(1, abs=1e-3)
    line = np.stack([np.full_like(axis, 1.0), axis], -1)
    conditional = np.exp(mixture.log_density(line, given=1))
    assert conditional.sum() * (axis[1] - axis[0]) == pytest.approx(1, abs=1e-3)
    assert axis[conditional.argmax()] == pytest.approx(0.8, abs=0.2)


def test_refuses_an_empty_draw() -> None:
    with pytest.raises(ValueError, match="positive weight"):
        fit_mixture(
            np.zeros((5, 3)),
            np.zeros(5),
            components=2,
            variance_floor=FLOOR,
            generator=np.random.default_rng(0),
        )
