"""What binding, trainer, tracker and viewer know of a head model: a mesh that takes poses."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray
from torch import Tensor


@runtime_checkable
class PosableMesh(Protocol):
    """A triangle mesh of fixed topology driven by named parameter vectors.

    The all-zero parameters are the neutral head in the canonical pose.
    """

    @property
    def faces(self) -> Tensor | NDArray[np.integer]:
        """(F, 3) vertex indices, counter-clockwise seen from outside."""

    @property
    def parameter_sizes(self) -> dict[str, int]:
        """Width ``d`` of every parameter ``pose`` takes, by name."""

    def pose(self, parameters: Mapping[str, Tensor]) -> Tensor:
        """Vertices (T, V, 3) in metres, world frame, for parameters of shape (T, d) each.

        Differentiable with respect to every parameter.
        Takes exactly the parameters of ``parameter_sizes``.
        """
