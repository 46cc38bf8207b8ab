from __future__ import annotations

import torch

from fc4d_ray.avatar.poses import PoseCache

CPU = torch.device("cpu")


class Counting:
    """A mesh that counts how often it is posed."""

    def __init__(self, mesh) -> None:
        self._mesh = mesh
        self.faces, self.parameter_sizes = mesh.faces, mesh.parameter_sizes
        self.count = 0

    def pose(self, parameters):
        self.count += 1
        return self._mesh.pose(parameters)


def test_fixed_poses_are_computed_once_and_without_a_graph(ellipsoid):
    mesh = Counting(ellipsoid)
    poses = PoseCache(mesh, {"stretch": torch.tensor([[0.0], [0.5]])}, CPU)
    first, second = poses.frames(0), poses.frames(1)
    assert poses.frames(0) is first
    assert mesh.count == 2
    assert not second.scale.requires_grad
    assert second.scale.mean() > first.scale.mean()


def test_refined_poses_follow_their_parameters_with_gradients(ellipsoid):
    stretch = torch.tensor([[0.0], [0.5]], requires_grad=True)
    poses = PoseCache(ellipsoid, {"stretch": stretch}, CPU)
    poses.frames(1).scale.sum().backward()
    assert stretch.grad[0] == 0
    assert stretch.grad[1] > 0
    before = poses.frames(1).scale.detach()
    with torch.no_grad():
        stretch[1] = 0.2
    assert (poses.frames(1).scale < before).any()


def test_neutral_is_zero_whatever_the_rows_say(ellipsoid):
    poses = PoseCache(ellipsoid, {"stretch": torch.tensor([[0.7]])}, CPU)
    radii = poses.neutral_vertices().norm(dim=1)
    torch.testing.assert_close(radii, torch.full_like(radii, ellipsoid.radius))
