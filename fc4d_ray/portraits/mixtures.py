"""Weighted Gaussian mixtures over a few colour, texture and position features."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class GaussianMixture:
    """K full-covariance normals in D dimensions."""

    log_weights: NDArray[np.float64]  # (K,)
    means: NDArray[np.float64]  # (K, D)
    whitening: NDArray[np.float64]  # (K, D, D), inverse Cholesky factors

    def log_density(self, samples: NDArray, *, given: int = 0) -> NDArray:
        """(N,) log density of samples (N, D), in their float type.

        With ``given`` = g it is the density of the other dimensions conditional on the first g.
        """
        whole, known = self._component_log_densities(samples, given)
        joint = _log_sum_exp(whole)
        return joint - _log_sum_exp(known) if given else joint

    def responsibilities(self, samples: NDArray) -> NDArray:
        """(N, K) probability of each component having made each sample."""
        logs, _ = self._component_log_densities(samples, 0)
        return np.exp(logs - _log_sum_exp(logs)[:, None])

    def without_minor(self, share: float) -> GaussianMixture:
        """The mixture of the components whose weight is at least ``share``, or of the largest."""
        kept = self.log_weights >= min(np.log(max(share, 1e-300)), self.log_weights.max())
        log_weights = self.log_weights[kept]
        return GaussianMixture(
            log_weights - _log_sum_exp(log_weights), self.means[kept], self.whitening[kept]
        )

    def _component_log_densities(self, samples: NDArray, given: int) -> tuple[NDArray, NDArray]:
        """Log of weight times density, of all dimensions and of the first ``given``: (N, K) each.

        The inverse Cholesky factors are lower triangular, so their leading blocks whiten the
        marginals.
        """
        dtype = samples.dtype
        whole = np.empty((len(samples), len(self.means)), dtype)
        known = np.empty_like(whole)
        for k, (mean, white) in enumerate(zip(self.means, self.whitening, strict=True)):
            squares = np.square((samples - mean.astype(dtype)) @ white.T.astype(dtype))
            diagonal = np.log(np.diag(white))
            dimensions = np.arange(1, len(mean) + 1) * (-0.5 * np.log(2 * np.pi))
            log_norms = np.cumsum(diagonal) + dimensions
            first = squares[:, :given].sum(1)
            whole[:, k] = -0.5 * (first + squares[:, given:].sum(1))
            whole[:, k] += dtype.type(self.log_weights[k] + log_norms[-1])
            if given:
                known[:, k] = -0.5 * first + dtype.type(self.log_weights[k] + log_norms[given - 1])
        return whole, known


def fit_mixture(
    samples: NDArray,  # (N, D)
    weights: NDArray,  # (N,) >= 0
    *,
    components: int,
    variance_floor: NDArray,  # (D,)
    generator: np.random.Generator,
    iterations: int = 12,
    max_samples: int = 5000,
) -> GaussianMixture:
    """Expectation maximisation on a weighted draw of the samples.

    ``variance_floor`` is added to every covariance's diagonal: it says below which spread two
    samples count as equal, which keeps flat backdrops from becoming infinitely sharp.
    """
    total = float(weights.sum())
    if total <= 0 or len(samples) == 0:
        raise ValueError("a mixture needs samples with positive weight")
    drawn = generator.choice(len(samples), size=max_samples, p=weights / total)
    x = samples[drawn].astype(np.float64)
    scale = np.sqrt(variance_floor)
    centres = _spread_centres(x / scale, components, generator) * scale
    distance = (((x[:, None] - centres) / scale) ** 2).sum(-1)
    responsibility = np.eye(len(centres))[distance.argmin(1)]
    mixture = _maximise(x, responsibility, variance_floor)
    for _ in range(iterations):
        mixture = _maximise(x, mixture.responsibilities(x), variance_floor)
    return mixture


def _maximise(x: NDArray, responsibility: NDArray, floor: NDArray) -> GaussianMixture:
    counts = responsibility.sum(0)
    kept = counts > max(4.0, 0.005 * len(x))
    if not kept.any():
        kept = counts == counts.max()
    responsibility, counts = responsibility[:, kept], counts[kept]
    means = responsibility.T @ x / counts[:, None]
    dimensions = x.shape[1]
    whitening = np.empty((len(counts), dimensions, dimensions))
    for k, count in enumerate(counts):
        centred = x - means[k]
        covariance = (centred * responsibility[:, k : k + 1]).T @ centred / count
        factor = np.linalg.cholesky(covariance + np.diag(floor))
        whitening[k] = np.linalg.inv(factor)
    return GaussianMixture(np.log(counts / counts.sum()), means, whitening)


def _spread_centres(x: NDArray, count: int, generator: np.random.Generator) -> NDArray:
    """k-means++ seeding followed by a few Lloyd steps."""
    centres = [x[generator.integers(len(x))]]
    nearest = ((x - centres[0]) ** 2).sum(1)
    while len(centres) < count and nearest.sum() > 0:
        centres.append(x[generator.choice(len(x), p=nearest / nearest.sum())])
        nearest = np.minimum(nearest, ((x - centres[-1]) ** 2).sum(1))
    placed = np.array(centres)
    for _ in range(4):
        label = ((x[:, None] - placed) ** 2).sum(-1).argmin(1)
        placed = np.array(
            [x[label == k].mean(0) if (label == k).any() else c for k, c in enumerate(placed)]
        )
    return placed


def _log_sum_exp(values: NDArray) -> NDArray:
    top = values.max(-1)
    return top + np.log(np.exp(values - top[..., None]).sum(-1))
