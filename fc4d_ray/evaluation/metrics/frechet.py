"""Distances between two sets of image features: FID and KID.

Inputs are (N, D) features of N images, for FID the 2048 Inception-v3 pool features. FID is biased
upwards by a term of order 1/N, and below 2049 images its covariance is singular: it compares sets
of equal size against one reference set and nothing else (arXiv 1911.07023). KID has no such bias.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

SMALL_SAMPLE = 50
"""Below this many images a set's distances are reported with a warning."""
KID_SUBSETS = 100
KID_SUBSET_SIZE = 1000
_SEED = 0


def frechet_distance(one: NDArray[np.floating], other: NDArray[np.floating]) -> float:
    """Fréchet distance of the Gaussians fitted to two feature sets, not negative.

    The trace of the covariances' geometric mean is the sum of singular values of the product of
    the two centred feature matrices, so no matrix square root is needed and rank-deficient
    covariances cost no accuracy. Raises ``ValueError`` for fewer than two images in either set.
    """
    one, other = _checked(one, other)
    mean_one, mean_other = one.mean(0), other.mean(0)
    # Cov = A'A with A the centred features over sqrt(N - 1); tr (S1 S2)^(1/2) = |A1 A2'|_nuclear.
    factor_one = (one - mean_one) / np.sqrt(len(one) - 1)
    factor_other = (other - mean_other) / np.sqrt(len(other) - 1)
    shared = np.linalg.svd(_product(factor_one, factor_other), compute_uv=False).sum()
    spread = np.square(factor_one).sum() + np.square(factor_other).sum()
    return float(max(np.square(mean_one - mean_other).sum() + spread - 2 * shared, 0.0))


def kernel_distance(
    one: NDArray[np.floating],
    other: NDArray[np.floating],
    subsets: int = KID_SUBSETS,
    subset_size: int = KID_SUBSET_SIZE,
    seed: int = _SEED,
) -> float:
    """Kernel distance (KID): unbiased MMD² under the cubic polynomial kernel, mean over subsets.

    Subsets are as large as the smaller set where that has fewer than ``subset_size`` images; where
    a subset is the whole of both sets, one is drawn. May be slightly negative for equal
    distributions. Raises ``ValueError`` for fewer than two images in either set.
    """
    one, other = _checked(one, other)
    size = min(len(one), len(other), subset_size)
    if size == len(one) == len(other):
        return _squared_mmd(one, other)
    random = np.random.default_rng(seed)
    return float(
        np.mean(
            [
                _squared_mmd(
                    one[random.choice(len(one), size, replace=False)],
                    other[random.choice(len(other), size, replace=False)],
                )
                for _ in range(subsets)
            ]
        )
    )


def _squared_mmd(one: NDArray[np.float64], other: NDArray[np.float64]) -> float:
    n, dimensions = one.shape

    def kernel(a: NDArray, b: NDArray) -> NDArray:
        return (a @ b.T / dimensions + 1) ** 3

    within = kernel(one, one), kernel(other, other)
    same = sum(k.sum() - np.trace(k) for k in within) / (n * (n - 1))
    return float(same - 2 * kernel(one, other).mean())


def _product(one: NDArray[np.float64], other: NDArray[np.float64]) -> NDArray[np.float64]:
    """A matrix with the singular values of ``one @ other.T``, no larger than the features."""
    if max(len(one), len(other)) <= one.shape[1]:
        return one @ other.T
    # More images than features: QR keeps the singular values and drops the images.
    return np.linalg.qr(one, mode="r") @ np.linalg.qr(other, mode="r").T


def _checked(
    one: NDArray[np.floating], other: NDArray[np.floating]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    one, other = np.asarray(one, np.float64), np.asarray(other, np.float64)
    if one.ndim != 2 or other.ndim != 2 or one.shape[1] != other.shape[1]:
        raise ValueError(
            f"expected two (N, D) feature sets of one width, found {one.shape}, {other.shape}"
        )
    if min(len(one), len(other)) < 2:
        raise ValueError(
            f"a distribution needs at least two images, found {len(one)} and {len(other)}"
        )
    if not (np.isfinite(one).all() and np.isfinite(other).all()):
        raise ValueError("features hold NaN or infinity")
    return one, other
