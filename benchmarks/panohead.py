"""PanoHead at its released size: seconds per view and per inversion step, with random weights.

On the CPU the figures stand beside the same arithmetic written naively (panohead_naive.py), in
seconds of CPU time on one thread, so that other processes disturb them little. With ``--gpu`` they
are those of one CUDA card: 24 views with depth at 512², whole inversions at upstream's step counts,
peak memory and portraits per batch; without a CUDA device it says so and ends with status 2.
The perceptual distance is LPIPS' VGG-16 with random weights, which costs what the released ones do.

    python benchmarks/panohead.py                 # CPU
    python benchmarks/panohead.py --gpu           # 512², 500 + 500 steps
    python benchmarks/panohead.py --gpu --portraits 1 2 4 8
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from panohead_naive import naive_arithmetic
from quality_tables import markdown_table
from torch import Tensor

from fc4d_ray.assets.lpips_network import load_lpips
from fc4d_ray.priors.shape.panohead.generator import PanoHeadGenerator, Precision
from fc4d_ray.priors.shape.panohead.inversion import Compute, Targets, invert, latent_statistics
from fc4d_ray.priors.shape.panohead.inversion_config import InversionConfig
from fc4d_ray.priors.shape.panohead.labels import orbit_label
from fc4d_ray.priors.shape.panohead.perceptual import PerceptualDistance
from fc4d_ray.priors.shape.panohead.settings import GeneratorSettings

PAPER_INVERSION_S = 120.0
_CHUNK = 1 << 18


def make_generator(device: str) -> PanoHeadGenerator:
    """The released sizes with random weights, its volume neither empty nor solid."""
    torch.manual_seed(0)
    generator = PanoHeadGenerator(GeneratorSettings()).eval().requires_grad_(False)
    generator.decoder.net[2].weight[0] *= 8
    return generator.to(device)


def labels(count: int, device: str) -> Tensor:
    """Cameras (1, count, 25) around the head."""
    around = [orbit_label(360 * i / count) for i in range(count)]
    return torch.from_numpy(np.stack(around))[None].to(device)


def perceptual(device: str) -> PerceptualDistance:
    return PerceptualDistance("lpips_vgg, random weights", load_lpips("vgg", None, device))


def measure_cpu(repetitions: int) -> dict[str, dict[str, float]]:
    """CPU seconds of each part, this code and the naive one, best of ``repetitions``."""
    torch.set_num_threads(1)
    generator = make_generator("cpu")
    camera = labels(1, "cpu")
    ws = torch.randn(1, generator.settings.latent_count, generator.settings.w_size)
    distance = perceptual("cpu")
    with torch.no_grad():
        volume = generator.synthesize(ws)
        shown = generator.render(volume, camera)
        target = distance.features(torch.zeros(1, 3, 512, 512))

    def first_view() -> None:
        with torch.no_grad():
            made = generator.synthesize(ws)
            generator.super_resolve(generator.render(made, camera), made)

    def further_view() -> None:
        with torch.no_grad():
            generator.super_resolve(generator.render(volume, camera), volume)

    def rendering() -> None:
        with torch.no_grad():
            generator.render(volume, camera)

    def super_resolution() -> None:
        with torch.no_grad():
            generator.super_resolve(shown, volume)

    def inversion_step() -> None:
        latent = ws.clone().requires_grad_()
        made = generator.synthesize(latent)
        image = generator.super_resolve(generator.render(made, camera), made)
        loss = 0.1 * image.square().mean() + distance.distance(image, target).sum()
        torch.autograd.grad(loss, latent)

    parts: dict[str, Callable[[], None]] = {
        "first view": first_view,
        "further view": further_view,
        "  volume rendering": rendering,
        "  super-resolution": super_resolution,
        "inversion step": inversion_step,
    }
    figures: dict[str, dict[str, float]] = {}
    for name, part in parts.items():
        ours, naive = [], []
        # The naive code knows no cache: each of its views is a first one.
        compared = first_view if name == "further view" else part
        for _ in range(repetitions):
            ours.append(_cpu_seconds(part))
            with naive_arithmetic():
                naive.append(_cpu_seconds(compared))
        figures[name] = {"ours": min(ours), "naive": min(naive)}
        print(f"{name}: {figures[name]}", file=sys.stderr, flush=True)
    return figures


def _cpu_seconds(part: Callable[[], None]) -> float:
    start = time.process_time()
    part()
    return time.process_time() - start


def measure_gpu(portraits: list[int], steps: int) -> list[list[str]]:
    """Rows of the table: kind, precision, seconds, peak memory."""
    rows = []
    generator = make_generator("cuda").to(memory_format=torch.channels_last)
    for name, precision in (
        ("float32", Precision()),
        ("float16 super-resolution", Precision(torch.float32, torch.float16)),
        ("bfloat16", Precision(torch.bfloat16, torch.bfloat16)),
    ):
        seconds, peak = _orbit_on_gpu(generator, precision)
        rows.append(["24 views + depth at 512²", name, f"{seconds:.2f}", f"{peak:.1f}"])
        for count in portraits:
            seconds, peak = _inversion_on_gpu(generator, precision, count, steps)
            title = f"inversion, {count} at a time, {steps} + {steps} steps, per portrait"
            rows.append([title, name, f"{seconds / count:.1f}", f"{peak:.1f}"])
    return rows


def _orbit_on_gpu(generator: PanoHeadGenerator, precision: Precision) -> tuple[float, float]:
    around = labels(24, "cuda")
    ws = torch.randn(1, generator.settings.latent_count, generator.settings.w_size, device="cuda")

    @torch.no_grad()
    def orbit() -> None:
        volume = generator.synthesize(ws, precision=precision)
        for views in around.split(8, 1):
            generator.super_resolve(generator.render(volume, views), volume, precision)
            generator.render(volume, views, size=512, ray_chunk=_CHUNK)

    orbit()
    return _gpu_seconds(orbit)


def _inversion_on_gpu(
    generator: PanoHeadGenerator, precision: Precision, count: int, steps: int
) -> tuple[float, float]:
    targets = Targets(torch.zeros(count, 3, 512, 512, device="cuda"), labels(count, "cuda")[0])
    options = InversionConfig(latent_steps=steps, tuning_steps=steps, patience=0)
    statistics = latent_statistics(generator, options.statistics_samples)
    compute = Compute(precision, compiled=True)

    def inversion(config: InversionConfig) -> None:
        found = invert(
            generator, targets, config, perceptual("cuda"), statistics=statistics, compute=compute
        )
        for _ in found:
            pass

    inversion(InversionConfig(latent_steps=3, tuning_steps=3, patience=0))
    return _gpu_seconds(lambda: inversion(options))


def _gpu_seconds(part: Callable[[], None]) -> tuple[float, float]:
    torch.cuda.reset_peak_memory_stats()
    torch.cuda.synchronize()
    start = time.perf_counter()
    part()
    torch.cuda.synchronize()
    return time.perf_counter() - start, torch.cuda.max_memory_allocated() / 2**30


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--gpu", action="store_true")
    parser.add_argument("--repetitions", type=int, default=2)
    parser.add_argument("--portraits", type=int, nargs="+", default=[1, 4])
    parser.add_argument("--steps", type=int, default=500, help="per phase of the inversion")
    parser.add_argument("--json", type=Path, help="also write the CPU's figures there")
    arguments = parser.parse_args()
    if arguments.gpu:
        if not torch.cuda.is_available():
            print("no CUDA device: nothing to measure", file=sys.stderr)
            raise SystemExit(2)
        rows = measure_gpu(arguments.portraits, arguments.steps)
        print(markdown_table(["what", "precision", "seconds", "peak GiB"], rows))
        print(f"\nThe paper names {PAPER_INVERSION_S:.0f} s for the inversion.")
        return
    figures = measure_cpu(arguments.repetitions)
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(figures, indent=1) + "\n")
    rows = [
        [name, f"{f['ours']:.2f}", f"{f['naive']:.2f}", f"{f['naive'] / f['ours']:.2f}"]
        for name, f in figures.items()
    ]
    print(markdown_table(["part", "CPU seconds", "naive", "times faster"], rows))


if __name__ == "__main__":
    main()
