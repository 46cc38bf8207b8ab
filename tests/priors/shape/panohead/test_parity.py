"""Numbers of the published network with deterministic weights, stage by stage."""

from __future__ import annotations

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from fc4d_ray.priors.shape.panohead.generator import (
    HeadVolume,
    PanoHeadGenerator,
    Precision,
)
from fc4d_ray.priors.shape.panohead.labels import label_rays, move_camera
from fc4d_ray.priors.shape.panohead.trigrid import grid_coordinates, plane_features
from fc4d_ray.priors.shape.panohead.volume_rendering import (
    coarse_depths,
    importance_depths,
    interval_weights,
)

FORWARD = 1e-4
EXACT = 1e-5
GRADIENT = 1e-3


@pytest.fixture(scope="module")
def small(filled) -> SimpleNamespace:
    return filled("_small")


@pytest.fixture(scope="module")
def volume(small) -> HeadVolume:
    with torch.no_grad():
        return small.generator.synthesize(small.vectors["ws"][:1])


def error(found: torch.Tensor, expected: torch.Tensor) -> float:
    """max |a - b| / max |b|, the kit's measure."""
    assert found.shape == expected.shape
    return float((found - expected).abs().max() / expected.abs().max())


def check_mapping(generator: PanoHeadGenerator, v: dict[str, torch.Tensor]) -> None:
    z, label = v["z"], v["c_cond"]
    assert error(generator.latents(z, label), v["ws_psi1"]) < EXACT
    assert error(generator.latents(z, label, 0.7), v["ws"]) < EXACT
    assert error(generator.latents(z, label, 0.5, 4), v["ws_psi05_cutoff4"]) < EXACT
    offset = generator.camera_offset(z, label)
    assert error(offset, v["delta_c"]) < EXACT
    assert error(generator.camera_offset(z, label, 0.7), v["delta_c_psi07"]) < EXACT
    assert error(move_camera(label, offset), v["c_after_delta"]) < EXACT


def check_planes(generator: PanoHeadGenerator, volume: HeadVolume, v) -> None:
    """The kit stores the backbone's image: planes slowest, then features, then depth."""
    planes = volume.planes.flatten(1, 3)
    size = generator.settings.trigrid_size
    step, middle = size // 16, size // 2
    assert error(planes[:, :, step // 2 :: step, step // 2 :: step], v["planes_sub"]) < EXACT
    centre = planes[:, :, middle - 4 : middle + 4, middle - 4 : middle + 4]
    assert error(centre, v["planes_crop"]) < EXACT
    assert error(planes.mean((2, 3)), v["planes_mean"]) < EXACT
    assert error(planes.std((2, 3)), v["planes_std"]) < EXACT


@torch.no_grad()
def test_the_state_dict_has_the_released_names_in_order(small) -> None:
    state = small.generator.state_dict()
    assert list(state) == [key["name"] for key in small.keys]
    assert [list(t.shape) for t in state.values()] == [key["shape"] for key in small.keys]
    parameters = {name for name, _ in small.generator.named_parameters()}
    assert parameters == {key["name"] for key in small.keys if key["kind"] == "param"}


@torch.no_grad()
def test_mapping(small) -> None:
    check_mapping(small.generator, small.vectors)


@torch.no_grad()
def test_trigrid(small, volume) -> None:
    check_planes(small.generator, volume, small.vectors)


@torch.no_grad()
def test_points_in_the_trigrid(small, volume) -> None:
    v = small.vectors
    coordinates = grid_coordinates(v["points"], 1.0)[0]
    assert error(coordinates, v["point_grid_coords"]) < EXACT
    features = plane_features(volume.planes, v["points"], 1.0)
    assert error(features, v["point_plane_features"]) < EXACT
    density, colours = small.generator.decoder(features.mean(1))
    assert error(density[..., None], v["point_sigma"]) < EXACT
    assert error(colours, v["point_rgb"]) < EXACT


@torch.no_grad()
@pytest.mark.parametrize("camera", range(3))
def test_rays_and_both_passes(small, volume, camera: int) -> None:
    v, generator = small.vectors, small.generator
    label = v["c_render"][camera][None]
    origin, directions, _ = label_rays(label, generator.settings.neural_size)
    directions = directions[:, v["ray_sel"].long()]
    assert error(origin[0], v[f"ray_origin_{camera}"]) < EXACT
    assert error(directions[0], v[f"ray_dirs_{camera}"]) < EXACT
    depths = coarse_depths(generator.settings.rays, origin)
    assert error(depths, v["depths_coarse"]) < EXACT
    points = origin[:, None, None] + depths[None, None, :, None] * directions[:, :, None]
    features = plane_features(volume.planes, points.flatten(1, 2), 1.0).mean(1)
    density = generator.decoder(features)[0].view(directions.shape[1], -1)
    cropped = (points[0, ..., [0, 2]].abs() > 0.4).any(-1)
    density = density.masked_fill(cropped, -1000.0)
    weights = interval_weights(density, depths.expand_as(density))
    assert error(weights, v[f"weights_coarse_{camera}"]) < FORWARD
    fine = importance_depths(depths.expand_as(density), weights, 12)
    assert error(fine, v[f"depths_fine_{camera}"]) < FORWARD


@torch.no_grad()
@pytest.mark.parametrize("camera", range(3))
def test_rendering_and_image(small, volume, camera: int) -> None:
    v, generator = small.vectors, small.generator
    rendering = generator.render(volume, v["c_render"][camera][None, None])
    assert error(rendering.ray_distance, v[f"image_depth_{camera}"]) < FORWARD
    assert error(rendering.mask, v[f"image_mask_{camera}"]) < FORWARD
    assert error(rendering.features, v[f"feature_image_{camera}"]) < FORWARD
    assert error(rendering.raw, v[f"image_raw_{camera}"]) < FORWARD
    image = generator.super_resolve(rendering, volume)
    assert error(image, v[f"image_{camera}"]) < FORWARD


@torch.no_grad()
def test_many_cameras_in_chunks_equal_single_ones(small, volume) -> None:
    """One call over all cameras, marched in pieces: only empty rays know of each other."""
    v, generator = small.vectors, small.generator
    rendering = generator.render(volume, v["c_render"][None], ray_chunk=100)
    images = generator.super_resolve(rendering, volume)
    for camera in range(3):
        assert error(images[camera : camera + 1], v[f"image_{camera}"]) < FORWARD
        assert error(rendering.mask[camera : camera + 1], v[f"image_mask_{camera}"]) < FORWARD


@torch.no_grad()
def test_several_people_in_one_call(small) -> None:
    v, generator = small.vectors, small.generator
    volumes = generator.synthesize(v["ws"])
    rendering = generator.render(volumes, v["c_render"][[0, 2]][:, None])
    assert error(rendering.ray_distance, v["batch_image_depth"]) < FORWARD
    assert error(rendering.mask, v["batch_image_mask"]) < FORWARD
    assert error(rendering.raw, v["batch_image_raw"]) < FORWARD
    assert error(generator.super_resolve(rendering, volumes), v["batch_image"]) < FORWARD


@torch.no_grad()
def test_the_whole_forward_moves_the_camera(small) -> None:
    v = small.vectors
    image, rendering = small.generator(v["z"], v["c_cond"], truncation=0.7)
    assert error(rendering.ray_distance, v["forward_image_depth"]) < FORWARD
    assert error(rendering.mask, v["forward_image_mask"]) < FORWARD
    assert error(rendering.raw, v["forward_image_raw"]) < FORWARD
    assert error(image, v["forward_image"]) < FORWARD


@torch.no_grad()
def test_other_background_no_noise_and_another_neural_size(small, volume) -> None:
    v, generator = small.vectors, small.generator
    label = v["c_render"][:1][None]
    ws = v["ws"]
    swapped = generator.synthesize(ws[:1], background_ws=ws[1:])
    assert error(generator.render(swapped, label).raw, v["bcgswap_image_raw"]) < FORWARD
    silent = generator.synthesize(ws[:1], noise=False)
    rendering = generator.render(silent, label)
    assert error(rendering.raw, v["nonoise_image_raw"]) < FORWARD
    assert error(generator.super_resolve(rendering, silent), v["nonoise_image"]) < FORWARD
    finer = generator.render(volume, label, size=32)
    assert error(finer.ray_distance, v["nrr32_image_depth"]) < FORWARD
    assert error(generator.super_resolve(finer, volume), v["nrr32_image"]) < FORWARD


def test_gradients_of_latents_and_weights(small) -> None:
    v, generator = small.vectors, small.generator
    ws = v["ws"][:1].clone().requires_grad_()
    generator.requires_grad_(True).zero_grad()
    volume = generator.synthesize(ws)
    rendering = generator.render(volume, v["c_render"][1][None, None])
    image = generator.super_resolve(rendering, volume)
    loss = image.square().mean() + rendering.ray_distance.mean() + rendering.mask.square().mean()
    loss.backward()
    assert loss.item() == pytest.approx(float(v["grad_loss"]), rel=1e-5)
    assert error(ws.grad, v["grad_ws"]) < GRADIENT
    parameters = dict(generator.named_parameters())
    for name in (n for n in v if n.startswith("grad:")):
        assert error(parameters[name.removeprefix("grad:")].grad, v[name]) < GRADIENT, name
    for key, expected in zip(small.keys, v["grad_param_norm"], strict=True):
        gradient = getattr(parameters.get(key["name"]), "grad", None)
        if math.isnan(expected):
            assert gradient is None, key["name"]
        else:
            assert float(gradient.norm()) == pytest.approx(float(expected), rel=1e-3, abs=1e-7)
    generator.requires_grad_(False)


def test_gradient_of_z(small) -> None:
    v, generator = small.vectors, small.generator
    z = v["z"][:1].clone().requires_grad_()
    volume = generator.synthesize(generator.latents(z, v["c_cond"][:1]))
    rendering = generator.render(volume, v["c_render"][:1][None])
    loss = generator.super_resolve(rendering, volume).square().mean()
    loss.backward()
    assert loss.item() == pytest.approx(float(v["grad_z_loss"]), rel=1e-5)
    assert error(z.grad, v["grad_z"]) < GRADIENT


@torch.no_grad()
def test_half_precision_stays_close(small) -> None:
    v, generator = small.vectors, small.generator
    for dtype, bound in ((torch.bfloat16, 0.05), (torch.float16, 0.01)):
        precision = Precision(dtype, dtype)
        for ws, cameras in ((v["ws"][:1], [0]), (v["ws"], [0, 2])):
            volume = generator.synthesize(ws, precision=precision)
            rendering = generator.render(volume, v["c_render"][cameras][:, None])
            image = generator.super_resolve(rendering, volume, precision)
            assert image.dtype == torch.float32
            expected = v["image_0"] if len(cameras) == 1 else v["batch_image"]
            assert 0 < error(image, expected) < bound


@pytest.mark.slow
@torch.no_grad()
def test_the_full_network(filled) -> None:
    """The released size: every stage, the front camera's 512 px image included."""
    full = filled("")
    v, generator = full.vectors, full.generator
    assert list(generator.state_dict()) == [key["name"] for key in full.keys]
    assert sum(p.numel() for p in generator.parameters()) == 53_741_548
    check_mapping(generator, v)
    volume = generator.synthesize(v["ws"])
    check_planes(generator, volume, v)
    assert error(volume.background[:, :, 2::4, 2::4], v["bcg_image"]) < FORWARD
    for camera in range(3):
        rendering = generator.render(volume, v["c_render"][camera][None, None])
        for name, found in (
            ("image_depth", rendering.ray_distance),
            ("image_mask", rendering.mask),
            ("image_raw", rendering.raw),
            ("feature_image", rendering.features),
        ):
            wanted = v[f"{name}_{camera}"]
            misses = (found - wanted).abs() / wanted.abs().max()
            assert float(misses.flatten().quantile(0.999)) < FORWARD, name
            assert int((misses.amax(1) > FORWARD).sum()) <= 5, name
    front = generator.render(volume, v["c_render"][0][None, None])
    image = generator.super_resolve(front, volume)
    assert error(F.avg_pool2d(image, 4), v["image_area128_0"]) < FORWARD
    assert error(image[..., 224:288, 224:288], v["image_crop_mid_0"]) < FORWARD
    assert error(image[..., :32, :32], v["image_crop_corner_0"]) < FORWARD
    statistics = torch.stack([image.mean((0, 2, 3)), image.std((0, 2, 3))])
    np.testing.assert_allclose(statistics, v["image_stat_0"], atol=1e-4)
