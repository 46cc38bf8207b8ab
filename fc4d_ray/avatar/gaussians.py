"""The parameters of splats bound to a mesh, before activation and in triangle coordinates."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fc4d_ray.avatar.spherical_harmonics import coefficient_count, degree_of

LEARNED = ("positions", "log_scales", "quats", "opacity_logits", "sh0", "shN")
"""Names of the tensors an optimiser moves; ``binding`` is the only other one."""


@dataclass(frozen=True)
class Gaussians:
    """N splats, each living in the frame of one triangle (binding.py).

    Everything learned is a floating tensor on one device; values are before activation, as in
    3DGS files.
    """

    positions: Tensor
    """(N, 3) in the triangle's frame, in units of the triangle's scale."""
    log_scales: Tensor
    """(N, 3) natural logarithm of the standard deviation along the own axes, same units."""
    quats: Tensor
    """(N, 4) wxyz, of free length, rotation within the triangle's frame."""
    opacity_logits: Tensor
    """(N,)"""
    sh0: Tensor
    """(N, 3) constant spherical harmonics coefficient."""
    shN: Tensor
    """(N, K - 1, 3) higher coefficients; K - 1 = 0 at degree 0. World directions."""
    binding: Tensor
    """(N,) int64 face index."""

    def __post_init__(self) -> None:
        n = len(self.binding)
        expected = {
            "positions": (n, 3),
            "log_scales": (n, 3),
            "quats": (n, 4),
            "opacity_logits": (n,),
            "sh0": (n, 3),
            "shN": (n, self.shN.shape[1] if self.shN.dim() == 3 else 0, 3),
        }
        for name, shape in expected.items():
            found = tuple(getattr(self, name).shape)
            if found != shape:
                raise ValueError(f"Gaussians.{name} is {found}, expected {shape}")
        degree_of(self.shN.shape[1] + 1)

    def __len__(self) -> int:
        return len(self.binding)

    @property
    def sh_degree(self) -> int:
        """Degree the stored coefficients reach."""
        return degree_of(self.shN.shape[1] + 1)

    @property
    def device(self) -> torch.device:
        return self.positions.device

    def learned(self) -> dict[str, Tensor]:
        """The optimisable tensors by name."""
        return {name: getattr(self, name) for name in LEARNED}

    def select(self, rows: Tensor) -> Gaussians:
        """The splats of an index or mask tensor, differentiable."""
        return Gaussians(**{f.name: getattr(self, f.name)[rows] for f in fields(self)})

    def detached(self) -> Gaussians:
        """Copies that share no memory and no graph with this one."""
        return Gaussians(**{f.name: getattr(self, f.name).detach().clone() for f in fields(self)})

    def to(self, device: torch.device | str) -> Gaussians:
        return Gaussians(**{f.name: getattr(self, f.name).to(device) for f in fields(self)})

    def with_sh_degree(self, degree: int) -> Gaussians:
        """The same splats with coefficients up to ``degree``: cut off, or padded with zeros."""
        wanted = coefficient_count(degree) - 1
        kept = self.shN[:, :wanted]
        padding = kept.new_zeros(len(self), wanted - kept.shape[1], 3)
        return replace(self, shN=torch.cat([kept, padding], 1))

    def to_arrays(self) -> dict[str, NDArray]:
        """Plain arrays: float32, and ``binding`` int32."""
        arrays = {name: tensor.detach().cpu().numpy() for name, tensor in self.learned().items()}
        arrays = {name: np.asarray(array, np.float32) for name, array in arrays.items()}
        return arrays | {"binding": self.binding.cpu().numpy().astype(np.int32)}

    @staticmethod
    def from_arrays(arrays: Mapping[str, NDArray]) -> Gaussians:
        """Inverse of ``to_arrays``; ``KeyError`` on missing, ``ValueError`` on misshapen ones."""
        learned = {n: torch.from_numpy(np.array(arrays[n], np.float32)) for n in LEARNED}
        binding = torch.from_numpy(np.array(arrays["binding"], np.int64))
        return Gaussians(**learned, binding=binding)


def concatenate(parts: list[Gaussians]) -> Gaussians:
    """All splats of ``parts``, in order."""
    return Gaussians(
        **{f.name: torch.cat([getattr(part, f.name) for part in parts]) for f in fields(Gaussians)}
    )
