"""Cameras, rays, look-ups and marching against the kit and against the facts known of PanoHead."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from fc4d_ray.priors.shape.panohead.generator import PanoHeadGenerator
from fc4d_ray.priors.shape.panohead.labels import (
    FOCAL,
    flip_label,
    label_rays,
    make_label,
    orbit_label,
    sampler_label,
)
from fc4d_ray.priors.shape.panohead.settings import GeneratorSettings, RaySettings
from fc4d_ray.priors.shape.panohead.trigrid import plane_features, split_planes
from fc4d_ray.priors.shape.panohead.volume_rendering import (
    importance_depths,
    interval_weights,
    render_rays,
    sample_piecewise,
)


@pytest.fixture(scope="module")
def geometry(kit: Path) -> dict[str, np.ndarray]:
    with np.load(kit / "geometry_seed0.npz") as arrays:
        return {name: arrays[name] for name in arrays.files}


def as_tensor(values: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(values)


def test_sampler_cameras(geometry) -> None:
    for yaw, pitch, radius, pivot, expected in zip(
        *(geometry[f"cam_{n}"] for n in ("yaw", "pitch", "radius", "pivot")),
        geometry["cam2world"],
        strict=True,
    ):
        label = sampler_label(np.pi / 2 + yaw, np.pi / 2 + pitch, radius, pivot)
        np.testing.assert_allclose(label[:16].reshape(4, 4), expected, atol=1e-5)


def test_frontal_camera_and_the_sides() -> None:
    front = orbit_label(0)[:16].reshape(4, 4)
    np.testing.assert_allclose(front[:3, 3], [0, 0, 2.7], atol=1e-6)
    np.testing.assert_allclose(front[:3, :3], np.diag([1.0, -1, -1]), atol=1e-6)
    np.testing.assert_allclose(orbit_label(90)[[3, 7, 11]], [2.7, 0, 0], atol=1e-6)
    np.testing.assert_allclose(orbit_label(180)[[3, 7, 11]], [0, 0, -2.7], atol=1e-6)
    assert np.rad2deg(2 * np.arctan(0.5 / FOCAL)) == pytest.approx(13.37, abs=0.005)


def test_the_samplers_pitch_is_no_elevation() -> None:
    position = sampler_label(np.pi / 2, np.pi / 2 - 0.2)[[3, 7, 11]]
    assert np.rad2deg(np.arcsin(position[1] / 2.7)) == pytest.approx(7.31, abs=0.01)


def test_flipping_mirrors_the_camera() -> None:
    flipped = flip_label(orbit_label(30, 10))
    np.testing.assert_allclose(flipped, orbit_label(-30, 10), atol=1e-6)


def test_rays_with_skew(geometry) -> None:
    K = as_tensor(geometry["ray_K"])
    label = torch.cat([as_tensor(geometry["ray_cam2world"]).flatten(1), K.flatten(1)], 1)
    origins, directions, cosines = label_rays(label, 8)
    np.testing.assert_allclose(directions, geometry["ray_dirs"], atol=2e-6)
    np.testing.assert_allclose(origins, geometry["ray_origins"][:, 0], atol=1e-6)
    forward = label[:, :16].view(4, 4)[:3, 2]
    np.testing.assert_allclose(cosines, directions @ forward, atol=1e-6)


def test_trigrid_axes_with_three_layers_and_with_one(geometry) -> None:
    points = as_tensor(geometry["grid_points"])
    stored = as_tensor(geometry["grid_planes"])
    for image, expected in (
        (stored, geometry["grid_features"]),
        (stored[:, :, :4], geometry["grid_features_depth1"]),
    ):
        depth = image.shape[2] // 4
        planes = split_planes(image.flatten(1, 2), depth)
        features = plane_features(planes, points, 1.0)
        np.testing.assert_allclose(features, expected, atol=1e-5)


def test_marching_and_importance_sampling(geometry) -> None:
    g = {name: as_tensor(values) for name, values in geometry.items() if values.dtype == np.float32}
    samples = sample_piecewise(g["pdf_bins"], g["pdf_weights"], 16)
    np.testing.assert_allclose(samples, g["pdf_samples"], atol=1e-5)
    fine = importance_depths(g["imp_depths"][..., 0], g["imp_weights"][..., 0], 16)
    np.testing.assert_allclose(fine, g["imp_samples"][..., 0], atol=1e-5)
    weights = interval_weights(g["march_sigma"][..., 0], g["march_depths"][..., 0])
    np.testing.assert_allclose(weights, g["march_weights"][..., 0], atol=1e-5)
    colours = (g["march_colors"][:, :, 1:] + g["march_colors"][:, :, :-1]) / 2
    np.testing.assert_allclose((weights[..., None] * colours).sum(2), g["march_rgb"], atol=1e-5)


class Ball:
    """A decoder stand-in: dense wherever the features say so."""

    def __init__(self, density: float) -> None:
        self.density = density

    def __call__(self, features: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return torch.full(features.shape[:-1], self.density), torch.ones(*features.shape[:-1], 32)


def march(origin: tuple, direction: tuple, density: float = 40.0):
    planes = torch.zeros(1, 3, 32, 1, 8, 8)
    origins = torch.tensor([[origin]])
    directions = torch.tensor([[direction]])
    return render_rays(planes, Ball(density), origins, directions, RaySettings())


def test_density_is_cropped_in_x_and_z_but_never_in_y() -> None:
    through = march((0.0, 0.0, 2.7), (0.0, 0.0, -1.0))
    spacing = 1.05 / 47
    assert float(through.distance) == pytest.approx(2.7 - 0.4, abs=2 * spacing)
    beside = march((0.41, 0.0, 2.7), (0.0, 0.0, -1.0))
    assert float(beside.opacity) == 0
    inside = march((0.39, 0.0, 2.7), (0.0, 0.0, -1.0))
    assert float(inside.opacity) > 0.99
    above = march((0.0, 0.49, 2.7), (0.0, 0.0, -1.0))
    assert float(above.opacity) > 0.99


def test_an_empty_ray_reports_the_largest_sample_depth() -> None:
    empty = march((0.0, 0.0, 2.7), (0.0, 0.0, -1.0), density=-1000.0)
    assert float(empty.opacity) == 0 and float(empty.distance) == float("inf")
    largest = 3.3 + 0.5 * 1.05 / 47
    assert float(empty.farthest) == pytest.approx(largest, abs=1e-5)
    assert float(empty.clamped_distance()) == pytest.approx(largest, abs=1e-5)


def test_the_mask_leaves_its_range_by_a_thousandth_and_depth_is_along_the_axis() -> None:
    torch.manual_seed(0)
    generator = PanoHeadGenerator(TINY).eval()
    label = torch.from_numpy(orbit_label(0))[None, None]
    with torch.no_grad():
        volume = generator.synthesize(torch.randn(1, TINY.latent_count, TINY.w_size))
        for bias, mask in ((-1000.0, -0.001), (1000.0, 1.001)):
            generator.decoder.net[2].weight[0] = 0
            generator.decoder.net[2].bias[0] = bias
            rendering = generator.render(volume, label, size=5)
            centre = rendering.mask[0, 0, 2, 2]
            assert rendering.mask.dtype == torch.float32
            assert float(centre) == pytest.approx(mask, abs=1e-6)
    ratio = rendering.z_depth / rendering.ray_distance
    corner = 1 / np.sqrt(1 + 2 * (0.4 / FOCAL) ** 2)
    assert float(ratio[0, 0, 0, 0]) == pytest.approx(corner, abs=1e-6)
    assert float(ratio[0, 0, 2, 2]) == pytest.approx(1, abs=1e-6)


def test_far_cameras_take_their_planes_along() -> None:
    """A camera at twice the distance with twice the focal length sees nearly the same surface."""
    torch.manual_seed(1)
    generator = PanoHeadGenerator(TINY).eval()
    near = orbit_label(20)
    far = orbit_label(20, radius=5.4)
    far[16] = far[20] = 2 * FOCAL
    with torch.no_grad():
        generator.decoder.net[2].weight[0] *= 4
        generator.decoder.net[2].bias[0] = -2
        volume = generator.synthesize(torch.randn(1, TINY.latent_count, TINY.w_size))
        labels = torch.from_numpy(np.stack([near, far]))[None]
        masks = generator.render(volume, labels, size=8).mask
    assert float(masks[0].std()) > 0.01
    assert float((masks[0] - masks[1]).abs().mean()) < 0.5 * float(masks[0].std())


def test_labels_carry_their_own_intrinsics() -> None:
    K = np.array([[3.0, 0.1, 0.4], [0, 3.1, 0.6], [0, 0, 1]])
    np.testing.assert_allclose(make_label(np.eye(4), K)[16:].reshape(3, 3), K, atol=1e-6)


TINY = GeneratorSettings(
    z_size=8,
    w_size=8,
    channel_base=64,
    channel_max=8,
    trigrid_size=16,
    output_size=32,
    superresolution_channels=(8, 8),
    neural_size=4,
    rays=RaySettings(coarse_samples=8, fine_samples=8),
)
