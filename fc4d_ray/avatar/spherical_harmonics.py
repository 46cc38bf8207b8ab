"""Spherical harmonics coefficients as the avatar stores them: the constant term apart."""

from __future__ import annotations

import torch
from torch import Tensor

from fc4d_ray.rendering.spherical_harmonics import C0, spherical_harmonics_basis

MAX_DEGREE = 3


def rgb_to_dc(rgb: Tensor) -> Tensor:
    """Coefficient of the constant term that shows ``rgb`` (..., 3) in [0, 1]."""
    return (rgb - 0.5) / C0


def dc_to_rgb(dc: Tensor) -> Tensor:
    """Colour of the constant term alone, not clamped."""
    return dc * C0 + 0.5


def coefficient_count(degree: int) -> int:
    """Coefficients per channel, the constant one included."""
    return (degree + 1) ** 2


def degree_of(count: int) -> int:
    """Degree that has ``count`` coefficients; raises ``ValueError`` where none does."""
    for degree in range(MAX_DEGREE + 1):
        if coefficient_count(degree) == count:
            return degree
    raise ValueError(f"{count} spherical harmonics coefficients match no degree 0..{MAX_DEGREE}")


def evaluate(
    dc: Tensor,  # (N, 3)
    rest: Tensor,  # (N, K - 1, 3)
    directions: Tensor | None,  # (N, 3) unit vectors, camera centre to splat; None at degree 0
    degree: int,
) -> Tensor:
    """Colours (N, 3), shifted by 0.5 and not yet clamped at 0."""
    colour = dc_to_rgb(dc)
    if degree == 0:
        return colour
    if directions is None:
        raise ValueError("view directions are needed above degree 0")
    basis = spherical_harmonics_basis(degree, directions)[:, 1:]
    return colour + torch.einsum("nk,nkc->nc", basis, rest[:, : basis.shape[1]])
