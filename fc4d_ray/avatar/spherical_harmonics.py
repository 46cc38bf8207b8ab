"""Real spherical harmonics up to degree 3, in the order and signs 3DGS files use."""

from __future__ import annotations

import torch
from torch import Tensor

DC_BASIS = 0.28209479177387814
"""Value of the constant basis function; RGB = DC_BASIS * dc + 0.5."""

MAX_DEGREE = 3


def rgb_to_dc(rgb: Tensor) -> Tensor:
    """Coefficient of the constant term that shows ``rgb`` (..., 3) in [0, 1]."""
    return (rgb - 0.5) / DC_BASIS


def dc_to_rgb(dc: Tensor) -> Tensor:
    """Colour of the constant term alone, not clamped."""
    return dc * DC_BASIS + 0.5


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
    basis = _basis(directions, degree)
    return colour + torch.einsum("nk,nkc->nc", basis, rest[:, : basis.shape[1]])


def _basis(directions: Tensor, degree: int) -> Tensor:
    """(N, (degree + 1)^2 - 1) basis values above the constant one."""
    x, y, z = directions.unbind(-1)
    terms = [-0.4886025119029199 * y, 0.4886025119029199 * z, -0.4886025119029199 * x]
    if degree >= 2:
        xx, yy, zz = x * x, y * y, z * z
        terms += [
            1.0925484305920792 * x * y,
            -1.0925484305920792 * y * z,
            0.31539156525252005 * (2 * zz - xx - yy),
            -1.0925484305920792 * x * z,
            0.5462742152960396 * (xx - yy),
        ]
    if degree >= 3:
        terms += [
            -0.5900435899266435 * y * (3 * xx - yy),
            2.890611442640554 * x * y * z,
            -0.4570457994644658 * y * (4 * zz - xx - yy),
            0.3731763325901154 * z * (2 * zz - 3 * xx - 3 * yy),
            -0.4570457994644658 * x * (4 * zz - xx - yy),
            1.445305721320277 * z * (xx - yy),
            -0.5900435899266435 * x * (xx - 3 * yy),
        ]
    return torch.stack(terms, -1)
