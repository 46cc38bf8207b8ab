"""Where splats start: one per triangle, or on points of a textured surface."""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from torch import Tensor

from fc4d_ray.avatar.binding import face_frames, matrix_to_quaternion, quaternion_to_matrix
from fc4d_ray.avatar.gaussians import Gaussians
from fc4d_ray.avatar.spherical_harmonics import coefficient_count, rgb_to_dc
from fc4d_ray.avatar.stretch import inverse_stretch, stretch_of, stretch_points, stretch_splats

_NORMAL_AXIS = 1
"""Column of the face frame that is the normal (binding.FaceFrames.rotation)."""


def initialise(
    n_faces: int, *, sh_degree: int = 3, generator: torch.Generator, opacity: float = 0.1
) -> Gaussians:
    """One nearly grey splat in the middle of every face, as large as it (GaussianAvatars)."""
    return Gaussians(
        positions=torch.zeros(n_faces, 3),
        log_scales=torch.zeros(n_faces, 3),
        quats=_identity_quats(n_faces),
        opacity_logits=torch.full((n_faces,), _logit(opacity)),
        sh0=torch.rand(n_faces, 3, generator=generator) / 255,
        shN=torch.zeros(n_faces, coefficient_count(sh_degree) - 1, 3),
        binding=torch.arange(n_faces),
    )


def initialise_on_surface(
    vertices: Tensor,  # (V, 3) metres, any pose
    faces: Tensor,  # (F, 3) int64
    face_index: Tensor,  # (N,) int64
    barycentric: Tensor,  # (N, 3), weights of the face's corners in order
    colors: Tensor,  # (N, 3) within 0..1
    spacing: Tensor | float,  # (N,) or one value, metres between neighbouring points
    *,
    sh_degree: int = 0,
    opacity: float = 0.9,
    spread: float = 0.6,
    thickness: float = 0.1,
) -> Gaussians:
    """Flat splats on given points of a surface, with given colours.

    In the plane of its face a splat's standard deviation is ``spread`` spacings (0.6 leaves no
    gaps between neighbours and blurs little), along the normal ``thickness`` times that. Raises
    ``ValueError`` where a chosen face has no area, since nothing can be bound to it.
    """
    points = (vertices[faces[face_index]] * barycentric[..., None]).sum(1)
    frames = face_frames(vertices, faces).gather(face_index)
    axis_lengths = frames.rotation.square().sum(1)
    if bool((axis_lengths < 0.5).any()):
        raise ValueError("points to start splats from lie on faces without area")
    centred = (points - frames.centre)[:, None, :]
    positions = (centred @ frames.rotation).squeeze(1) / frames.scale[:, None]
    n = len(face_index)
    deviation = torch.as_tensor(spacing, dtype=positions.dtype, device=positions.device) * spread
    log_scales = (deviation.expand(n) / frames.scale).log()[:, None].repeat(1, 3)
    log_scales[:, _NORMAL_AXIS] += math.log(thickness)
    return Gaussians(
        positions=positions,
        log_scales=log_scales,
        quats=_identity_quats(n).to(positions),
        opacity_logits=torch.full_like(positions[:, 0], _logit(opacity)),
        sh0=rgb_to_dc(colors.to(positions)),
        shN=positions.new_zeros(n, coefficient_count(sh_degree) - 1, 3),
        binding=face_index.to(torch.int64),
    )


def folded_to_rest(gaussians: Gaussians, pose: Tensor, rest: Tensor) -> Gaussians:
    """Splats laid out in one pose, as they lie in their triangles at rest (affine attachment).

    ``pose`` and ``rest`` are (F, 3), the triangles' ``triangle_shape`` in either.
    """
    back = inverse_stretch(stretch_of(pose, rest))[gaussians.binding]
    scales, quats = gaussians.log_scales.exp(), gaussians.quats
    rows, axes, lengths = stretch_splats(quaternion_to_matrix(quats), scales, back)
    return replace(
        gaussians,
        positions=stretch_points(gaussians.positions, back),
        quats=quats.index_copy(0, rows, matrix_to_quaternion(axes)),
        log_scales=scales.index_copy(0, rows, lengths).log(),
    )


def _identity_quats(n: int) -> Tensor:
    return torch.tensor([1.0, 0.0, 0.0, 0.0]).repeat(n, 1)


def _logit(probability: float) -> float:
    return math.log(probability / (1 - probability))
