from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from fc4d_ray.avatar.binding import WorldSplats
from fc4d_ray.avatar.formats.gaussian_avatars import read_gaussian_avatars, write_gaussian_avatars
from fc4d_ray.avatar.formats.world_ply import write_world_ply
from fc4d_ray.avatar.initialise import initialise
from fc4d_ray.errors import StoreError


@pytest.fixture
def gaussians():
    generator = torch.Generator().manual_seed(4)
    start = initialise(9, sh_degree=3, generator=generator)
    moved = {
        name: tensor + torch.randn(tensor.shape, generator=generator)
        for name, tensor in start.learned().items()
    }
    return replace(start, **moved, binding=torch.tensor([0, 10143, 5, 5, 7, 1, 2, 3, 9975]))


def test_round_trip_keeps_local_values_bindings_and_parameters(tmp_path, gaussians):
    parameters = {"expr": np.random.default_rng(0).normal(size=(4, 100)), "shape": np.ones(300)}
    write_gaussian_avatars(tmp_path / "a", gaussians, parameters)
    read, read_parameters = read_gaussian_avatars(tmp_path / "a")
    for name, tensor in gaussians.learned().items():
        assert torch.equal(getattr(read, name), tensor), name
    assert torch.equal(read.binding, gaussians.binding)
    np.testing.assert_array_equal(read_parameters["expr"], parameters["expr"].astype(np.float32))
    assert read_parameters["shape"].dtype == np.float32


def test_column_order_ends_with_the_binding(tmp_path, gaussians):
    write_gaussian_avatars(tmp_path, gaussians, {})
    header = (tmp_path / "point_cloud.ply").read_bytes().split(b"end_header")[0].decode()
    names = [line.split()[-1] for line in header.splitlines() if line.startswith("property")]
    assert len(names) == 63
    assert names[:9] == ["x", "y", "z", "nx", "ny", "nz", "f_dc_0", "f_dc_1", "f_dc_2"]
    assert names[-9:-1] == [
        "opacity",
        *(f"scale_{i}" for i in range(3)),
        *(f"rot_{i}" for i in range(4)),
    ]
    assert names[-1] == "binding_0"


def test_a_folder_without_parameters_or_binding(tmp_path, gaussians):
    write_gaussian_avatars(tmp_path, gaussians, {})
    (tmp_path / "flame_param.npz").unlink()
    assert read_gaussian_avatars(tmp_path)[1] == {}
    write_world_ply(
        tmp_path / "point_cloud.ply",
        WorldSplats(
            torch.zeros(1, 3), torch.ones(1, 4), torch.ones(1, 3), torch.full((1,), 0.5),
            torch.zeros(1, 3), torch.zeros(1, 0, 3),
        ),
    )  # fmt: skip
    with pytest.raises(StoreError, match="not bound"):
        read_gaussian_avatars(tmp_path)


def test_damaged_parameters_are_refused(tmp_path, gaussians):
    write_gaussian_avatars(tmp_path, gaussians, {"expr": np.zeros((1, 100))})
    path = tmp_path / "flame_param.npz"
    path.write_bytes(path.read_bytes()[:50])
    with pytest.raises(StoreError, match=r"flame_param\.npz"):
        read_gaussian_avatars(tmp_path)
