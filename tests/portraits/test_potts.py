from __future__ import annotations

import numpy as np

from fc4d_ray.portraits.potts import solve_potts


def test_without_smoothing_each_pixel_takes_its_cheapest_label() -> None:
    costs = np.random.default_rng(0).uniform(0, 3, (20, 24, 4))
    tiny = np.full((20, 24), 1e-6)
    labels = solve_potts(costs, tiny, tiny, iterations=400)
    np.testing.assert_allclose(labels.sum(-1), 1, atol=1e-4)
    clear = np.diff(np.sort(costs, -1)[..., :2], axis=-1)[..., 0] > 0.1
    np.testing.assert_array_equal(labels.argmax(-1)[clear], costs.argmin(-1)[clear])


def test_smoothing_removes_noise_and_keeps_a_weak_edge() -> None:
    generator = np.random.default_rng(1)
    truth = np.zeros((40, 40), int)
    truth[:, 20:] = 1
    costs = np.stack([truth, 1 - truth], -1) + generator.normal(0, 0.9, (40, 40, 2))
    assert (costs.argmin(-1) != truth).mean() > 0.1
    right, down = np.full((40, 40), 2.0), np.full((40, 40), 2.0)
    right[:, 19] = 0.05
    labels = solve_potts(costs, right, down, iterations=400).argmax(-1)
    assert (labels != truth).mean() < 0.01


def test_not_above_the_energy_of_the_truth() -> None:
    """The relaxation is a lower bound of the discrete problem."""
    generator = np.random.default_rng(2)
    costs = generator.uniform(0, 1, (16, 16, 3))
    weights = np.full((16, 16), 0.6)

    def energy(u: np.ndarray) -> float:
        dx = np.diff(u, axis=1, append=u[:, -1:])
        dy = np.diff(u, axis=0, append=u[-1:])
        return float((costs * u).sum() + 0.5 * 0.6 * np.hypot(dx, dy).sum())

    solved = energy(solve_potts(costs, weights, weights, iterations=800))
    for label in range(3):
        assert solved <= energy(np.broadcast_to(np.eye(3)[label], costs.shape)) + 1e-3
    assert solved <= energy(np.eye(3)[costs.argmin(-1)]) + 1e-3
