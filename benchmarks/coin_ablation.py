"""COIN against plain training on views that contradict one another (paper section 3.4).

A synthetic person is drawn from a reference camera and 24 orbit ones, at rest and, from the frontal
eleven, acting. All views but the reference then get what a generative prior does to them: a tint, a
smooth field of wrong colour, a smooth displacement below a pixel and fine detail of their own, the
same in all frames of a view. Avatars trained on them are compared with the true person between the
training views, with the reference's look.

    python benchmarks/coin_ablation.py --out docs/coin_results.md      # three seeds, half an hour
    python benchmarks/coin_ablation.py --steps 60 240                  # a short schedule
    python benchmarks/coin_ablation.py --seeds 0 --steps 20 30         # a quick look
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from quality_tables import markdown_table
from torch import Tensor

from fc4d_ray.avatar.avatar import Avatar
from fc4d_ray.avatar.config import TrainConfig
from fc4d_ray.avatar.frames import Sample, WindowConfig
from fc4d_ray.avatar.gaussians import Gaussians
from fc4d_ray.avatar.initialise import initialise_on_surface
from fc4d_ray.avatar.surface_samples import (
    SurfaceSampleConfig,
    colours_from_views,
    interpolate_vertices,
    sample_surface,
    spacing_per_face,
    visible_faces,
)
from fc4d_ray.avatar.trainer import train_avatar
from fc4d_ray.cameras import Camera, orbit_camera, pixel_centres
from fc4d_ray.config import load_config
from fc4d_ray.evaluation.pictures import picture_figures
from fc4d_ray.evaluation.synthetic import SyntheticPerson, make_person
from fc4d_ray.heads.anny import load_anny_head
from fc4d_ray.heads.rig import HeadRig
from fc4d_ray.images import write_png
from fc4d_ray.rendering.mesh import vertex_normals

REFERENCE_DEG = (6.0, 4.0)
ORBIT_AZIMUTHS_DEG = tuple(range(-165, 181, 15))
ACTING_UP_TO_DEG = 75
HELD_OUT_DEG = ((-52.5, 8.0), (-22.5, -5.0), (-7.5, 8.0), (6.0, 4.0), (22.5, -5.0), (52.5, 8.0))
FOV_DEG = 9.0
MEASURED_ABOVE_M = -0.12
"""Figures are taken above this height: the cameras cut the shoulders off."""
ACTED: tuple[Mapping[str, float], ...] = (
    {},
    {"mouthSmileLeft": 0.8, "mouthSmileRight": 0.8},
    {"jawOpen": 0.5},
)
TINT, FIELD, DETAIL, SHIFT_PX = 0.05, 0.06, 0.04, 1.0
"""Standard deviations of the injected tint, colour field and fine detail (all 0…1) and of the
displacement, pixels of a 160 x 160 picture."""
SHIFT_REFERENCE_SIZE = 160
_SPACINGS = ("face_mm", "hair_mm", "body_mm")
FIGURES = ("psnr", "ssim", "detail_error", "detail_agreement", "sharpness")


@dataclass(frozen=True)
class Variant:
    """One way of training."""

    title: str
    coin: Mapping[str, Any]
    """Replaces values of the profile's ``coin`` section."""
    consistent: bool = False
    """Train on the true views: what the procedure reaches where nothing contradicts."""


VARIANTS = (
    Variant("consistent views, no offsets", {"enabled": False}, consistent=True),
    Variant("no offsets", {"enabled": False}),
    Variant("COIN, offset weight 1 (paper)", {"offset_weight": 1.0}),
    Variant("COIN, 0.1", {"offset_weight": 0.1}),
    Variant("COIN, 0.03", {"offset_weight": 0.03}),
    Variant("COIN, 0.03, place vectors", {"offset_weight": 0.03, "place_size": 16}),
    Variant(
        "COIN, 0.03, place vectors, embeddings 0.01",
        {"offset_weight": 0.03, "place_size": 16, "embedding_deviation": 0.01},
    ),
    Variant(
        "COIN, 0.03, place vectors, no structural loss",
        {"offset_weight": 0.03, "place_size": 16, "structure_weight": 0.0},
    ),
)
"""The paper's weight, then what the paper leaves open; docs/avatar.md says what decides."""

PAPER_COIN = {"structure_weight": 0.05, "embedding_deviation": 1.0, "place_size": 0}
"""Values of a variant that does not name them, whatever the embedded profile has."""


class Views:
    """A ``FrameSource`` of pictures in memory, by view and time."""

    reference_view = 0

    def __init__(
        self, views: Sequence[Camera], pictures: Mapping[Sample, NDArray], parameters: Tensor
    ) -> None:
        self.views = views
        self.parameters = {"actions": parameters, "neck": torch.zeros(len(parameters), 3)}
        self.static_samples = [sample for sample in pictures if sample.time == 0]
        self.animated_samples = [sample for sample in pictures if sample.time > 0]
        self._pictures = pictures

    def load(self, sample: Sample) -> NDArray[np.uint8]:
        """(H, W, 4) RGBA."""
        return self._pictures[sample]


@dataclass(frozen=True)
class HeldOut:
    """The truth from a camera that no training picture has."""

    camera: Camera
    time: int
    truth: NDArray[np.float32]  # [S, S, 3] on white
    head: NDArray[np.bool_]  # [S, S] where figures are taken: head and neck


@dataclass(frozen=True)
class Scene:
    """One person, drawn from everywhere."""

    person: SyntheticPerson
    rig: HeadRig
    views: list[Camera]
    true: dict[Sample, NDArray[np.uint8]]
    wrong: dict[Sample, NDArray[np.uint8]]
    depth: list[NDArray[np.float32]]
    """Of the views, at rest."""
    held_out: list[HeldOut]
    parameters: Tensor  # [T, 52]


def make_scene(
    seed: int,
    size: int,
    azimuths_deg: Sequence[float] = ORBIT_AZIMUTHS_DEG,
    detail: float = DETAIL,
) -> Scene:
    """The person of a seed with true and contradictory pictures; clips are of frontal views only.

    ``detail`` is the standard deviation of fine noise that a view has of its own.
    """
    person = make_person(seed, load_anny_head())
    rig = surface_rig(person)
    angles = [REFERENCE_DEG, *((float(azimuth), 0.0) for azimuth in azimuths_deg)]
    views = [orbit_camera(*angle, size=size, fov_deg=FOV_DEG) for angle in angles]
    parameters = torch.cat([rig.parameters_from_actions(a)["actions"] for a in ACTED])
    acted = parameters.numpy()
    true, depth = {}, []
    for view, camera in enumerate(views):
        is_frontal = abs(angles[view][0]) <= ACTING_UP_TO_DEG
        for frame in range(len(acted) if is_frontal else 1):
            true[Sample(view, frame)], z = person.render(camera, actions=acted[frame])
            if frame == 0:
                depth.append(z)
    random = np.random.default_rng([seed, 3])
    flaws = [None, *(Flaw.random(size, random, detail) for _ in views[1:])]
    wrong = {s: p if flaws[s.view] is None else flaws[s.view].apply(p) for s, p in true.items()}
    held_out = []
    for index, angle in enumerate(HELD_OUT_DEG):
        camera = orbit_camera(*angle, size=size, fov_deg=FOV_DEG)
        frame = index % len(acted)
        held_out.append(_held_out(person, camera, frame, acted[frame]))
    return Scene(person, rig, views, true, wrong, depth, held_out, parameters)


def _held_out(
    person: SyntheticPerson, camera: Camera, frame: int, actions: NDArray[np.floating]
) -> HeldOut:
    rgba, depth = person.render(camera, actions=actions)
    values = rgba.astype(np.float32) / 255
    truth = values[..., :3] * values[..., 3:] + 1 - values[..., 3:]
    points = camera.unproject(pixel_centres(camera.width, camera.height), depth)
    head = (values[..., 3] > 0.5) & (depth > 0) & (points[..., 1] > MEASURED_ABOVE_M)
    return HeldOut(camera, frame, truth, head)


def surface_rig(person: SyntheticPerson) -> HeadRig:
    """The person's surface, hair and clothing included, in the head model's coarser topology.

    What a good shape prior and tracker would give: the finer mesh begins with these vertices.
    """
    model = person.head_rig
    count = len(model.neutral)
    basis = np.stack([(person.resampling @ a)[:count] for a in model.action_basis])
    neutral = person.rest[:count].astype(np.float32)
    return replace(model, neutral=neutral, action_basis=basis.astype(np.float32))


@dataclass(frozen=True)
class Flaw:
    """How a view contradicts the others; the same in all of its frames."""

    colour: NDArray[np.float32]  # [S, S, 3] added
    source: NDArray[np.float32]  # [S, S, 2] pixel each pixel is taken from

    @staticmethod
    def random(size: int, random: np.random.Generator, detail: float = 0.0) -> Flaw:
        """Tint, colour field, displacement and fine noise of a view."""
        colour = TINT * random.standard_normal(3) + FIELD * _smooth_noise(size, 3, random)
        shift = SHIFT_PX * size / SHIFT_REFERENCE_SIZE * _smooth_noise(size, 2, random)
        if detail > 0:
            fine = cv2.GaussianBlur(random.standard_normal((size, size, 1)), (0, 0), 1.0)
            colour = colour + detail * (fine / fine.std())[..., None]
        grid = np.stack(np.meshgrid(np.arange(size), np.arange(size)), -1)
        return Flaw(colour.astype(np.float32), (grid + shift).astype(np.float32))

    def apply(self, rgba: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """The picture as this view has it."""
        values = rgba.astype(np.float32) / 255
        premultiplied = np.dstack([values[..., :3] * values[..., 3:], values[..., 3]])
        moved = cv2.remap(premultiplied, *np.moveaxis(self.source, -1, 0), cv2.INTER_LINEAR)
        alpha = moved[..., 3:]
        colour = moved[..., :3] / np.maximum(alpha, 1e-3) + self.colour
        result = np.dstack([colour.clip(0, 1), alpha])
        return np.rint(result * 255).astype(np.uint8)


def _smooth_noise(size: int, channels: int, random: np.random.Generator) -> NDArray[np.float64]:
    """(S, S, channels) of unit standard deviation, correlated over an eighth of the picture."""
    noise = random.standard_normal((size, size, channels))
    smooth = cv2.GaussianBlur(noise, (0, 0), size / 8)
    return smooth / smooth.std((0, 1))


def first_splats(
    scene: Scene, pictures: Mapping[Sample, NDArray], seed: int, surface: SurfaceSampleConfig
) -> Gaussians:
    """Splats on the surface with the mean colours of the training pictures at rest."""
    rig = scene.rig
    faces = torch.as_tensor(rig.faces).long()
    vertices = torch.from_numpy(rig.neutral)
    poses = [
        (rig.pose(rig.parameters_from_actions(actions))[0].numpy(), scene.views)
        for actions in ACTED
    ]
    landmarks = rig.landmarks(vertices).numpy()
    spacing = spacing_per_face(rig.neutral, rig.faces, rig.region, landmarks, surface)
    chosen = visible_faces(poses, rig.faces)
    samples = sample_surface(rig.neutral, rig.faces, spacing, chosen, seed)
    points = samples.points(rig.neutral, rig.faces)
    normals = interpolate_vertices(samples, vertex_normals(vertices, faces).numpy(), rig.faces)
    seen = [
        (camera, pictures[Sample(view, 0)], scene.depth[view], 1.0)
        for view, camera in enumerate(scene.views)
    ]
    colours = colours_from_views(points, normals, seen, np.full((len(points), 3), 0.5))
    return initialise_on_surface(
        vertices, faces, torch.from_numpy(samples.face_index),
        torch.from_numpy(samples.barycentric), torch.from_numpy(colours),
        torch.from_numpy(samples.spacing),
    )  # fmt: skip


def train_config(coin: Mapping[str, Any], static_steps: int, coin_steps: int) -> TrainConfig:
    """The embedded profile's training on whole pictures, with other values for COIN."""
    profile: TrainConfig = load_config("embedded").section("train").config
    return replace(
        profile,
        static_steps=static_steps,
        coin_steps=coin_steps,
        window=WindowConfig(),
        coin=replace(profile.coin, **{**PAPER_COIN, **coin}),
        checkpoint_interval_s=0,
    )


def evaluate(avatar: Avatar, scene: Scene) -> tuple[dict[str, float], NDArray[np.float32]]:
    """Mean figures over the held-out views, and the pictures (2 S, n S, 3) above the truth's."""
    figures, pairs = [], []
    for view in scene.held_out:
        actions = {"actions": scene.parameters[view.time]}
        rendered = avatar.render(view.camera, actions, background=(1.0, 1.0, 1.0))
        picture = rendered[..., :3].numpy()
        figures.append(picture_figures(picture, view.truth, view.head))
        pairs.append(np.vstack([picture, view.truth]))
    means = {name: fmean(f[name] for f in figures) for name in FIGURES}
    return means, np.hstack(pairs)


def run_seed(seed: int, arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """Every variant on one person."""
    start = time.monotonic()
    scene = make_scene(seed, arguments.size, detail=arguments.detail)
    surface = SurfaceSampleConfig(**dict(zip(_SPACINGS, arguments.spacing_mm, strict=True)))
    _say(f"seed {seed}: drew the person in {time.monotonic() - start:.0f} s")
    rows = []
    for variant in VARIANTS:
        start = time.monotonic()
        pictures = scene.true if variant.consistent else scene.wrong
        frames = Views(scene.views, pictures, scene.parameters)
        splats = first_splats(scene, pictures, seed, surface)
        config = train_config(variant.coin, *arguments.steps)
        result = train_avatar(scene.rig, frames, splats, config, seed)
        figures, sheet = evaluate(Avatar(result.gaussians, scene.rig), scene)
        seconds = time.monotonic() - start
        rows.append(
            {
                "seed": seed,
                "variant": variant.title,
                **figures,
                "n_splats": result.facts["n_splats"],
                "structure": result.facts["structure_loss"],
                "seconds": round(seconds, 1),
            }
        )
        if arguments.sheets is not None:
            name = f"seed{seed}-{VARIANTS.index(variant)}.png"
            write_png(arguments.sheets / name, np.rint(sheet * 255).astype(np.uint8))
        _say(f"seed {seed}: {variant.title}: {figures['psnr']:.2f} dB in {seconds:.0f} s")
    return rows


def ablation_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Means over the seeds, with the gain over training without offsets seed by seed."""
    seeds = sorted({row["seed"] for row in rows})
    by_key = {(row["variant"], row["seed"]): row for row in rows}
    header = ["training", "PSNR, dB", "SSIM", "detail error", "detail agreement", "sharpness"]
    header += ["PSNR gain by seed", "detail error by seed"]
    lines = []
    for variant in dict.fromkeys(row["variant"] for row in rows):
        mine = [by_key[variant, seed] for seed in seeds]
        gains = [
            by_key[variant, seed]["psnr"] - by_key["no offsets", seed]["psnr"] for seed in seeds
        ]
        means = {name: fmean(row[name] for row in mine) for name in FIGURES}
        lines.append(
            [
                variant,
                f"{means['psnr']:.2f}",
                *(f"{means[name]:.3f}" for name in FIGURES[1:]),
                ", ".join(f"{gain:+.2f}" for gain in gains),
                ", ".join(f"{row['detail_error']:.2f}" for row in mine),
            ]
        )
    return markdown_table(header, lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument(
        "--steps", type=int, nargs=2, default=[60, 2000], metavar=("STATIC", "COIN")
    )
    parser.add_argument("--size", type=int, default=96, help="side of the pictures")
    parser.add_argument("--detail", type=float, default=DETAIL, help="fine noise of each view")
    parser.add_argument("--spacing-mm", type=float, nargs=3, default=[6.0, 8.0, 12.0])
    parser.add_argument("--out", type=Path, metavar="FILE.md")
    parser.add_argument("--sheets", type=Path, metavar="DIR")
    arguments = parser.parse_args()
    rows = [row for seed in arguments.seeds for row in run_seed(seed, arguments)]
    structures = ", ".join(sorted({row["structure"] for row in rows} - {"none"}))
    title = (
        f"{len(arguments.seeds)} seeds, {arguments.size} x {arguments.size}, "
        f"{arguments.steps[0]} + {arguments.steps[1]} steps, structural loss "
        f"{structures}; held-out views at rest and acting"
    )
    text = f"# COIN against plain training\n\n{title}\n\n{ablation_table(rows)}\n"
    print(text)
    if arguments.out is not None:
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        arguments.out.write_text(text, encoding="utf-8")
        plain = json.dumps(rows, indent=1, sort_keys=True)
        arguments.out.with_suffix(".json").write_text(plain + "\n", encoding="utf-8")


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
