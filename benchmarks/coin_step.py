"""One COIN training step on the CPU, part by part.

The scene is the rasterizer benchmark's: splats on an ellipsoid that covers 65 % of the picture,
here bound to a mesh of 20,000 triangles and trained for real. Every part is timed forward and
backward by itself, best of several rounds, because other work on the machine only ever adds;
``step`` is what the trainer takes for everything together.

    python benchmarks/coin_step.py                  # the table of docs/avatar.md
    python benchmarks/coin_step.py --sizes 128 --splats 10000 --rounds 5
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from types import MappingProxyType

import numpy as np
import torch
from numpy.typing import NDArray
from quality_tables import markdown_table
from torch import Tensor

from fc4d_ray.avatar.binding import local_to_world
from fc4d_ray.avatar.coin import CoinConfig
from fc4d_ray.avatar.config import TrainConfig
from fc4d_ray.avatar.density import DensityConfig
from fc4d_ray.avatar.frames import Sample
from fc4d_ray.avatar.gaussians import Gaussians
from fc4d_ray.avatar.initialise import initialise_on_surface
from fc4d_ray.avatar.losses import pixel_loss
from fc4d_ray.avatar.splatting import rasterize, view_colours
from fc4d_ray.avatar.structure import make_structure_loss
from fc4d_ray.avatar.training import Training
from fc4d_ray.cameras import orbit_camera

SEMI_AXES_M = (0.075, 0.11, 0.09)
COVERAGE = 0.65
RADIUS_M = 2.0
PARTS = ("rasterizer", "network", "pixel loss", "optimiser")


class Ellipsoid:
    """A closed mesh with one parameter, ``stretch`` along y."""

    parameter_sizes: Mapping[str, int] = MappingProxyType({"stretch": 1})

    def __init__(self, n_rings: int = 100, n_columns: int = 100) -> None:
        polar, around = np.meshgrid(
            (np.arange(n_rings + 1) + 0.5) / (n_rings + 1) * math.pi,
            np.arange(n_columns) / n_columns * 2 * math.pi,
            indexing="ij",
        )
        unit = np.stack(
            [np.sin(polar) * np.sin(around), np.cos(polar), np.sin(polar) * np.cos(around)], -1
        )
        self.vertices = torch.from_numpy(unit.reshape(-1, 3) * SEMI_AXES_M).float()
        number = np.arange(unit.size // 3).reshape(n_rings + 1, n_columns)
        right = np.roll(number, -1, 1)
        a, b, c, d = number[:-1], right[:-1], number[1:], right[1:]
        quads = np.stack([a, c, d, a, d, b], -1).reshape(-1, 3)
        self.faces = torch.from_numpy(quads.astype(np.int64))

    def pose(self, parameters: Mapping[str, Tensor]) -> Tensor:
        factor = 1 + parameters["stretch"] * torch.tensor([0.0, 1.0, 0.0])
        return self.vertices * factor[:, None]


class NoiseFrames:
    """Pictures of random colours in memory; what they show does not change what a step costs."""

    reference_view = 0

    def __init__(self, size: int) -> None:
        fov_deg = math.degrees(2 * math.atan(_half_side_m() / RADIUS_M))
        self.views = [
            orbit_camera(azimuth, size=size, radius_m=RADIUS_M, fov_deg=fov_deg)
            for azimuth in (-30.0, 0.0, 30.0)
        ]
        self.parameters = {"stretch": torch.zeros(2, 1)}
        self.static_samples = [Sample(view, 0) for view in range(3)]
        self.animated_samples = [Sample(view, 1) for view in range(3)]
        random = np.random.default_rng(0)
        self._picture = random.integers(0, 256, (size, size, 4), np.uint8)

    def load(self, sample: Sample) -> NDArray[np.uint8]:
        """(S, S, 4)"""
        return self._picture


def _half_side_m() -> float:
    return 0.5 * math.sqrt(math.pi * SEMI_AXES_M[0] * SEMI_AXES_M[1] / COVERAGE)


def make_splats(mesh: Ellipsoid, n_splats: int) -> Gaussians:
    """Splats of random colours, evenly over the faces, with view dependence of degree 3."""
    generator = torch.Generator().manual_seed(0)
    barycentric = torch.rand(n_splats, 3, generator=generator) + 0.05
    a, b, c = SEMI_AXES_M
    area = 4 * math.pi * (((a * b) ** 1.6 + (a * c) ** 1.6 + (b * c) ** 1.6) / 3) ** (1 / 1.6)
    return initialise_on_surface(
        mesh.vertices, mesh.faces,
        torch.randint(0, len(mesh.faces), (n_splats,), generator=generator),
        barycentric / barycentric.sum(1, keepdim=True),
        torch.rand(n_splats, 3, generator=generator), math.sqrt(area / n_splats), sh_degree=3,
    )  # fmt: skip


def make_training(
    n_splats: int, size: int, coin: CoinConfig, device: str = "cpu", static_steps: int = 0
) -> Training:
    """A training at its beginning; without ``static_steps`` that of the COIN stage."""
    mesh = Ellipsoid()
    config = TrainConfig(
        static_steps=static_steps,
        coin_steps=90_000,
        coin=coin,
        density=DensityConfig(enabled=False),
        device=device,
    )
    structure = None
    if coin.structure_weight > 0:
        structure = make_structure_loss(coin.structure, None, device)
    return Training(mesh, NoiseFrames(size), make_splats(mesh, n_splats), config, 0, structure)


Clock = Callable[[], float]


def best_ms(work: Callable[[], None], rounds: int, clock: Clock) -> float:
    """Milliseconds of the quickest of several rounds after one to warm up."""
    work()
    times = []
    for _ in range(rounds):
        start = clock()
        work()
        times.append(clock() - start)
    return min(times) * 1e3


def parts_ms(
    n_splats: int, size: int, rounds: int, clock: Clock = time.perf_counter
) -> dict[str, float]:
    """Time of each part of a step, and of whole steps with several structural losses."""
    plain = CoinConfig(structure_weight=0)
    training = make_training(n_splats, size, plain)
    training.advance(Sample(0, 0))
    splats, camera = training.gaussians, training.source.views[0]
    frames = training.poses.frames(0).gather(splats.binding)
    world = local_to_world(splats.detached(), frames)
    leaves = [t.detach().requires_grad_() for t in (world.means, world.scales, world.opacities)]
    world = replace(world, means=leaves[0], scales=leaves[1], opacities=leaves[2])
    colours = view_colours(world, camera, 3).detach().clamp_min(0)
    both = torch.cat([colours, colours], 1).requires_grad_()
    six = torch.ones(size, size, 6)
    image = torch.rand(size, size, 3, requires_grad=True)
    target = torch.rand(size, size, 3)
    gradient = torch.ones(n_splats, 3)

    def rasterizer() -> None:
        rasterize(world, both, camera, torch.ones(6)).image.backward(six)

    def network() -> None:
        training.network(0, splats.sh0, training.code).backward(gradient)

    def pixels() -> None:
        pixel_loss(image, target, training.config.losses).backward()

    def optimiser() -> None:
        for tensor in training.optimiser.tensors.values():
            tensor.grad = torch.zeros_like(tensor) if tensor.grad is None else tensor.grad
        training.optimiser.step()

    work = dict(zip(PARTS, (rasterizer, network, pixels, optimiser), strict=True))
    found = {name: best_ms(part, rounds, clock) for name, part in work.items()}
    for name, label in (("gradient_pyramid", "pyramid"), ("lpips_random", "LPIPS")):
        loss = make_structure_loss(name, None)
        found[label] = best_ms(lambda loss=loss: loss(image, target).backward(), rounds, clock)
    found["step"] = best_ms(lambda: _steps(training, 3), max(rounds // 3, 1), clock) / 3
    for interval in (1, 4):
        coin = replace(
            plain, structure="lpips_random", structure_weight=0.05, structure_interval=interval
        )
        with_lpips = make_training(n_splats, size, coin)
        found[f"step, LPIPS every {interval}"] = (
            best_ms(lambda t=with_lpips: _steps(t, 4), max(rounds // 4, 1), clock) / 4
        )
    return found


def _steps(training: Training, count: int) -> None:
    for index in range(count):
        training.advance(Sample(index % 3, index % 2))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sizes", type=int, nargs="+", default=[128, 256])
    parser.add_argument("--splats", type=int, nargs="+", default=[10_000, 50_000])
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument(
        "--processor-time", action="store_true", help="count work, not waiting: busy machines"
    )
    arguments = parser.parse_args()
    clock = time.process_time if arguments.processor_time else time.perf_counter
    torch.set_num_threads(arguments.threads)
    header: list[str] = []
    lines = []
    for size in arguments.sizes:
        for n_splats in arguments.splats:
            found = parts_ms(n_splats, size, arguments.rounds, clock)
            rest = sum(found[name] for name in PARTS[1:]) / found["rasterizer"]
            header = ["splats, picture", *found, "(network … optimiser) / rasterizer"]
            values = [f"{value:.1f}" for value in found.values()]
            lines.append([f"{n_splats:,}, {size}²", *values, f"{rest:.2f}"])
    kind = "of processor time" if arguments.processor_time else "of time"
    print(f"{arguments.threads} threads, milliseconds {kind}, forward and backward\n")
    print(markdown_table(header, lines))


if __name__ == "__main__":
    main()
