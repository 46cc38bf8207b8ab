from __future__ import annotations

import math
import sys
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from types import ModuleType

import pytest
import torch

from fc4d_ray.assets.tiny_diffusion import write_tiny_diffusion
from fc4d_ray.evaluation.synthetic import make_person
from fc4d_ray.priors.image.diffusion.backbone import DiffusionBackbone
from fc4d_ray.priors.image.diffusion.config import (
    DiffusionImageConfig,
    GateConfig,
    ModelConfig,
    WarpConfig,
)
from fc4d_ray.priors.image.diffusion.loading import check_fit

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.fixture
def benchmark(monkeypatch: pytest.MonkeyPatch):
    """Imports one of the benchmarks."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))

    def load(name: str) -> ModuleType:
        return import_module(name)

    return load


def test_the_gpu_benchmark_says_that_it_needs_a_gpu(benchmark, monkeypatch, capsys) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(sys, "argv", ["diffusion_gpu.py"])
    with pytest.raises(SystemExit) as ended:
        benchmark("diffusion_gpu").main()
    printed = capsys.readouterr()
    assert ended.value.code == 2
    assert printed.err.startswith("no CUDA device") and printed.out == ""


def test_the_gpu_benchmark_counts_rows_and_time(benchmark, tmp_path) -> None:
    """Its measurements, on the CPU with a tiny pipeline."""
    gpu = benchmark("diffusion_gpu")
    model = ModelConfig(base=str(write_tiny_diffusion(tmp_path / "base", "sdxl")), unet=None,
                        device="cpu")  # fmt: skip
    config = DiffusionImageConfig(
        model=model, size=64, profile="draft", steps=3, gates=GateConfig(retries=0)
    )
    backbone = DiffusionBackbone.load(config)
    one = gpu.measure(backbone, config, 1, plain=1.0)
    # Each of 24 views and the reference once up two levels (the back's three are fewer than 5).
    assert one.rows > 24 * 2 * 2 and one.rows_per_s > 0 and one.seconds_per_portrait > 0
    assert gpu.plain_rows_per_s(backbone, config) > 0
    assert gpu.table([one]).count("\n") == 2


@pytest.mark.parametrize(("kind", "billions"), [("sd15", 0.86), ("sdxl", 2.57)])
def test_the_gpu_benchmarks_networks_have_the_released_size(benchmark, kind, billions) -> None:
    """Built without memory: the settings fit each other, and the UNet counts as published."""
    pipeline = benchmark("diffusion_gpu").real_size_pipeline(kind, device="meta")
    parameters = list(pipeline.unet.parameters())
    assert sum(p.numel() for p in parameters) / 1e9 == pytest.approx(billions, abs=0.006)
    assert {p.dtype for p in parameters} == {torch.bfloat16}
    check_fit(pipeline, kind, Path("unet"))
    assert pipeline.vae.config.latent_channels == 4


@pytest.fixture(scope="module")
def person():
    return make_person(1)


def test_warps_are_truer_where_depth_is_and_smaller_where_the_angle_is(benchmark, person) -> None:
    accuracy = benchmark("warping_accuracy")
    scene = accuracy.make_scene(person, (15.0, 60.0), 160)
    clean = accuracy.measure(scene, accuracy.clean)
    noisy = accuracy.measure(scene, accuracy.worsenings()["noise 5 mm"])
    near, far = clean[15.0], clean[60.0]
    assert near.coverage > 0.6 > far.coverage > 0.1
    assert near.psnr > 24 and near.wrongly_accepted < 0.002
    assert noisy[15.0].psnr < near.psnr - 1
    assert noisy[15.0].coverage < near.coverage


def test_ray_distance_taken_for_depth_shows(benchmark, person) -> None:
    """With a near, wide lens the mistake is larger than the depth test lets pass."""
    accuracy = benchmark("warping_accuracy")
    scene = accuracy.make_scene(person, (15.0,), 160, accuracy.NEAR)
    config = replace(WarpConfig(), depth_tolerance=0.02)
    right = accuracy.measure(scene, accuracy.clean, config=config)[15.0]
    mixed_up = accuracy.measure(
        scene, accuracy.ray_for_axis, worsen_target=False, config=config
    )[15.0]  # fmt: skip
    assert mixed_up.coverage < 0.7 * right.coverage
    assert mixed_up.psnr is None or mixed_up.psnr < right.psnr


def test_no_trusted_pixels_give_no_figure(benchmark, person) -> None:
    accuracy = benchmark("warping_accuracy")
    scene = accuracy.make_scene(person, (90.0,), 64)
    nothing = replace(scene.source, depth=torch.zeros(64, 64))
    found = accuracy.measure(replace(scene, source=nothing), accuracy.clean)[90.0]
    assert found == accuracy.Accuracy(0.0, None, None)
    table = accuracy.table({"clean": dict.fromkeys(accuracy.ANGLES_DEG, found)})
    assert "0%, –" in table and not math.isnan(found.coverage)
