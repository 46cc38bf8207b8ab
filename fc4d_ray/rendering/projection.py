"""Differentiable projection of 3D Gaussians onto the image planes (CPU, compiled)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fc4d_ray.rendering._projection_kernels import project_backward, project_forward
from fc4d_ray.rendering.threads import run_pieces

SPLATS_PER_PIECE = 2048
"""Fixed, so that sums over pieces do not depend on the number of threads."""


@dataclass(frozen=True)
class ProjectionSettings:
    """What ``project_splats`` needs beside tensors."""

    width: int
    height: int
    near_plane: float
    far_plane: float
    radius_clip: float
    eps2d: float
    antialiased: bool

    @property
    def size(self) -> NDArray[np.float64]:
        return np.array([self.width, self.height], np.float64)

    @property
    def limits(self) -> NDArray[np.float64]:
        return np.array([self.near_plane, self.far_plane, self.radius_clip, self.eps2d], np.float64)


@dataclass(frozen=True)
class ProjectedSplats:
    """Image-plane ellipses of N splats in C cameras; culled ones have radii 0 and zeros."""

    means2d: Tensor
    """(C, N, 2) pixels."""
    depths: Tensor
    """(C, N) camera z."""
    conics: Tensor
    """(C, N, 3) inverse 2D covariance: xx, xy, yy."""
    compensations: Tensor
    """(C, N) opacity factor that undoes the blur's gain in brightness (antialiased mode)."""
    radii: Tensor
    """(C, N, 2) int32 half-sizes of the box in pixels, no gradient."""


def project_splats(
    means: Tensor,  # [N, 3] world
    quats: Tensor,  # [N, 4] wxyz, any norm
    scales: Tensor,  # [N, 3] linear
    opacities: Tensor,  # [N] only for culling and radii
    viewmats: Tensor,  # [C, 4, 4] world to camera
    Ks: Tensor,  # [C, 3, 3] no gradient
    settings: ProjectionSettings,
) -> ProjectedSplats:
    """Project every splat into every camera; gradients for means, quats, scales and viewmats."""
    tensors = (means, quats, scales, opacities.detach(), viewmats, Ks)
    return ProjectedSplats(*_Projection.apply(*tensors, settings))


def _camera_arrays(viewmats: Tensor, Ks: Tensor) -> list[tuple[NDArray, NDArray]]:
    views = np.ascontiguousarray(viewmats.detach().double().numpy())
    intrinsics = Ks.detach().double().numpy()[:, [0, 1, 0, 1], [0, 1, 2, 2]]
    return list(zip(views, np.ascontiguousarray(intrinsics), strict=True))


def _piece(index: int, n_splats: int) -> tuple[int, int]:
    return index * SPLATS_PER_PIECE, min((index + 1) * SPLATS_PER_PIECE, n_splats)


class _Projection(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        means: Tensor,
        quats: Tensor,
        scales: Tensor,
        opacities: Tensor,
        viewmats: Tensor,
        Ks: Tensor,
        settings: ProjectionSettings,
    ) -> tuple[Tensor, ...]:
        n_cameras, n_splats = len(viewmats), len(means)
        means, quats, scales = means.contiguous(), quats.contiguous(), scales.contiguous()
        inputs = [t.detach().numpy() for t in (means, quats, scales, opacities.contiguous())]
        means2d = means.new_empty(n_cameras, n_splats, 2)
        depths = means.new_empty(n_cameras, n_splats)
        conics = means.new_empty(n_cameras, n_splats, 3)
        compensations = means.new_empty(n_cameras, n_splats)
        radii = torch.zeros(n_cameras, n_splats, 2, dtype=torch.int32)
        outputs = [t.numpy() for t in (means2d, depths, conics, radii, compensations)]
        size, limits = settings.size, settings.limits
        for camera, (view, intrinsics) in enumerate(_camera_arrays(viewmats, Ks)):
            out = [array[camera] for array in outputs]

            def kernel(index: int, view=view, intrinsics=intrinsics, out=out) -> None:
                first, last = _piece(index, n_splats)
                antialiased = settings.antialiased
                project_forward(
                    first, last, *inputs, view, intrinsics, size, limits, antialiased, *out
                )

            run_pieces(kernel, -(-n_splats // SPLATS_PER_PIECE))
        ctx.settings = settings
        ctx.save_for_backward(means, quats, scales, viewmats, Ks, radii)
        ctx.mark_non_differentiable(radii)
        return means2d, depths, conics, compensations, radii

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        means, quats, scales, viewmats, Ks, radii = ctx.saved_tensors
        settings: ProjectionSettings = ctx.settings
        n_splats = len(means)
        n_pieces = -(-n_splats // SPLATS_PER_PIECE)
        inputs = [t.detach().numpy() for t in (means, quats, scales)]
        incoming = [g.contiguous().numpy() for g in gradients[:4]]
        results = [torch.zeros_like(t) for t in (means, quats, scales)]
        outputs = [t.numpy() for t in results]
        g_viewmats = torch.zeros_like(viewmats)
        size, limits = settings.size, settings.limits
        for camera, (view, intrinsics) in enumerate(_camera_arrays(viewmats, Ks)):
            radius = radii[camera].numpy()
            incoming_here = [array[camera] for array in incoming]
            g_view = np.zeros((n_pieces, 3, 4))

            def kernel(
                index: int,
                view=view,
                fixed=(intrinsics, size, limits, radius, *incoming_here, *outputs),
                g_view=g_view,
            ) -> None:
                project_backward(*_piece(index, n_splats), *inputs, view, *fixed, g_view[index])

            run_pieces(kernel, n_pieces)
            g_viewmats[camera, :3] = torch.from_numpy(g_view.sum(0)).to(viewmats.dtype)
        return *results, None, g_viewmats, None, None
