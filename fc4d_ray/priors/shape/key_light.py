"""The light of a portrait on skin and hair, as far as a single photograph tells it.

A lamp from one side leaves the other side of a face darker. Skin that the portrait does not show
borrows colour from its mirror image, and would borrow that one's light as well: the side that faced
the lamp would be as dark as the one in shadow. Lightness as a function of the way a surface faces,
to first order and within what was seen, tells the two apart. Hair that nobody saw would be one flat
colour; in the light of the seen hair it is bright on top and dark at the nape, as that is.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_HUBER = 0.15
"""Differences of log lightness beyond this are features (brows, lips, stubble), not light."""
_ROUNDS = 12
_RIDGE = 0.02
_FEWEST = 100


def key_light(
    normals: NDArray[np.floating],  # [V, 3] unit length, head frame
    colour: NDArray[np.floating],  # [V, 3] sRGB 0…1, of use where weight > 0
    weight: NDArray[np.floating],  # [V] how well the portrait shows each vertex, 0…1
    strength: float,
) -> NDArray[np.float64]:
    """Relative brightness (V,) of the surface in the portrait's light, around 1.

    ``strength`` is the share of the light found that is given. It stays within what the seen
    vertices span; 1 everywhere if too few are seen.
    """
    seen = weight > 0.3
    if seen.sum() < _FEWEST:
        return np.ones(len(normals))
    lightness = np.log(colour[seen].mean(1).clip(0.02, None))
    # [1, n]: a constant and the three directions; the ridge keeps directions nobody saw at zero.
    basis = np.concatenate([np.ones((seen.sum(), 1)), normals[seen]], 1)
    ridge = np.diag([0.0, 1, 1, 1]) * _RIDGE * weight[seen].sum()
    share = weight[seen].astype(np.float64)
    for _ in range(_ROUNDS):
        pull = basis * share[:, None]
        solution = np.linalg.solve(pull.T @ basis + ridge, pull.T @ lightness)
        residual = np.abs(lightness - basis @ solution)
        share = weight[seen] * np.minimum(1.0, _HUBER / np.maximum(residual, 1e-9))
    towards = normals @ solution[1:]
    low, high = np.percentile(towards[seen], (3, 97))
    return np.exp(strength * (towards.clip(low, high) - np.median(towards[seen])))
