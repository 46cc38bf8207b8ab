"""Cosine similarities between embeddings: CLIP-I and ID.

Embeddings are (N, D); a row of NaN stands for an image without one (no face found), takes part in
no mean and is counted. Every mean comes with the number of images it is taken over.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Mean:
    """A mean that says what it is a mean of."""

    value: float | None
    """None where nothing could be averaged."""
    valid: int
    total: int

    @property
    def with_zeros(self) -> float | None:
        """The strict variant: images without an embedding count as similarity 0."""
        return None if self.total == 0 else (self.value or 0.0) * self.valid / self.total


def cosine_to(
    embeddings: NDArray[np.floating], reference: NDArray[np.floating]
) -> NDArray[np.float64]:
    """(N,) cosine of each row with ``reference`` (D,); NaN where either is missing."""
    return _unit(embeddings) @ _unit(reference[None])[0]


def pairwise_cosine(embeddings: NDArray[np.floating]) -> NDArray[np.float64]:
    """(N (N - 1) / 2,) cosines of all pairs of rows; NaN where either is missing."""
    unit = _unit(embeddings)
    return (unit @ unit.T)[np.triu_indices(len(unit), 1)]


def mean_of(values: NDArray[np.floating]) -> Mean:
    """Mean over the values that are not NaN."""
    values = np.asarray(values, np.float64)
    valid = values[~np.isnan(values)]
    return Mean(float(valid.mean()) if len(valid) else None, len(valid), len(values))


def _unit(embeddings: NDArray[np.floating]) -> NDArray[np.float64]:
    embeddings = np.asarray(embeddings, np.float64)
    if embeddings.ndim != 2:
        raise ValueError(f"expected (N, D) embeddings, found {embeddings.shape}")
    length = np.linalg.norm(embeddings, axis=1, keepdims=True)
    if (length == 0).any():
        raise ValueError("an embedding of length 0 has no direction")
    return embeddings / length
