"""Speed of the CPU splat rasterizer against a plain PyTorch loop over tiles.

Both render and differentiate the same head-like scene in the same process: forward, L1 loss,
backward with gradients for all splat parameters. Times are the best of several rounds, because
other work on the machine only ever adds to them; the ratio is what carries over to other machines.
How the cost grows is measured as processor time of one thread, which other work disturbs less.

    python benchmarks/rasterizer.py                  # the tables of docs/rendering.md, minutes
    python benchmarks/rasterizer.py --parts scale    # one of compare, scale, threads, compile
"""

from __future__ import annotations

import argparse
import importlib.util
import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import torch
from torch import Tensor

from fc4d_ray.rendering import rasterization

ROOT = Path(__file__).resolve().parents[1]
COVERAGE = 0.65
DISTANCE_M = 2.0
SEMI_AXES_M = (0.075, 0.11, 0.09)


@dataclass(frozen=True)
class Scene:
    """Splats on an ellipsoid shell that covers 65 % of a square image, white background."""

    splats: list[Tensor]
    viewmat: Tensor
    K: Tensor
    size: int
    target: Tensor

    @staticmethod
    def head_like(n_splats: int, size: int, n_channels: int = 3, seed: int = 0) -> Scene:
        """Spacing of the splats follows from their number; sigma is 0.6 of it."""
        g = torch.Generator().manual_seed(seed)
        a, b, c = SEMI_AXES_M
        p = 1.6075  # Knud Thomsen's approximation of an ellipsoid's surface
        surface = 4 * math.pi * (((a * b) ** p + (a * c) ** p + (b * c) ** p) / 3) ** (1 / p)
        direction = torch.nn.functional.normalize(torch.randn(n_splats, 3, generator=g), dim=-1)
        sigma = 0.6 * math.sqrt(surface / n_splats)
        splats = [
            direction * torch.tensor(SEMI_AXES_M),
            torch.randn(n_splats, 4, generator=g),
            sigma * torch.exp(0.3 * torch.randn(n_splats, 3, generator=g)),
            0.1 + 0.85 * torch.rand(n_splats, generator=g),
            torch.rand(n_splats, n_channels, generator=g),
        ]
        focal = math.sqrt(COVERAGE * size**2 / (math.pi * a * b)) * DISTANCE_M
        K = torch.tensor([[focal, 0, size / 2], [0, focal, size / 2], [0, 0, 1]])
        viewmat = torch.eye(4)
        viewmat[2, 3] = DISTANCE_M
        target = torch.rand(size, size, n_channels, generator=g)
        return Scene([t.requires_grad_(True) for t in splats], viewmat, K, size, target)

    def step(self, render: Callable[[Scene], Tensor]) -> None:
        """One training iteration without the optimiser."""
        for tensor in self.splats:
            tensor.grad = None
        (render(self) - self.target).abs().mean().backward()


def render_compiled(scene: Scene) -> Tensor:
    white = torch.ones(1, scene.target.shape[-1])
    views, Ks = scene.viewmat[None], scene.K[None]
    options = {"backgrounds": white, "packed": False}
    return rasterization(*scene.splats, views, Ks, scene.size, scene.size, **options)[0][0]


def render_torch(oracle: ModuleType, scene: Scene) -> Tensor:
    white = torch.ones(scene.target.shape[-1])
    size = scene.size
    ellipses = oracle.project(*scene.splats[:4], scene.viewmat, scene.K, size, size)
    return oracle.render_tiles(ellipses, scene.splats[4], white, size, size)[0]


def best_ms(
    work: Callable[[], None], rounds: int, clock: Callable[[], float] = time.perf_counter
) -> float:
    best = math.inf
    for _ in range(rounds):
        start = clock()
        work()
        best = min(best, clock() - start)
    return best * 1e3


def load_oracle() -> ModuleType:
    path = ROOT / "tests" / "rendering" / "oracle.py"
    spec = importlib.util.spec_from_file_location("splat_oracle", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def cold_compile_s() -> tuple[float, float]:
    """Processor seconds of the first step with an empty and with a filled kernel cache."""
    code = (
        "import sys, time; sys.path.insert(0, sys.argv[1])\n"
        "from rasterizer import Scene, render_compiled\n"
        "scene = Scene.head_like(100, 32); start = time.process_time()\n"
        "scene.step(render_compiled); print(time.process_time() - start)"
    )
    with tempfile.TemporaryDirectory() as cache:
        environment = os.environ | {"NUMBA_CACHE_DIR": cache, "PYTHONPATH": str(ROOT)}
        command = [sys.executable, "-c", code, str(Path(__file__).parent)]
        cold, warm = (
            float(subprocess.run(command, env=environment, capture_output=True, check=True).stdout)
            for _ in range(2)
        )
    return cold, warm


def compare(rounds: int) -> None:
    oracle = load_oracle()
    print("| splats, image | compiled, ms | PyTorch tiles, ms | ratio |\n|---|---|---|---|")
    for n_splats, size in ((10_000, 128), (10_000, 256), (50_000, 128), (50_000, 256)):
        scene = Scene.head_like(n_splats, size)
        with torch.no_grad():
            error = (render_compiled(scene) - render_torch(oracle, scene)).abs().max().item()
        if error > 1e-2:
            raise SystemExit(f"the two renderers disagree by {error:.3g}")
        compiled = best_ms(lambda scene=scene: scene.step(render_compiled), rounds)
        plain = best_ms(
            lambda scene=scene: scene.step(lambda s: render_torch(oracle, s)), max(3, rounds // 10)
        )
        compiled = min(compiled, best_ms(lambda scene=scene: scene.step(render_compiled), rounds))
        print(f"| {n_splats}, {size}² | {compiled:.1f} | {plain:.0f} | {plain / compiled:.0f} |")


def scale(rounds: int) -> None:
    """How a step grows with splats, pixels and channels, on one thread."""
    print("| splats | image | channels | processor time of a step, ms |\n|---|---|---|---|")
    available = torch.get_num_threads()
    torch.set_num_threads(1)
    cases = [(n, 256, 3) for n in (1_000, 10_000, 50_000, 100_000)]
    cases += [(10_000, size, 3) for size in (64, 128, 512)]
    cases += [(10_000, 256, n_channels) for n_channels in (6, 12)]
    for n_splats, size, n_channels in cases:
        scene = Scene.head_like(n_splats, size, n_channels)
        spent = best_ms(
            lambda scene=scene: scene.step(render_compiled), rounds, clock=time.thread_time
        )
        print(f"| {n_splats} | {size}² | {n_channels} | {spent:.1f} |")
    torch.set_num_threads(available)


def threads(rounds: int) -> None:
    """Elapsed time by number of threads, taken in turns so that all see the same load."""
    print("| threads | 50 000 splats, 256²: elapsed, ms |\n|---|---|")
    available = torch.get_num_threads()
    counts = sorted({1, 2, 4, 8, available} & set(range(available + 1)))
    scene = Scene.head_like(50_000, 256)
    best = dict.fromkeys(counts, math.inf)
    for _ in range(rounds):
        for count in counts:
            torch.set_num_threads(count)
            best[count] = min(best[count], best_ms(lambda: scene.step(render_compiled), 1))
    for count, spent in best.items():
        print(f"| {count} | {spent:.1f} |")
    torch.set_num_threads(available)


def main() -> None:
    names = ("compare", "scale", "threads", "compile")
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--parts", nargs="+", choices=names, default=names)
    parser.add_argument("--rounds", type=int, default=25, help="rounds to take the best of")
    arguments = parser.parse_args()
    print(f"{torch.get_num_threads()} threads, best of {arguments.rounds}")
    for name, part in (("compare", compare), ("scale", scale), ("threads", threads)):
        if name in arguments.parts:
            print()
            part(arguments.rounds)
    if "compile" in arguments.parts:
        cold, warm = cold_compile_s()
        print(f"\nFirst step: {cold:.1f} s of processor time, {warm:.2f} s with cached kernels")


if __name__ == "__main__":
    main()
