"""Colour of the head's own surface: an albedo per vertex under light in spherical harmonics.

Both follow in closed form from what the cameras saw where the head is believed to be: the albedo
is the mean of its observations with the shading divided out, the light nine numbers per channel.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

_FACTORS = (
    0.282095, 1.023328, 1.023328, 1.023328, 0.858086, 0.858086, 0.858086, 0.429043, 0.247708,
)  # fmt: skip
"""Constants of the real harmonics of degree 0 to 2, times the clamped cosine's coefficients."""
FULL_LIGHT = math.sqrt(4 * math.pi)
"""First coefficient at which light from everywhere has strength 1."""
_LIGHT_RIDGE = 0.02
_ALBEDO_RIDGE = 1e-3
_DARKEST = 0.05


@dataclass(frozen=True)
class Observations:
    """What all cameras together say of a vertex at a time."""

    weight: Tensor  # [T, N] sum of the views' weights
    colour: Tensor  # [T, N, 3] weighted sum of the views' colours


@dataclass(frozen=True)
class Appearance:
    """Look of N vertices."""

    albedo: Tensor  # [N, 3]
    light: Tensor  # [9, 3]

    def colours(self, normals: Tensor) -> Tensor:
        """(T, N, 3) colours under unit normals (T, N, 3)."""
        return self.albedo * shading(normals, self.light)


def shading(normals: Tensor, light: Tensor) -> Tensor:
    """(..., 3) light of coefficients (9, 3) that arrives on unit normals (..., 3)."""
    return (harmonics(normals) @ light).clamp_min(_DARKEST)


def harmonics(normals: Tensor) -> Tensor:
    """(..., 9) basis at unit normals (..., 3)."""
    x, y, z = normals.unbind(-1)
    terms = [torch.ones_like(x), x, y, z, x * y, x * z, y * z, x * x - y * y, 3 * z * z - 1]
    return torch.stack(terms, -1) * normals.new_tensor(_FACTORS)


def fit_appearance(seen: Observations, normals: Tensor, rounds: int = 3) -> Appearance:
    """Albedo and light that explain the observations best, in turns.

    Vertices nobody saw get a grey albedo. The light stays near one from everywhere unless the
    head's turns and curvature say otherwise: light and albedo trade off.
    """
    n_vertices = seen.weight.shape[1]
    start = normals.new_zeros(9, 3)
    start[0] = FULL_LIGHT
    light = start
    basis = harmonics(normals)
    albedo = normals.new_full((n_vertices, 3), 0.5)
    for _ in range(rounds):
        shade = shading(normals, light)
        top = (seen.colour * shade).sum(0) + _ALBEDO_RIDGE * 0.5
        albedo = top / ((seen.weight[..., None] * shade.square()).sum(0) + _ALBEDO_RIDGE)
        light = torch.stack(
            [
                _light_channel(basis, seen, albedo[:, channel], channel, start[:, channel])
                for channel in range(3)
            ],
            -1,
        )
    shade = shading(normals, light)
    top = (seen.colour * shade).sum(0) + _ALBEDO_RIDGE * 0.5
    albedo = top / ((seen.weight[..., None] * shade.square()).sum(0) + _ALBEDO_RIDGE)
    return Appearance(albedo, light)


def _light_channel(
    basis: Tensor, seen: Observations, albedo: Tensor, channel: int, start: Tensor
) -> Tensor:
    weight = seen.weight * albedo.square()
    normal = torch.einsum("tn,tna,tnb->ab", weight, basis, basis).double()
    right = torch.einsum("tn,tna->a", seen.colour[..., channel] * albedo, basis).double()
    ridge = _LIGHT_RIDGE * normal.diagonal().mean() + 1e-9
    normal = normal + ridge * torch.eye(9, dtype=normal.dtype, device=normal.device)
    return torch.linalg.solve(normal, right + ridge * start.double()).to(basis)
