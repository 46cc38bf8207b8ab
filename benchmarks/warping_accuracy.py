"""How true a warped view is, by angle: synthetic people with true depth, and depth made worse.

The view at azimuth 0 is warped into views at 15, 30, 60 and 90 degrees, to both sides, by the image
prior's own compositing. Coverage is the share of the target head's pixels that are trusted; PSNR is
against the true view over these pixels. ``wrongly accepted`` is the share of trusted pixels whose
surface the source did not see, by a depth map of four times the resolution.

Depth is worsened as shape priors worsen it: a coarse grid, noise that is smooth over a few pixels,
and distance along the ray taken for depth along the axis (a mistake, not noise). Errors are of both
views' depth, each with its own noise. For the mistake the lens is put near and wide, where it
matters; at the paper's distance it shifts depth by a few millimetres only.

    python benchmarks/warping_accuracy.py --people 1 2 3
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from oracle_denoiser import true_view
from quality_tables import markdown_table
from torch import Tensor

from fc4d_ray.cameras import orbit_camera, view_name
from fc4d_ray.evaluation.oracle_denoiser import blurred
from fc4d_ray.evaluation.synthetic import SyntheticPerson, make_person
from fc4d_ray.priors.image.diffusion.compositing import SourceView, composite_view
from fc4d_ray.priors.image.diffusion.config import WarpConfig
from fc4d_ray.priors.image.diffusion.views import GuideView, Source
from fc4d_ray.rendering.mesh import rasterize_mesh
from fc4d_ray.warping import closest_depth, lift, project, resize_depth

ANGLES_DEG = (15.0, 30.0, 60.0, 90.0)
NEAR = {"radius_m": 0.55, "fov_deg": 45.0}
_SEEN_M = 0.004
_FINER = 4

Worsening = Callable[[GuideView, int], GuideView]


@dataclass(frozen=True)
class Accuracy:
    """Of one angle and kind of depth."""

    coverage: float
    psnr: float | None
    """dB over the trusted pixels, None where there are none."""
    wrongly_accepted: float | None


def clean(view: GuideView, seed: int) -> GuideView:
    return view


def coarse_grid(view: GuideView, seed: int, side: int = 128) -> GuideView:
    """Depth rendered on a grid of ``side`` pixels and brought up again."""
    factor = view.depth.shape[-1] // side
    start = factor // 2
    small = view.depth[start::factor, start::factor]
    return replace(view, depth=resize_depth(small, tuple(view.depth.shape), 0.02))


def noisy(view: GuideView, seed: int, deviation_m: float, grain_px: float = 3.0) -> GuideView:
    """Smooth noise with a standard deviation in metres."""
    generator = torch.Generator().manual_seed(seed)
    noise = blurred(torch.randn(1, *view.depth.shape, generator=generator), grain_px)[0]
    depth = view.depth + deviation_m * noise / noise.std()
    return replace(view, depth=torch.where(view.depth > 0, depth, 0.0))


def ray_for_axis(view: GuideView, seed: int) -> GuideView:
    """Distance along the ray where depth along the axis is meant."""
    K = view.camera.K
    x = (torch.arange(view.camera.width) + 0.5 - K[0, 2]) / K[0, 0]
    y = (torch.arange(view.camera.height) + 0.5 - K[1, 2]) / K[1, 1]
    stretch = (1 + x[None] ** 2 + y[:, None] ** 2).sqrt().float()
    return replace(view, depth=view.depth * stretch)


def worsenings() -> dict[str, Worsening]:
    """By the name of the table's row."""
    return {
        "clean": clean,
        "grid of 128 px": coarse_grid,
        "noise 2 mm": lambda view, seed: noisy(view, seed, 0.002),
        "noise 5 mm": lambda view, seed: noisy(view, seed, 0.005),
    }


@dataclass(frozen=True)
class Scene:
    """A person seen from the front and from the angles on both sides, all true."""

    source: GuideView
    targets: dict[float, tuple[GuideView, ...]]  # by angle
    seen: dict[str, Tensor]  # by target name, [S, S] bool: the source saw the surface


def make_scene(
    person: SyntheticPerson,
    angles_deg: Sequence[float],
    size: int,
    lens: Mapping[str, float] | None = None,
) -> Scene:
    """Render everything once. ``lens``: options of ``orbit_camera``."""
    lens = dict(lens or {})
    source = true_view(person, "front", 0.0, orbit_camera(0.0, size=size, **lens))
    fine = source.camera.resized(size * _FINER, size * _FINER)
    fine_depth = torch.from_numpy(rasterize_mesh(person.vertices(), person.faces, fine).z_depth)
    targets, seen = {}, {}
    for angle in angles_deg:
        sides = []
        for azimuth in (angle, -angle):
            camera = orbit_camera(azimuth, size=size, **lens)
            target = true_view(person, view_name(azimuth), azimuth, camera)
            pixels, distance = project(lift(target.depth, camera), fine)
            nearest = closest_depth(fine_depth, pixels, distance)
            close = ((nearest - distance).abs() < _SEEN_M) & (nearest > 0)
            seen[target.name] = close & (target.depth > 0)
            sides.append(target)
        targets[angle] = tuple(sides)
    return Scene(source, targets, seen)


def measure(
    scene: Scene, worsen: Worsening, *, worsen_target: bool = True, config: WarpConfig | None = None
) -> dict[float, Accuracy]:
    """Per angle, the mean of both sides."""
    given = SourceView(worsen(scene.source, 0), Source.REFERENCE)
    found = {}
    for angle, targets in scene.targets.items():
        sides = []
        for target in targets:
            shown = worsen(target, 1) if worsen_target else target
            made = composite_view(shown, [given], config or WarpConfig())
            sides.append(_accuracy(target, scene.seen[target.name], made.image, made.trusted))
        found[angle] = _mean(sides)
    return found


def _accuracy(target: GuideView, seen: Tensor, image: Tensor, trusted: Tensor) -> Accuracy:
    head = (target.depth > 0) & (target.alpha > 0.5)
    coverage = float((trusted & head).sum()) / max(float(head.sum()), 1.0)
    if not bool(trusted.any()):
        return Accuracy(coverage, None, None)
    error = float((image - target.image)[:, trusted].square().mean())
    wrong = float((trusted & ~seen).sum()) / float(trusted.sum())
    return Accuracy(coverage, float(-10 * np.log10(max(error, 1e-10))), wrong)


def _mean(sides: Sequence[Accuracy]) -> Accuracy:
    def mean(values: list[float | None]) -> float | None:
        known = [value for value in values if value is not None]
        return float(np.mean(known)) if known else None

    return Accuracy(
        float(np.mean([one.coverage for one in sides])),
        mean([one.psnr for one in sides]),
        mean([one.wrongly_accepted for one in sides]),
    )


def table(rows: dict[str, dict[float, Accuracy]]) -> str:
    """Coverage, PSNR and wrongly accepted share per angle."""
    header = ["depth", *(f"{angle:g}°" for angle in ANGLES_DEG)]
    lines = []
    for name, by_angle in rows.items():
        cells = []
        for angle in ANGLES_DEG:
            one = by_angle[angle]
            psnr = "–" if one.psnr is None else f"{one.psnr:.1f} dB"
            wrong = "" if one.wrongly_accepted is None else f", {one.wrongly_accepted:.2%} wrong"
            cells.append(f"{one.coverage:.0%}, {psnr}{wrong}")
        lines.append([name, *cells])
    return markdown_table(header, lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--people", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    people = [make_person(seed) for seed in arguments.people]

    def scenes(lens: Mapping[str, float] | None = None) -> list[Scene]:
        return [make_scene(one, ANGLES_DEG, arguments.size, lens) for one in people]

    def over(chosen: list[Scene], worsen: Worsening, **options: bool) -> dict[float, Accuracy]:
        each = [measure(scene, worsen, **options) for scene in chosen]
        return {angle: _mean([one[angle] for one in each]) for angle in ANGLES_DEG}

    orbit, near = scenes(), scenes(NEAR)
    rows = {name: over(orbit, worsen) for name, worsen in worsenings().items()}
    rows["near and wide lens, clean"] = over(near, clean)
    rows["near and wide lens, the source's ray distance taken for z"] = over(
        near, ray_for_axis, worsen_target=False
    )
    print(table(rows))
    if arguments.json:
        plain = {
            name: {f"{angle:g}": vars(one) for angle, one in by_angle.items()}
            for name, by_angle in rows.items()
        }
        arguments.json.write_text(json.dumps(plain, indent=1))


if __name__ == "__main__":
    main()
