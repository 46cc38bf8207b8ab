"""The inversion as an optimiser: on targets the generator can show, it finds them."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from fc4d_ray.errors import ConfigError, StageFailed, WeightsMissing
from fc4d_ray.priors.shape.panohead.generator import PanoHeadGenerator
from fc4d_ray.priors.shape.panohead.inversion import (
    InversionLoss,
    Targets,
    invert,
    latent_statistics,
    with_near_plane,
    with_offset,
)
from fc4d_ray.priors.shape.panohead.inversion_config import (
    InversionConfig,
    learning_rate,
    noise_scale,
)
from fc4d_ray.priors.shape.panohead.labels import orbit_label
from fc4d_ray.priors.shape.panohead.perceptual import make_perceptual
from fc4d_ray.priors.shape.panohead.settings import GeneratorSettings, RaySettings

SETTINGS = GeneratorSettings(
    z_size=16,
    w_size=16,
    channel_base=512,
    channel_max=16,
    trigrid_size=16,
    output_size=32,
    superresolution_channels=(8, 8),
    neural_size=8,
    rays=RaySettings(coarse_samples=10, fine_samples=8),
)
NONE = make_perceptual("none", None)


def random_generator(seed: int) -> PanoHeadGenerator:
    """Random weights whose volume is neither empty nor solid and differs between codes."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        generator = PanoHeadGenerator(SETTINGS).eval().requires_grad_(False)
    generator.decoder.net[2].weight[0] *= 8
    generator.decoder.net[2].bias[0] = -1
    generator.t_mapping.fc1.weight *= 0.01
    return generator


def depth(generator: PanoHeadGenerator, ws: torch.Tensor, labels: torch.Tensor):
    """z-depth and mask of one person from cameras (V, 25)."""
    with torch.no_grad():
        rendering = generator.render(generator.synthesize(ws), labels[None])
    return rendering.z_depth, rendering.mask > 0.5


@pytest.fixture(scope="module")
def scene() -> SimpleNamespace:
    """Two random codes seen by two random cameras."""
    generator = random_generator(2)
    rng = np.random.default_rng(5)
    drawn = [orbit_label(rng.uniform(-60, 60), rng.uniform(-10, 10)) for _ in range(2)]
    statistics = latent_statistics(generator, 2000)
    z = torch.from_numpy(rng.standard_normal((2, 16))).float()
    with torch.no_grad():
        labels = with_offset(generator, statistics, torch.from_numpy(np.stack(drawn)))
        front = torch.from_numpy(orbit_label(0)).expand(2, -1)
        ws = generator.latents(z, front)
        volume = generator.synthesize(ws)
        rendering = generator.render(volume, labels[:, None])
        images = generator.super_resolve(rendering, volume)
    return SimpleNamespace(
        generator=generator, statistics=statistics, ws=ws, targets=Targets(images, labels)
    )


@pytest.fixture(scope="module")
def inverted(scene) -> list:
    config = InversionConfig(latent_steps=90, tuning_steps=30, statistics_samples=2000)
    return list(
        invert(scene.generator, scene.targets, config, NONE, statistics=scene.statistics, seed=3)
    )


def test_the_latent_phase_finds_the_picture_and_its_depth(scene, inverted) -> None:
    with torch.no_grad():
        front = torch.from_numpy(orbit_label(0))[None]
        start = scene.generator.latents(scene.statistics.z_sorted[:1], front)
    for index, found in enumerate(inverted):
        assert found.latent_errors[-1] < 0.1 * found.latent_errors[0]
        camera = scene.targets.labels[index : index + 1]
        expected, seen = depth(scene.generator, scene.ws[index : index + 1], camera)
        first, _ = depth(scene.generator, start, camera)
        result, _ = depth(scene.generator, found.ws, camera)
        wrong_first = float((first - expected).abs()[seen].mean())
        wrong = float((result - expected).abs()[seen].mean())
        assert wrong < 0.5 * wrong_first and wrong < 0.03, "a quarter of the samples' spacing"


def test_tuning_halves_the_rest_without_spoiling_other_views(scene, inverted) -> None:
    around = torch.from_numpy(np.stack([orbit_label(a) for a in range(0, 360, 45)]))
    for index, found in enumerate(inverted):
        assert found.tuning_errors[0] == pytest.approx(found.latent_errors[-1], rel=0.1)
        assert found.tuning_errors[-1] < 0.5 * found.tuning_errors[0]
        expected, seen = depth(scene.generator, scene.ws[index : index + 1], around)
        before, _ = depth(scene.generator, found.ws, around)
        after, _ = depth(found.generator, found.ws, around)
        wrong_before = float((before - expected).abs()[seen].mean())
        wrong_after = float((after - expected).abs()[seen].mean())
        assert wrong_after < 1.1 * wrong_before + 0.002
        assert wrong_after < 0.03


def test_the_shared_generator_stays_as_it_was_and_mappings_are_not_tuned(scene, inverted) -> None:
    fresh = random_generator(2).state_dict()
    for name, value in scene.generator.state_dict().items():
        assert torch.equal(value, fresh[name]), name
    tuned = inverted[0].generator.state_dict()
    changed = {name for name in fresh if not torch.equal(tuned[name], fresh[name])}
    assert "backbone.synthesis.b16.conv1.weight" in changed and "decoder.net.2.weight" in changed
    assert not any("mapping" in name or "noise_const" in name for name in changed)


def test_a_portrait_comes_out_alone_as_in_a_batch(scene) -> None:
    config = InversionConfig(latent_steps=12, tuning_steps=2)
    options = {"statistics": scene.statistics}
    both = list(invert(scene.generator, scene.targets, config, NONE, seed=7, **options))
    second = Targets(scene.targets.images[1:], scene.targets.labels[1:])
    alone = next(invert(scene.generator, second, config, NONE, seed=8, **options))
    torch.testing.assert_close(alone.z, both[1].z, atol=1e-3, rtol=1e-3)
    assert alone.tuning_errors == pytest.approx(both[1].tuning_errors, rel=1e-2)


def test_several_starts_keep_the_best(scene) -> None:
    target = Targets(scene.targets.images[:1], scene.targets.labels[:1])
    config = InversionConfig(latent_steps=30, tuning_steps=0, starts=3, noise=0.0)
    found = next(invert(scene.generator, target, config, NONE, statistics=scene.statistics))
    assert found.generator is scene.generator
    assert len(found.latent_errors) == 30
    assert found.latent_errors[-1] < 0.3 * found.latent_errors[0]


def test_a_plateau_skips_to_the_ramp_down(scene) -> None:
    target = Targets(scene.targets.images[:1], scene.targets.labels[:1])
    config = InversionConfig(latent_steps=40, tuning_steps=30, patience=10, progress=0.9, noise=0.0)
    found = next(invert(scene.generator, target, config, NONE, statistics=scene.statistics))
    assert 15 < len(found.latent_errors) < 36, "the ramp down still runs"
    assert len(found.tuning_errors) < 30


def test_differences_outside_the_matte_can_be_left_out(scene) -> None:
    images = scene.targets.images[:1].clone()
    images[..., :8] = 30.0
    weights = torch.ones(1, 1, 32, 32)
    weights[..., :8] = 0
    config = InversionConfig(latent_steps=1, tuning_steps=0)
    errors = []
    for picture in (images, scene.targets.images[:1]):
        target = Targets(picture, scene.targets.labels[:1], weights)
        found = next(invert(scene.generator, target, config, NONE, statistics=scene.statistics))
        errors.append(found.latent_errors[0])
    assert errors[0] == pytest.approx(errors[1])


def test_a_diverging_inversion_says_so(scene) -> None:
    target = Targets(torch.full_like(scene.targets.images[:1], torch.nan), scene.targets.labels[:1])
    with pytest.raises(StageFailed, match="diverged"):
        next(invert(scene.generator, target, InversionConfig(latent_steps=3), NONE,
                    statistics=scene.statistics))  # fmt: skip


def test_the_near_plane_moves_for_the_copy_only(scene) -> None:
    other = with_near_plane(scene.generator, 2.35)
    assert other.settings.rays.near == 2.35 and scene.generator.settings.rays.near == 2.25
    assert other.decoder is scene.generator.decoder


def test_schedule_of_rate_and_noise(kit: Path) -> None:
    with np.load(kit / "geometry_seed0.npz") as arrays:
        steps, rates, noise = (arrays[f"sched_{n}"] for n in ("steps", "lr_500", "wnoise_500"))
    config = InversionConfig()
    for step, rate, scale in zip(steps, rates, noise, strict=True):
        assert learning_rate(step / 500, config) == pytest.approx(float(rate), abs=1e-12)
        assert noise_scale(step / 500, config) == pytest.approx(float(scale), abs=1e-12)


def test_the_spread_of_w_is_upstreams(scene) -> None:
    """One scalar: about sqrt(size) times a component's spread."""
    drawn = np.random.RandomState(123).randn(500, 16)
    front = torch.from_numpy(orbit_label(0)).expand(500, -1)
    with torch.no_grad():
        w = scene.generator.latents(torch.from_numpy(drawn).float(), front)[:, 0].double()
    expected = ((w - w.mean(0)).square().sum() / 500).sqrt()
    statistics = latent_statistics(scene.generator, 500)
    assert statistics.w_deviation == pytest.approx(float(expected), rel=1e-5)
    nearest = (w - w.mean(0)).square().sum(1).argmin()
    np.testing.assert_allclose(statistics.z_sorted[0], drawn[nearest], atol=1e-6)


def test_lpips_is_what_the_package_computes_and_takes_part() -> None:
    distance = make_perceptual("lpips_random", None)
    assert distance.name == "lpips_random"
    torch.manual_seed(0)
    a, b = torch.rand(2, 2, 3, 64, 64) * 2 - 1
    found = distance.distance(a, distance.features(b))
    torch.testing.assert_close(found, distance.network(a, b)[:, 0, 0, 0], rtol=1e-4, atol=1e-6)
    large = torch.rand(1, 3, 512, 512) * 2 - 1
    half = torch.nn.functional.avg_pool2d(large, 2)
    assert float(distance.distance(large, distance.features(half))) < 1e-6


def test_the_loss_is_upstreams_sum_and_reaches_the_latent() -> None:
    """0.1 times the squared error plus LPIPS, per portrait, with target features cached."""
    distance = make_perceptual("lpips_random", None)
    generator = torch.Generator().manual_seed(1)
    targets = torch.rand(2, 3, 64, 64, generator=generator) * 2 - 1
    images = (torch.rand(2, 3, 64, 64, generator=generator) * 2 - 1).requires_grad_()
    loss = InversionLoss(Targets(targets, torch.zeros(2, 25)), InversionConfig(), distance)
    found, error = loss(images)
    squared = (images - targets).square().mean((1, 2, 3))
    expected = 0.1 * squared + distance.network(images, targets)[:, 0, 0, 0]
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(error, squared)
    (gradient,) = torch.autograd.grad(found.sum(), images, retain_graph=True)
    (wanted,) = torch.autograd.grad(expected.sum(), images)
    torch.testing.assert_close(gradient, wanted, rtol=1e-3, atol=1e-6)
    second = loss.of(1)(images[1:])[0]
    torch.testing.assert_close(second, found[1:])


def test_missing_lpips_weights_are_named_and_nothing_takes_their_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FC4D_ASSETS", str(tmp_path))
    distance = make_perceptual("auto", None)
    assert not distance.is_available
    assert distance.name.startswith("unavailable: LPIPS needs")
    for name in ("lpips_vgg", "lpips_alex"):
        with pytest.raises(WeightsMissing, match="lpips-"):
            make_perceptual(name, str(tmp_path / "absent.pth"))


@pytest.mark.parametrize(
    ("option", "value"),
    [("latent_steps", 0), ("ramp_down", 0.0), ("background_weight", 1.5), ("near", 5.0),
     ("starts", 0), ("tuning_rate", 0.0), ("progress", 1.0)],
)  # fmt: skip
def test_impossible_options_are_refused_by_name(option: str, value: float) -> None:
    with pytest.raises(ConfigError, match=f"shape.inversion.{option}"):
        InversionConfig(**{option: value})


def test_a_loss_of_nothing_is_refused() -> None:
    with pytest.raises(ConfigError, match="mse_weight"):
        InversionConfig(mse_weight=0, perceptual="none")
