"""Kalman smoothing of driving motion: steady position, Gaussian steps and noise.

All covariances are multiples of the identity, so one gain per frame serves every dimension: a
forward filter, then Rauch-Tung-Striebel backwards.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

PROCESS_VARIANCE = 1e-5
INITIAL_VARIANCE = 1.0


def kalman_smoothed(
    values: NDArray[np.floating], observation_variance: float
) -> NDArray[np.float32]:
    """``values`` (T, …) smoothed over time; larger variances smooth more."""
    observed = np.asarray(values, np.float64)
    n = len(observed)
    filtered = np.empty_like(observed)
    filtered_variance, predicted_variance = np.empty(n), np.empty(n)
    mean, variance = observed[0], INITIAL_VARIANCE
    for i in range(n):
        predicted_variance[i] = variance
        gain = variance / (variance + observation_variance)
        mean = mean + gain * (observed[i] - mean)
        filtered[i], filtered_variance[i] = mean, (1 - gain) * variance
        variance = filtered_variance[i] + PROCESS_VARIANCE
    smoothed = filtered.copy()
    for i in range(n - 2, -1, -1):
        back = filtered_variance[i] / predicted_variance[i + 1]
        smoothed[i] = filtered[i] + back * (smoothed[i + 1] - filtered[i])
    return smoothed.astype(np.float32)


def nearest_rotations(matrices: NDArray[np.floating]) -> NDArray[np.float32]:
    """The rotation closest to each of (T, 3, 3): smoothed entries are no longer one."""
    left, _, right = np.linalg.svd(np.asarray(matrices, np.float64))
    left[:, :, -1] *= np.linalg.det(left @ right)[:, None]
    return (left @ right).astype(np.float32)
