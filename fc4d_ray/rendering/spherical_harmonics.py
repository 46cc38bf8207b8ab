"""View-dependent colour from real spherical harmonics, degrees 0 to 3."""

from __future__ import annotations

import torch
from torch import Tensor

C0 = 0.28209479177387814
C1 = 0.4886025119029199
C2 = (1.0925484305920792, 0.31539156525252005, 0.5462742152960396)
C3 = (
    0.5900435899266435,
    2.890611442640554,
    0.4570457994644658,
    0.3731763325901154,
    1.445305721320277,
)


def spherical_harmonics_basis(degree: int, directions: Tensor) -> Tensor:
    """Basis values (..., (degree + 1)^2) for unit ``directions`` (..., 3).

    Signs and order are those of 3D Gaussian splatting: within a band m runs from -l to l and odd
    m carry the Condon-Shortley sign.
    """
    x, y, z = directions.unbind(-1)
    basis = [torch.full_like(x, C0)]
    if degree >= 1:
        basis += [-C1 * y, C1 * z, -C1 * x]
    if degree >= 2:
        xx, yy, zz = x * x, y * y, z * z
        basis += [
            C2[0] * x * y,
            -C2[0] * y * z,
            C2[1] * (2 * zz - xx - yy),
            -C2[0] * x * z,
            C2[2] * (xx - yy),
        ]
    if degree >= 3:
        basis += [
            -C3[0] * y * (3 * xx - yy),
            C3[1] * x * y * z,
            -C3[2] * y * (4 * zz - xx - yy),
            C3[3] * z * (2 * zz - 3 * xx - 3 * yy),
            -C3[2] * x * (4 * zz - xx - yy),
            C3[4] * z * (xx - yy),
            -C3[0] * x * (xx - 3 * yy),
        ]
    return torch.stack(basis, -1)


def spherical_harmonics_colors(
    degree: int,
    coefficients: Tensor,  # [..., N, K, D], K >= (degree + 1)^2
    directions: Tensor,  # [..., N, 3], any length > 0
) -> Tensor:
    """Colours (..., N, D): max(SH + 0.5, 0), differentiable in both arguments."""
    unit = torch.nn.functional.normalize(directions, dim=-1)
    basis = spherical_harmonics_basis(degree, unit)
    used = coefficients[..., : basis.shape[-1], :]
    return ((basis[..., None] * used).sum(-2) + 0.5).clamp_min(0.0)
