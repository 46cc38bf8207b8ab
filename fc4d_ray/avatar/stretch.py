"""What a triangle's frame leaves out: how the triangle itself changes shape.

GaussianAvatars scales a splat by one number per triangle. A lid that shuts grows to three times its
height and keeps its width; splats scaled by one number then leave gaps in a height that they
overlap in across. Here the triangle's affine deformation in its own plane acts on a splat's place
and covariance: a sheet without gaps at rest has none in any pose.
"""

from __future__ import annotations

import torch
from torch import Tensor

_VISIBLE_STRETCH = 0.04
"""Deviations below it leave a splat's covariance as it is: nobody sees four per cent."""
_SWEEPS = 5
"""Of Jacobi's method; 3 x 3 matrices are diagonal to float32's last digit after four."""
_TINY = 1e-20


def triangle_shape(vertices: Tensor, faces: Tensor) -> Tensor:
    """(..., F, 3) of the triangles of ``vertices`` (..., V, 3), metres.

    Length of the first edge, how far along it the third corner lies, and how high above it.
    """
    v0, v1, v2 = (vertices[..., faces[:, corner], :] for corner in range(3))
    edge, side = v1 - v0, v2 - v0
    squared = edge.square().sum(-1).clamp_min(_TINY)
    length = squared.sqrt()
    along = (edge * side).sum(-1) / length
    height = (side.square().sum(-1) - along.square()).clamp_min(_TINY).sqrt()
    return torch.stack([length, along, height], -1)


def stretch_of(shape: Tensor, rest: Tensor) -> Tensor:
    """In-plane deformation (..., F, 3) from the triangles' shape at ``rest`` to ``shape``.

    Entries xx, xz, zz of an upper triangular matrix in the frame's axes (binding.FaceFrames: first
    edge, minus the third axis), relative to the isotropic scale: 1, 0, 1 at rest and for every
    similar triangle. Triangles without area at rest have no deformation.
    """
    length, along, height = shape.unbind(-1)
    rest_length, rest_along, rest_height = rest.unbind(-1)
    isotropic = (length + height) / (rest_length + rest_height).clamp_min(_TINY)
    is_degenerate = (rest_length < 1e-9) | (rest_height < 1e-9) | (isotropic < 1e-9)
    factor = 1 / torch.where(is_degenerate, 1, isotropic)
    across = torch.where(is_degenerate, 1, length / rest_length.clamp_min(1e-9) * factor)
    up = torch.where(is_degenerate, 1, height / rest_height.clamp_min(1e-9) * factor)
    # The frame's third axis points away from the third corner.
    sheared = (rest_along * length / rest_length.clamp_min(1e-9) - along) * factor
    shear = torch.where(is_degenerate, 0, sheared / rest_height.clamp_min(1e-9))
    return torch.stack([across, shear, up], -1)


def inverse_stretch(stretch: Tensor) -> Tensor:
    """The deformation (..., 3) that undoes one."""
    across, shear, up = stretch.unbind(-1)
    return torch.stack([1 / across, -shear / (across * up), 1 / up], -1)


def largest_stretch(stretch: Tensor) -> Tensor:
    """(...) largest factor by which a vector can grow, at least 1; ``stretch`` is (..., 3)."""
    across, shear, up = stretch.unbind(-1)
    total = across.square() + shear.square() + up.square()
    root = (total.square() - 4 * (across * up).square()).clamp_min(0).sqrt()
    return ((total + root) / 2).sqrt().clamp_min(1)


def stretch_points(points: Tensor, stretch: Tensor) -> Tensor:
    """Points (N, 3) in the frames' axes, deformed by their triangles' stretch (N, 3)."""
    x, y, z = points.unbind(-1)
    across, shear, up = stretch.unbind(-1)
    return torch.stack([across * x + shear * z, y, up * z], -1)


def stretch_splats(
    rotations: Tensor,  # (N, 3, 3) columns: the splats' own axes, in the frames' axes
    scales: Tensor,  # (N, 3)
    stretch: Tensor,  # (N, 3)
) -> tuple[Tensor, Tensor, Tensor]:
    """Covariances after the deformation: rows (n,) it is seen at, their axes and scales.

    Axes (n, 3, 3) are proper rotations, scales (n, 3) standard deviations along them. Gradients
    reach the scales with the axes held, which is the whole first-order change of a covariance's
    eigenvalues; a turn of the axes themselves has no gradient, for it has none that is finite
    where a splat is round.
    """
    still = stretch.detach() - stretch.new_tensor([1.0, 0.0, 1.0])
    rows = (still.abs().amax(-1) > _VISIBLE_STRETCH).nonzero()[:, 0]
    arms = rotations[rows] * scales[rows][:, None, :]
    arms = stretch_points(arms.transpose(1, 2), stretch[rows][:, None, :]).transpose(1, 2)
    with torch.no_grad():
        axes = _eigenvectors(arms @ arms.transpose(1, 2))
    lengths = (axes.transpose(1, 2) @ arms).square().sum(-1).clamp_min(_TINY).sqrt()
    return rows, axes, lengths


def _eigenvectors(symmetric: Tensor) -> Tensor:
    """Columns of proper rotations (n, 3, 3) that diagonalise (n, 3, 3), by Jacobi's method.

    Plain arithmetic instead of LAPACK: the same bits for any number of threads.
    """
    a = [[symmetric[:, i, j] for j in range(3)] for i in range(3)]
    zero, one = torch.zeros_like(a[0][0]), torch.ones_like(a[0][0])
    v = [[one if i == j else zero for j in range(3)] for i in range(3)]
    for _ in range(_SWEEPS):
        for p, q, r in ((0, 1, 2), (0, 2, 1), (1, 2, 0)):
            apq = a[p][q]
            gap = a[q][q] - a[p][p]
            bound = gap.abs() + torch.sqrt(gap.square() + 4 * apq.square())
            tangent = 2 * apq * torch.where(gap < 0, -1.0, 1.0) / bound.clamp_min(_TINY)
            cosine = 1 / torch.sqrt(1 + tangent.square())
            sine = tangent * cosine
            a[p][p], a[q][q] = a[p][p] - tangent * apq, a[q][q] + tangent * apq
            a[p][q] = a[q][p] = zero
            arp, arq = a[r][p], a[r][q]
            a[r][p] = a[p][r] = cosine * arp - sine * arq
            a[r][q] = a[q][r] = sine * arp + cosine * arq
            for row in v:
                row[p], row[q] = cosine * row[p] - sine * row[q], sine * row[p] + cosine * row[q]
    return torch.stack([torch.stack(row, -1) for row in v], -2)
