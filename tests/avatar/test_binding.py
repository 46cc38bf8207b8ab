from __future__ import annotations

import numpy as np
import pytest
import torch

from fc4d_ray.avatar.binding import (
    face_frames,
    local_to_world,
    matrix_to_quaternion,
    multiply_quaternions,
    quaternion_to_matrix,
)
from fc4d_ray.avatar.gaussians import Gaussians


def kit_gaussians(kit, dtype=torch.float64) -> Gaussians:
    def tensor(name: str) -> torch.Tensor:
        return torch.tensor(kit[f"bind.{name}"], dtype=dtype)

    n = len(kit["bind.binding"])
    return Gaussians(
        positions=tensor("local_xyz").requires_grad_(),
        log_scales=tensor("local_log_scale").requires_grad_(),
        quats=tensor("local_quat").requires_grad_(),
        opacity_logits=tensor("local_opacity_logit")[:, 0],
        sh0=torch.zeros(n, 3, dtype=dtype),
        shN=torch.zeros(n, 0, 3, dtype=dtype),
        binding=torch.tensor(kit["bind.binding"], dtype=torch.int64),
    )


def close(actual, expected, relative: float) -> None:
    actual = np.asarray(actual.detach() if isinstance(actual, torch.Tensor) else actual)
    scale = np.abs(expected).max()
    np.testing.assert_allclose(actual, expected, rtol=0, atol=relative * scale)


@pytest.mark.parametrize(
    ("dtype", "tolerance", "gradient_tolerance"),
    [(torch.float64, 1e-10, 1e-10), (torch.float32, 1e-5, 1e-4)],
)
def test_parity_of_frames_world_values_and_gradients(
    kit, fill, dtype, tolerance, gradient_tolerance
):
    vertices = torch.tensor(kit["bind.verts"], dtype=dtype, requires_grad=True)
    faces = torch.tensor(kit["bind.faces"], dtype=torch.int64)
    gaussians = kit_gaussians(kit, dtype)
    frames = face_frames(vertices, faces)
    close(frames.centre, kit["bind.face_center"], tolerance)
    close(frames.rotation, kit["bind.face_orien_mat"], tolerance)
    close(frames.scale, kit["bind.face_scaling"][:, 0], tolerance)
    expected_rotation = quaternion_to_matrix(torch.tensor(kit["bind.face_orien_quat_wxyz"]))
    close(quaternion_to_matrix(frames.quaternion), expected_rotation.numpy(), tolerance)

    world = local_to_world(gaussians, frames.gather(gaussians.binding))
    close(world.means, kit["bind.xyz"], tolerance)
    close(world.scales, kit["bind.scaling"], tolerance)
    rotation = quaternion_to_matrix(world.quats)
    close(
        rotation, quaternion_to_matrix(torch.tensor(kit["bind.rotation_wxyz"])).numpy(), tolerance
    )
    half = rotation * world.scales[:, None, :]
    covariance = half @ half.mT
    cov6 = covariance[:, [0, 0, 0, 1, 1, 2], [0, 1, 2, 1, 2, 2]]
    close(cov6, kit["bind.cov6"], tolerance)

    w1 = torch.tensor(fill("ga.loss.xyz", (500, 3), 0, "unit"), dtype=dtype)
    w2 = 10 * torch.tensor(fill("ga.loss.cov", (500, 6), 0, "unit"), dtype=dtype)
    loss = (w1 * world.means).sum() + (w2 * cov6).sum()
    np.testing.assert_allclose(loss.item(), kit["bind.loss"], rtol=tolerance)
    loss.backward()
    for name, gradient in {
        "verts": vertices.grad,
        "xyz": gaussians.positions.grad,
        "log_scale": gaussians.log_scales.grad,
        "quat": gaussians.quats.grad,
    }.items():
        expected = kit[f"bind.grad_{name}"]
        error = np.linalg.norm(gradient.numpy() - expected) / np.linalg.norm(expected)
        assert error < gradient_tolerance, name


@pytest.mark.parametrize("precision", [32, 64])
def test_parity_of_degenerate_triangles(kit, precision):
    dtype = getattr(torch, f"float{precision}")
    vertices = torch.tensor(kit["degenerate.verts"], dtype=dtype, requires_grad=True)
    frames = face_frames(vertices, torch.arange(27).view(9, 3))
    expected = kit[f"degenerate.orien_f{precision}"]
    below_eps = 4
    error = np.abs(frames.rotation.detach().numpy() - expected).max((1, 2))
    assert error[below_eps] < 1e-3
    assert np.delete(error, below_eps).max() < 1e-6
    np.testing.assert_allclose(
        frames.scale.detach(), kit[f"degenerate.scale_f{precision}"][:, 0], rtol=1e-5
    )
    (frames.rotation.sum() + frames.scale.sum() + frames.quaternion.sum()).backward()
    assert torch.isfinite(vertices.grad).all()


def test_quaternion_round_trip_covers_every_branch():
    generator = torch.Generator().manual_seed(0)
    quats = torch.randn(400, 4, generator=generator, dtype=torch.float64)
    quats = torch.cat([quats, torch.eye(4, dtype=torch.float64)])
    matrix = quaternion_to_matrix(quats)
    np.testing.assert_allclose(torch.linalg.det(matrix), 1, rtol=1e-12)
    np.testing.assert_allclose(
        quaternion_to_matrix(matrix_to_quaternion(matrix)), matrix, atol=1e-12
    )
    product = quaternion_to_matrix(multiply_quaternions(quats[:200], quats[200:400]))
    np.testing.assert_allclose(product, matrix[:200] @ matrix[200:400], atol=1e-12)


def test_frames_broadcast_over_time_and_follow_rigid_motion():
    generator = torch.Generator().manual_seed(1)
    vertices = torch.randn(12, 3, generator=generator, dtype=torch.float64)
    faces = torch.tensor([[0, 1, 2], [3, 4, 5], [6, 7, 8], [9, 10, 11]])
    turn = quaternion_to_matrix(torch.tensor([0.3, -0.2, 0.7, 0.1], dtype=torch.float64))
    moved = vertices @ turn.T + torch.tensor([0.1, 0.2, 0.3], dtype=torch.float64)
    frames = face_frames(torch.stack([vertices, moved]), faces)
    single = face_frames(vertices, faces)
    np.testing.assert_allclose(frames.rotation[0], single.rotation)
    np.testing.assert_allclose(frames.rotation[1], turn @ single.rotation, atol=1e-12)
    np.testing.assert_allclose(frames.scale[1], single.scale, atol=1e-12)


def test_gradients_of_the_whole_binding_against_finite_differences():
    generator = torch.Generator().manual_seed(2)

    def random(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64).requires_grad_()

    faces, binding = torch.tensor([[0, 1, 2], [2, 1, 3]]), torch.tensor([0, 1, 1])

    def world(vertices, positions, log_scales, quats):
        gaussians = Gaussians(
            positions, log_scales, quats, torch.zeros(3), torch.zeros(3, 3), torch.zeros(3, 0, 3),
            binding,
        )  # fmt: skip
        splats = local_to_world(gaussians, face_frames(vertices, faces).gather(binding))
        return splats.means, splats.scales, quaternion_to_matrix(splats.quats)

    inputs = (random(4, 3), random(3, 3), random(3, 3), random(3, 4))
    assert torch.autograd.gradcheck(world, inputs)
