from __future__ import annotations

import numpy as np
import pytest

from fc4d_ray.evaluation.metrics.bootstrap import bootstrap_mean, paired_difference


def test_the_interval_is_that_of_the_mean_s_standard_error() -> None:
    values = np.random.default_rng(0).normal(2.0, 1.0, 400)
    found = bootstrap_mean(values)
    assert found.mean == pytest.approx(values.mean())
    assert (found.high - found.low) == pytest.approx(2 * 1.96 / 20, rel=0.1)
    assert found == bootstrap_mean(values)


def test_missing_subjects_are_left_out_and_one_subject_says_nothing() -> None:
    assert bootstrap_mean(np.array([np.nan, 1.0, 3.0])).n == 2
    alone = bootstrap_mean(np.array([0.4]))
    assert (alone.mean, alone.low, alone.high) == (0.4, -np.inf, np.inf)
    assert bootstrap_mean(np.array([np.nan])) is None


def test_pairing_removes_what_subjects_share() -> None:
    random = np.random.default_rng(1)
    difficulty = random.normal(0, 5, 50)
    better = difficulty + 0.5 + random.normal(0, 0.1, 50)
    found = paired_difference(better, difficulty)
    assert found.low > 0.4 and found.high < 0.6
    with pytest.raises(ValueError, match="cannot be paired"):
        paired_difference(better, difficulty[:3])
