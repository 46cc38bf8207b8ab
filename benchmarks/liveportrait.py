"""Speed of LivePortrait's networks: one by one, batched, and what twelve views of eight clips take.

    python benchmarks/liveportrait.py --device cpu --batches 1 2 --pairs 2
    python benchmarks/liveportrait.py --device cuda --batches 1 8 16 32 --pairs 256 --compile

Weights are random and of the released sizes: time does not depend on their values. Per module the
published figures (RTX 4090, float16, compiled, one at a time) stand beside what is measured here;
batched and one-by-one rates come from the same run. `--out` writes all of it as JSON.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fc4d_ray.priors.video.liveportrait.animator import FaceAnimator, InferenceConfig, Sources
from fc4d_ray.priors.video.liveportrait.appearance import AppearanceExtractor
from fc4d_ray.priors.video.liveportrait.checkpoint import LivePortraitNetworks
from fc4d_ray.priors.video.liveportrait.decoder import SpadeDecoder, SpectralConv2d
from fc4d_ray.priors.video.liveportrait.framing import box_transform
from fc4d_ray.priors.video.liveportrait.keypoint_offsets import Perceptron
from fc4d_ray.priors.video.liveportrait.motion_extractor import MotionExtractor
from fc4d_ray.priors.video.liveportrait.view_crops import CropSheet
from fc4d_ray.priors.video.liveportrait.warping import WarpingModule, WarpSizes

PUBLISHED_MS = {"appearance": 0.82, "motion": 0.84, "warp": 5.21, "decode": 7.59}
"""Upstream's table: RTX 4090, float16, torch.compile, batch 1."""
PAIRS_PER_AVATAR = 12 * 8 * 100
GOAL_S = 60.0


def released_networks() -> LivePortraitNetworks:
    """Random networks of the released sizes."""
    torch.manual_seed(0)
    sizes = WarpSizes(21, 32, 16, 4, (64, 128, 256, 512, 1024), (512, 256, 128, 64, 32), 256)
    decoder = SpadeDecoder(256, (512, 256, 64), hidden=128)
    for module in decoder.modules():
        if isinstance(module, SpectralConv2d):
            nn.init.normal_(module.weight_orig, std=0.02)
            nn.init.ones_(module.weight_u)
            nn.init.normal_(module.weight_v)
    networks = LivePortraitNetworks(
        AppearanceExtractor([64, 128, 256], 32, 16, 6),
        MotionExtractor([3, 3, 9, 3], [96, 192, 384, 768], 21, 66),
        WarpingModule(sizes),
        decoder,
        Perceptron([126, 128, 128, 64, 65]),
        Perceptron([66, 256, 256, 128, 128, 64, 63]),
        Perceptron([65, 128, 128, 64, 63]),
    )
    for module in networks.modules:
        module.eval().requires_grad_(False)
    return networks


def views(animator: FaceAnimator, count: int) -> Sources:
    """Sources of random pictures that fill their crops."""
    rng = np.random.default_rng(0)
    pictures = [rng.integers(0, 255, (512, 512, 4), np.uint8) for _ in range(count)]
    whole = box_transform(np.array([0.0, 0.0, 512.0, 512.0]), animator.crop_size)
    sheet = CropSheet(pictures, [whole] * count, animator.crop_size, 512, animator.device)
    return animator.read_sources(sheet)


def seconds(call: Callable[[], Any], device: torch.device, repeats: int) -> tuple[float, float]:
    """Median wall and processor time of a call, the first one not counted.

    On a busy machine only processor time says something about a CPU run.
    """
    times = []
    for _ in range(repeats + 1):
        _synchronise(device)
        began, worked = time.perf_counter(), time.process_time()
        call()
        _synchronise(device)
        times.append((time.perf_counter() - began, time.process_time() - worked))
    wall, processor = np.median(np.array(times[1:]), 0)
    return float(wall), float(processor)


def modules_ms(animator: FaceAnimator, batch: int, repeats: int) -> dict[str, dict[str, float]]:
    """Milliseconds per item of each network at one batch size, by the wall and the processor."""
    nets, device = animator.networks, animator.device
    pictures = torch.rand(batch, 3, 256, 256, device=device)
    with torch.inference_mode(), animator._half():
        features = nets.appearance(pictures)
        keypoints = 0.3 * torch.randn(batch, 21, 3, device=device)
        source = nets.warping.prepare(features.float(), keypoints)
        warped = nets.warping(source, keypoints + 0.02)
        calls: dict[str, Callable[[], Tensor]] = {
            "appearance": lambda: nets.appearance(pictures),
            "motion": lambda: nets.motion(pictures).expression,
            "warp": lambda: nets.warping(source, keypoints + 0.02),
            "decode": lambda: animator._decoder(warped),
        }
        measured = {name: seconds(call, device, repeats) for name, call in calls.items()}
    scale = 1000 / batch
    return {
        name: {"wall": round(scale * wall, 3), "processor": round(scale * processor, 3)}
        for name, (wall, processor) in measured.items()
    }


def rate(animator: FaceAnimator, pairs: int, repeats: int) -> float:
    """Finished RGBA frames per second, from keypoints to bytes in main memory."""
    sources = views(animator, 2)
    keypoints = sources.faces.keypoints[:, None].expand(-1, (pairs + 1) // 2, -1, -1)
    count = 2 * keypoints.shape[1]

    def run() -> None:
        for _ in animator.frames(sources, keypoints):
            pass

    return count / seconds(run, animator.device, repeats)[0]


def measure(options: argparse.Namespace) -> dict[str, Any]:
    networks = released_networks()
    results = []
    for batch in options.batches:
        config = InferenceConfig(
            device=options.device,
            precision=options.precision,
            batch_size=batch,
            compile=options.compile,
        )
        animator = FaceAnimator(networks, config)
        figures: dict[str, Any] = {
            "batch": batch,
            "ms_per_item": modules_ms(animator, batch, options.repeats),
        }
        if not options.modules_only:
            figures["frames_per_second"] = round(rate(animator, options.pairs, options.repeats), 3)
            figures["avatar_s"] = round(PAIRS_PER_AVATAR / figures["frames_per_second"], 1)
        if animator.device.type == "cuda":
            figures["peak_gib"] = round(torch.cuda.max_memory_allocated() / 2**30, 2)
        results.append(figures)
        print(json.dumps(figures))
    rates = {f["batch"]: f["frames_per_second"] for f in results if "frames_per_second" in f}
    best = max(rates.values(), default=None)
    return {
        "device": _device_name(torch.device(config.resolved_device())),
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "precision": options.precision,
        "compiled": options.compile,
        "published_ms": PUBLISHED_MS,
        "results": results,
        "batched_over_single": best and 1 in rates and round(best / rates[1], 2),
        "pairs_per_avatar": PAIRS_PER_AVATAR,
        "goal_s": GOAL_S,
        "meets_goal": best and PAIRS_PER_AVATAR / best <= GOAL_S,
    }


def _synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="auto")
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 4])
    parser.add_argument("--pairs", type=int, default=8, help="Frames per timed run.")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--modules-only", action="store_true", help="Skip whole frames.")
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    figures = measure(options)
    print(json.dumps(figures, indent=1))
    if options.out:
        options.out.write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
