from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from fc4d_ray.avatar.avatar import Avatar
from fc4d_ray.avatar.gaussians import Gaussians
from fc4d_ray.avatar.initialise import initialise
from fc4d_ray.cameras import orbit_camera
from fc4d_ray.errors import StoreError

CAMERA = orbit_camera(20.0, 10.0, size=48, radius_m=0.9, fov_deg=17)


@pytest.fixture
def avatar(ellipsoid) -> Avatar:
    generator = torch.Generator().manual_seed(0)
    gaussians = initialise(len(ellipsoid.faces), sh_degree=1, generator=generator, opacity=0.95)
    gaussians = replace(
        gaussians,
        log_scales=gaussians.log_scales - 0.7,
        sh0=torch.randn(gaussians.sh0.shape, generator=generator) * 0.5,
        shN=torch.randn(gaussians.shN.shape, generator=generator) * 0.1,
    )
    return Avatar(gaussians, ellipsoid, {"avatar_id": "abc", "licence": "CC0"})


def load(path, ellipsoid) -> Avatar:
    return Avatar.load(path, {"ellipsoid": type(ellipsoid)})


def test_saved_avatar_comes_back_whole_and_moves_alike(tmp_path, avatar, ellipsoid):
    path = avatar.save(tmp_path)
    again = load(tmp_path, ellipsoid)
    assert again.metadata == avatar.metadata
    pose = {"stretch": torch.tensor([0.25])}
    assert torch.equal(again.render(CAMERA, pose), avatar.render(CAMERA, pose))
    first = path.read_bytes()
    again.save(tmp_path)
    assert path.read_bytes() == first


def test_parameters_move_the_splats_and_missing_ones_are_zero(avatar):
    still, tall = avatar.splats({}), avatar.splats({"stretch": torch.tensor([[0.5]])})
    torch.testing.assert_close(tall.means[:, 1], 1.5 * still.means[:, 1])
    torch.testing.assert_close(still.means, avatar.splats({"stretch": torch.zeros(1)}).means)
    with pytest.raises(ValueError, match=r"unknown parameters \['jaw'\]"):
        avatar.splats({"jaw": torch.zeros(1)})
    with pytest.raises(ValueError, match="2 values, expected 1"):
        avatar.splats({"stretch": torch.zeros(2)})


def test_straight_alpha_composites_to_the_picture_over_a_background(avatar):
    straight = avatar.render(CAMERA, {})
    white = avatar.render(CAMERA, {}, background=(1.0, 1.0, 1.0))
    assert straight.shape == (48, 48, 4)
    alpha = straight[..., 3:]
    assert alpha[24, 24] > 0.9
    assert alpha[0, 0] == 0
    inside = straight[..., :3].amax(-1) < 1  # straight colours are clamped
    composed = straight[..., :3] * alpha + 1 - alpha
    torch.testing.assert_close(composed[inside], white[..., :3][inside], atol=1e-4, rtol=0)
    assert torch.equal(straight[0, 0], torch.zeros(4))


def test_damaged_and_foreign_files_are_refused_by_name(tmp_path, avatar, ellipsoid):
    with pytest.raises(StoreError, match="no avatar at"):
        load(tmp_path, ellipsoid)
    path = avatar.save(tmp_path)
    with pytest.raises(StoreError, match="'ellipsoid'; known"):
        Avatar.load(tmp_path)
    data = path.read_bytes()
    for keep in (0, 100, len(data) // 2):
        path.write_bytes(data[:keep])
        with pytest.raises(StoreError, match=r"rig\.npz"):
            load(tmp_path, ellipsoid)
    np.savez(path, format_version=np.array(99))
    with pytest.raises(StoreError, match="format 2 .found 99"):
        load(tmp_path, ellipsoid)


def test_bindings_outside_the_rig_are_refused(tmp_path, avatar, ellipsoid):
    binding = avatar.gaussians.binding.clone()
    binding[3] = 4000
    replace(avatar, gaussians=replace(avatar.gaussians, binding=binding)).save(tmp_path)
    with pytest.raises(StoreError, match="faces its rig does not have"):
        load(tmp_path, ellipsoid)


def test_misshapen_gaussians_are_refused():
    good = initialise(4, sh_degree=0, generator=torch.Generator()).learned()
    with pytest.raises(ValueError, match=r"log_scales is \(4, 2\)"):
        Gaussians(**good | {"log_scales": torch.zeros(4, 2)}, binding=torch.arange(4))
    with pytest.raises(ValueError, match="3 spherical"):
        Gaussians(**good | {"shN": torch.zeros(4, 2, 3)}, binding=torch.arange(4))
