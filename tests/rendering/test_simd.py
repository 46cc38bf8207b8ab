from __future__ import annotations

import numpy as np
import pytest
from numba import njit

from fc4d_ray.rendering._simd import LANES, exp_of_negative, load, ramp, select, some, store, total


@njit
def _exponentials(values, out):
    for at in range(0, len(values), LANES):
        store(out, at, exp_of_negative(load(values, at)))


@njit
def _clipped_ramp(start, limit, out):
    lanes = ramp(start)
    store(out, 0, select(lanes < limit, lanes * 2.0, limit))
    return total(load(out, 0)), some(lanes > limit), some((lanes > limit) & (lanes < limit))


@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float32, 7e-7), (np.float64, 1e-15)])
def test_exponential_is_exact_enough(dtype: type, tolerance: float) -> None:
    values = np.linspace(0, 6, 40_000).astype(dtype)
    out = np.empty_like(values)
    _exponentials(values, out)
    expected = np.exp(-values.astype(np.float64))
    assert np.abs(out / expected - 1).max() < tolerance


def test_lanes_compute_what_scalars_do() -> None:
    out = np.empty(LANES, np.float32)
    summed, over, never = _clipped_ramp(np.float32(2.0), np.float32(5.0), out)
    assert out.tolist() == [4.0, 6.0, 8.0, 5.0, 5.0, 5.0, 5.0, 5.0]
    assert (summed, over, never) == (43.0, True, False)
