"""Confidence intervals by resampling subjects, never images: views of one person are no sample."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

RESAMPLES = 10_000
LEVEL = 0.95
_SEED = 0
_BLOCK = 1_000
"""Resamples drawn at once, so that many subjects need no gigabytes."""


@dataclass(frozen=True)
class Interval:
    """A percentile interval around a mean over subjects."""

    mean: float
    low: float
    high: float
    n: int


def bootstrap_mean(
    values: NDArray[np.floating], resamples: int = RESAMPLES, level: float = LEVEL
) -> Interval | None:
    """Interval of the mean of per-subject ``values`` (N,), NaN left out; None without any.

    A single subject gives an interval of infinite width: one person says nothing about others.
    Deterministic.
    """
    values = np.asarray(values, np.float64)
    values = values[~np.isnan(values)]
    if not len(values):
        return None
    if len(values) == 1:
        return Interval(float(values[0]), -np.inf, np.inf, 1)
    random = np.random.default_rng(_SEED)
    blocks = []
    for start in range(0, resamples, _BLOCK):
        drawn = random.integers(0, len(values), (min(_BLOCK, resamples - start), len(values)))
        blocks.append(values[drawn].mean(1))
    means = np.concatenate(blocks)
    tail = 100 * (1 - level) / 2
    low, high = np.percentile(means, [tail, 100 - tail])
    return Interval(float(values.mean()), float(low), float(high), len(values))


def paired_difference(
    one: NDArray[np.floating], other: NDArray[np.floating], resamples: int = RESAMPLES
) -> Interval | None:
    """Interval of ``one - other`` over the subjects (N,) that have both values."""
    if len(one) != len(other):
        raise ValueError(f"{len(one)} subjects cannot be paired with {len(other)}")
    return bootstrap_mean(np.asarray(one, float) - np.asarray(other, float), resamples)
