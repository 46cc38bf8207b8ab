from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from fc4d_ray.avatar.binding import face_frames, local_to_world, quaternion_to_matrix
from fc4d_ray.avatar.initialise import initialise, initialise_on_surface
from fc4d_ray.avatar.spherical_harmonics import dc_to_rgb


def test_one_splat_per_face_grey_and_as_large_as_the_face():
    gaussians = initialise(7, sh_degree=2, generator=torch.Generator().manual_seed(0))
    assert gaussians.binding.tolist() == list(range(7))
    assert gaussians.sh_degree == 2
    vertices = torch.randn(9, 3, generator=torch.Generator().manual_seed(1))
    faces = torch.tensor([[i, i + 1, i + 2] for i in range(7)])
    frames = face_frames(vertices, faces)
    world = local_to_world(gaussians, frames.gather(gaussians.binding))
    torch.testing.assert_close(world.means, frames.centre)
    torch.testing.assert_close(world.scales, frames.scale[:, None].expand(-1, 3))
    torch.testing.assert_close(world.opacities, torch.full((7,), 0.1))
    assert (dc_to_rgb(gaussians.sh0) - 0.5).abs().max() < 0.002


def test_surface_splats_sit_on_their_points_flat_along_the_normal():
    generator = torch.Generator().manual_seed(3)
    vertices = torch.randn(6, 3, generator=generator) * 0.05
    faces = torch.tensor([[0, 1, 2], [3, 4, 5], [2, 3, 0]])
    face_index = torch.tensor([0, 0, 1, 2, 2])
    barycentric = torch.rand(5, 3, generator=generator)
    barycentric /= barycentric.sum(1, keepdim=True)
    colors = torch.rand(5, 3, generator=generator)
    spacing = torch.tensor([0.001, 0.002, 0.001, 0.003, 0.001])
    gaussians = initialise_on_surface(
        vertices, faces, face_index, barycentric, colors, spacing, opacity=0.8, thickness=0.1
    )
    frames = face_frames(vertices, faces)
    world = local_to_world(gaussians, frames.gather(gaussians.binding))
    points = (vertices[faces[face_index]] * barycentric[..., None]).sum(1)
    torch.testing.assert_close(world.means, points, atol=1e-7, rtol=1e-5)
    torch.testing.assert_close(dc_to_rgb(gaussians.sh0), colors)
    torch.testing.assert_close(world.opacities, torch.full((5,), 0.8))
    corners = vertices[faces[face_index]]
    normal = torch.linalg.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    normal = normal / normal.norm(dim=1, keepdim=True)
    half = quaternion_to_matrix(world.quats) * world.scales[:, None, :]
    deviation_along_normal = (half * normal[:, :, None]).sum(1).norm(dim=1)
    np.testing.assert_allclose(deviation_along_normal, 0.06 * spacing, rtol=1e-3)
    np.testing.assert_allclose(world.scales.max(1).values, 0.6 * spacing, rtol=1e-4)


def test_points_on_faces_without_area_are_refused():
    vertices = torch.tensor([[0.0, 0, 0], [1, 0, 0], [2, 0, 0]])
    weights = torch.full((1, 3), 1 / 3)
    with pytest.raises(ValueError, match="without area"):
        initialise_on_surface(
            vertices, torch.tensor([[0, 1, 2]]), torch.tensor([0]), weights, weights, 0.1
        )


def test_a_single_spacing_serves_all_points():
    vertices = torch.tensor([[0.0, 0, 0], [1, 0, 0], [0, 1, 0]])
    gaussians = initialise_on_surface(
        vertices, torch.tensor([[0, 1, 2]]), torch.tensor([0, 0]), torch.eye(3)[:2],
        torch.zeros(2, 3), 0.5, sh_degree=1,
    )  # fmt: skip
    assert gaussians.shN.shape == (2, 3, 3)
    assert math.isclose(gaussians.log_scales[0, 0].exp().item(), 0.3, rel_tol=1e-5)
