from __future__ import annotations

import numpy as np
import pytest

from fc4d_ray.evaluation.metrics.similarity import cosine_to, mean_of, pairwise_cosine

NAN = float("nan")


def test_cosines_by_hand() -> None:
    embeddings = np.array([[1.0, 0], [0, 2], [3, 3], [-1, 0]])
    np.testing.assert_allclose(
        cosine_to(embeddings, np.array([5.0, 0])), [1, 0, np.sqrt(0.5), -1], atol=1e-12
    )
    half = np.sqrt(0.5)
    np.testing.assert_allclose(
        pairwise_cosine(embeddings), [0, half, -1, half, 0, -half], atol=1e-12
    )


def test_order_of_views_does_not_matter() -> None:
    embeddings = np.random.default_rng(0).normal(size=(6, 8))
    shuffled = embeddings[[3, 1, 5, 0, 2, 4]]
    assert mean_of(pairwise_cosine(shuffled)).value == pytest.approx(
        mean_of(pairwise_cosine(embeddings)).value
    )


def test_a_missing_face_changes_the_count_and_not_the_mean_of_the_others() -> None:
    with_gap = np.array([[1.0, 0], [NAN, NAN], [0.6, 0.8]])
    found = mean_of(cosine_to(with_gap, np.array([1.0, 0])))
    assert (found.value, found.valid, found.total) == (pytest.approx(0.8), 2, 3)
    assert found.with_zeros == pytest.approx(1.6 / 3)
    nothing = mean_of(np.array([NAN, NAN]))
    assert (nothing.value, nothing.valid, nothing.total) == (None, 0, 2)
    assert nothing.with_zeros == 0


def test_an_embedding_without_direction_is_refused() -> None:
    with pytest.raises(ValueError, match="length 0"):
        cosine_to(np.zeros((1, 3)), np.ones(3))
    with pytest.raises(ValueError, match=r"\(N, D\)"):
        pairwise_cosine(np.ones(3))
