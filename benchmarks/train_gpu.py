"""Training speed on one CUDA card: both stages at 512², and several trainings side by side.

Trains splats on a synthetic head (the ellipsoid of coin_step.py) with pictures in memory. The
figures are steps per second of the static and of the COIN stage, the card's memory, and what the
paper's 30,000 + 90,000 steps would take. Needs CUDA and gsplat (``pip install 'fc4d-ray[gpu]'``);
without them it says so and ends with status 2. The structural loss is LPIPS' network with random
weights, which costs what the released ones do.

    python benchmarks/train_gpu.py                        # 50k, 100k and 200k splats
    python benchmarks/train_gpu.py --splats 50000 --side-by-side 1 2 4 8
"""

from __future__ import annotations

import argparse
import importlib.util
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context

import torch
from coin_step import make_training
from quality_tables import markdown_table

from fc4d_ray.avatar.coin import CoinConfig
from fc4d_ray.avatar.frames import Sample
from fc4d_ray.avatar.training import Training

PAPER_STEPS = (30_000, 90_000)
_WARM_UP = 20


@dataclass(frozen=True)
class Speed:
    """Of one training."""

    static_per_s: float
    coin_per_s: float
    peak_gib: float

    @property
    def paper_minutes(self) -> float:
        """Time of the paper's schedule at this speed."""
        static, coin = PAPER_STEPS
        return (static / self.static_per_s + coin / self.coin_per_s) / 60


def why_not() -> str | None:
    """What is missing to measure anything, None where nothing is."""
    if not torch.cuda.is_available():
        return "no CUDA device: this benchmark measures a GPU and has nothing to say without one"
    if importlib.util.find_spec("gsplat") is None:
        return "gsplat is not installed: pip install 'fc4d-ray[gpu]'"
    return None


def measure(n_splats: int, size: int, steps: int, structure_interval: int) -> Speed:
    """Both stages, one after the other."""
    torch.cuda.reset_peak_memory_stats()
    coin = CoinConfig(structure="lpips_random", structure_interval=structure_interval)
    static = make_training(n_splats, size, coin, device="cuda", static_steps=10 * steps)
    static_per_s = steps_per_s(static, steps)
    with_offsets = make_training(n_splats, size, coin, device="cuda")
    coin_per_s = steps_per_s(with_offsets, steps)
    return Speed(static_per_s, coin_per_s, torch.cuda.max_memory_allocated() / 2**30)


def steps_per_s(training: Training, steps: int) -> float:
    """After some steps to warm up; the card is waited for at both ends."""
    _advance(training, _WARM_UP)
    start = time.perf_counter()
    _advance(training, steps)
    return steps / (time.perf_counter() - start)


def _advance(training: Training, steps: int) -> None:
    for index in range(steps):
        training.advance(Sample(index % 3, index % 2))
    torch.cuda.synchronize()


def side_by_side(count: int, n_splats: int, size: int, steps: int, interval: int) -> Speed:
    """``count`` processes on one card: the sum of their speeds and of their memory."""
    arguments = [[value] * count for value in (n_splats, size, steps, interval)]
    with ProcessPoolExecutor(count, mp_context=get_context("spawn")) as pool:
        speeds = list(pool.map(measure, *arguments))
    return Speed(
        sum(s.static_per_s for s in speeds),
        sum(s.coin_per_s for s in speeds),
        sum(s.peak_gib for s in speeds),
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--splats", type=int, nargs="+", default=[50_000, 100_000, 200_000])
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--steps", type=int, default=300, help="timed steps per stage")
    parser.add_argument("--structure-interval", type=int, default=1)
    parser.add_argument("--side-by-side", type=int, nargs="+", default=[], metavar="COUNT")
    arguments = parser.parse_args()
    if (reason := why_not()) is not None:
        print(reason, file=sys.stderr)
        raise SystemExit(2)
    rest = (arguments.size, arguments.steps, arguments.structure_interval)
    cases = [(1, n) for n in arguments.splats]
    cases += [(count, arguments.splats[0]) for count in arguments.side_by_side]
    lines = []
    for count, n_splats in cases:
        speed = measure(n_splats, *rest) if count == 1 else side_by_side(count, n_splats, *rest)
        lines.append(
            [
                f"{count}",
                f"{n_splats:,}",
                f"{speed.static_per_s:.1f}",
                f"{speed.coin_per_s:.1f}",
                f"{speed.peak_gib:.2f}",
                f"{speed.paper_minutes:.1f}",
            ]
        )
    print(f"{torch.cuda.get_device_name()}, {arguments.size}², torch {torch.__version__}\n")
    header = ["trainings", "splats", "static steps/s", "COIN steps/s", "GiB"]
    print(markdown_table([*header, "minutes per avatar's worth of steps"], lines))


if __name__ == "__main__":
    main()
