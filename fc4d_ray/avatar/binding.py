"""Splats ride on triangles: the triangle's frame, and local parameters to world ones.

Formulas of GaussianAvatars; the frame of a triangle is a centre c, a rotation R and one scalar
scale k, and a splat with local position x sits at ``k R x + c``. With ``affine`` attachment the
triangle's change of shape acts on the splat, too (stretch.py). Quaternions are wxyz.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from fc4d_ray.avatar.gaussians import Gaussians
from fc4d_ray.avatar.stretch import stretch_of, stretch_points, stretch_splats, triangle_shape

Attachment = Literal["similarity", "affine"]
"""How splats follow their triangle: turned and scaled by one number, or deformed as it is."""

_LENGTH_FLOOR = 1e-20
"""Floor of a squared length: zero vectors stay zero and their gradient is zero, not NaN."""


@dataclass(frozen=True)
class FaceFrames:
    """Local frames of F triangles; leading dimensions (...) are time steps."""

    centre: Tensor
    """(..., F, 3) mean of the corners, metres."""
    rotation: Tensor
    """(..., F, 3, 3); columns are the first edge, the face normal, and minus their third."""
    scale: Tensor
    """(..., F) metres: mean of the first edge's length and the height over it."""
    quaternion: Tensor
    """(..., F, 4) of ``rotation``; the sign is arbitrary."""
    stretch: Tensor | None = None
    """(..., F, 3) change of shape since rest (stretch.py); None for similarity attachment."""

    def relative_area(self) -> Tensor:
        """(..., F) areas of the triangles, times a factor of its own for each triangle."""
        if self.stretch is None:
            return self.scale.square()
        return self.scale.square() * self.stretch[..., 0] * self.stretch[..., 2]

    def gather(self, face_index: Tensor) -> FaceFrames:
        """Frames of the faces (N,) of a single time step, one row per entry."""
        return FaceFrames(
            self.centre[face_index],
            self.rotation[face_index],
            self.scale[face_index],
            self.quaternion[face_index],
            None if self.stretch is None else self.stretch[face_index],
        )


@dataclass(frozen=True)
class WorldSplats:
    """N splats as a rasterizer takes them; appearance stays in spherical harmonics."""

    means: Tensor
    """(N, 3) metres."""
    quats: Tensor
    """(N, 4) wxyz, unit length."""
    scales: Tensor
    """(N, 3) metres, linear."""
    opacities: Tensor
    """(N,) within 0..1."""
    sh0: Tensor
    """(N, 3)"""
    shN: Tensor
    """(N, K - 1, 3), for world directions."""


def face_frames(vertices: Tensor, faces: Tensor, rest: Tensor | None = None) -> FaceFrames:
    """Frames of the triangles ``faces`` (F, 3) of ``vertices`` (..., V, 3); differentiable.

    ``rest`` (F, 3) is the triangles' ``triangle_shape`` at rest, for affine attachment.
    Degenerate triangles give zero axes and a tiny scale, never NaN; their quaternion means nothing.
    """
    v0, v1, v2 = (vertices[..., faces[:, corner], :] for corner in range(3))
    edge, side = v1 - v0, v2 - v0
    a0 = _unit(edge)
    a1 = _unit(torch.linalg.cross(a0, side))
    a2 = -_unit(torch.linalg.cross(a1, a0))
    rotation = torch.stack([a0, a1, a2], -1)
    height = (a2 * side).sum(-1).abs()
    return FaceFrames(
        centre=(v0 + v1 + v2) / 3,
        rotation=rotation,
        scale=(_length(edge)[..., 0] + height) / 2,
        quaternion=matrix_to_quaternion(rotation),
        stretch=None if rest is None else stretch_of(triangle_shape(vertices, faces), rest),
    )


def local_to_world(gaussians: Gaussians, frames: FaceFrames) -> WorldSplats:
    """Splats of one time step in the world; ``frames`` holds one row per splat (``gather``).

    Gradients reach the local parameters and the frames. Spherical harmonics are not rotated: they
    take world directions.
    """
    positions, quats = gaussians.positions, F.normalize(gaussians.quats, dim=-1)
    scales = torch.exp(gaussians.log_scales)
    if frames.stretch is not None:
        positions = stretch_points(positions, frames.stretch)
        rows, axes, lengths = stretch_splats(quaternion_to_matrix(quats), scales, frames.stretch)
        quats = quats.index_copy(0, rows, matrix_to_quaternion(axes))
        scales = scales.index_copy(0, rows, lengths)
    offset = (frames.rotation * positions[:, None, :]).sum(-1)
    return WorldSplats(
        means=frames.scale[:, None] * offset + frames.centre,
        quats=multiply_quaternions(frames.quaternion, quats),
        scales=scales * frames.scale[:, None],
        opacities=torch.sigmoid(gaussians.opacity_logits),
        sh0=gaussians.sh0,
        shN=gaussians.shN,
    )


def multiply_quaternions(left: Tensor, right: Tensor) -> Tensor:
    """Hamilton product (..., 4): the rotation ``right`` first, then ``left``."""
    w, x, y, z = left.unbind(-1)
    a, b, c, d = right.unbind(-1)
    return torch.stack(
        [
            w * a - x * b - y * c - z * d,
            w * b + x * a + y * d - z * c,
            w * c - x * d + y * a + z * b,
            w * d + x * c - y * b + z * a,
        ],
        -1,
    )


def quaternion_to_matrix(quaternion: Tensor) -> Tensor:
    """(..., 3, 3) rotation of (..., 4) quaternions of any non-zero length."""
    w, x, y, z = F.normalize(quaternion, dim=-1).unbind(-1)
    entries = [
        1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y),
        2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x),
        2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y),
    ]  # fmt: skip
    return torch.stack(entries, -1).unflatten(-1, (3, 3))


def matrix_to_quaternion(matrix: Tensor) -> Tensor:
    """Quaternion (..., 4) of rotations (..., 3, 3), stable everywhere and differentiable.

    Four times the outer product of the quaternion with itself is linear in the matrix; the row
    with the largest diagonal entry, divided by that entry's root, is the quaternion.
    """
    m = matrix.flatten(-2).unbind(-1)
    xw, yw, zw = m[7] - m[5], m[2] - m[6], m[3] - m[1]
    xy, xz, yz = m[3] + m[1], m[2] + m[6], m[7] + m[5]
    ww, xx = 1 + m[0] + m[4] + m[8], 1 + m[0] - m[4] - m[8]
    yy, zz = 1 - m[0] + m[4] - m[8], 1 - m[0] - m[4] + m[8]
    outer = torch.stack(
        [ww, xw, yw, zw, xw, xx, xy, xz, yw, xy, yy, yz, zw, xz, yz, zz], -1
    ).unflatten(-1, (4, 4))
    largest = torch.stack([ww, xx, yy, zz], -1).argmax(-1, keepdim=True)
    row = outer.gather(-2, largest[..., None].expand(*largest.shape, 4)).squeeze(-2)
    return row / (2 * torch.sqrt(row.gather(-1, largest)))


def _length(vector: Tensor) -> Tensor:
    return torch.sqrt((vector * vector).sum(-1, keepdim=True).clamp_min(_LENGTH_FLOOR))


def _unit(vector: Tensor) -> Tensor:
    return vector / _length(vector)
