"""How well the multi-view tracker recovers synthetic people, for both head models.

Twelve views of forty frames are filmed of heads the models cannot express (other topology, relief,
hair, clothing, lamp) and tracked from cameras that are told slightly wrong: with clean pictures,
with views that each bend and tint the head their own way, and with a third of the views without
landmarks. FLAME files come from a synthetic builder with the true shapes, because the licensed
ones cannot be shipped: ``--flame-builder`` names it.

    python benchmarks/tracking_recovery.py --out docs/tracking_results.json
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import platform
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch

from fc4d_ray.evaluation.synthetic import make_person
from fc4d_ray.evaluation.synthetic_clips import (
    Film,
    FilmedHead,
    Flaws,
    clip_cameras,
    film,
    filmed_flame,
    filmed_person,
)
from fc4d_ray.heads.anny import load_anny_head
from fc4d_ray.heads.flame import FlameModel
from fc4d_ray.heads.flame_files import FlameFiles
from fc4d_ray.heads.flame_landmarks import LandmarkEmbedding
from fc4d_ray.heads.flame_teeth import FlameArrays
from fc4d_ray.heads.trackable import TrackableHead, trackable_anny, trackable_flame
from fc4d_ray.priors.video.motion import load_clip
from fc4d_ray.tracking.multiview import MultiviewTrack, track_multiview
from fc4d_ray.tracking.multiview_config import MultiviewConfig

BUILDER = Path(__file__).resolve().parents[1].parent / "shared/parity/flame/synthetic.py"
CONDITIONS = {
    "clean": Flaws(),
    "inconsistent": Flaws(view_bend_m=0.0012, view_tint=0.04),
    "third_blind": Flaws(blind_views=(0, 1, 9, 10)),
}
GOALS = {"clean": 1.0, "inconsistent": 2.0, "third_blind": 2.0}
NOMINAL_EYES_M = 0.09
"""Outer eye distance where a model's landmarks mean nothing (the synthetic FLAME's)."""
_FLAME_IDENTITY, _FLAME_EXPRESSION = 100, 50


@dataclass(frozen=True)
class Recovery:
    """One tracked clip against its truth."""

    head: str
    condition: str
    seed: int
    vertex_mm: float
    """Mean distance of the face's vertices from the true ones, nothing aligned."""
    vertex_p95_mm: float
    expression_mm: float
    """The same of what changes from frame to frame."""
    jaw_error: float
    """anny: the mouth's opening in mm; FLAME: the jaw's angle in degrees."""
    reprojection_percent: float
    """Mean distance of landmarks in sight from the true ones, of the outer eye distance."""
    photometric_error: float
    seconds: float
    seconds_per_frame_view: float


@dataclass(frozen=True)
class Scene:
    """A head to track and what is true of it."""

    trackable: TrackableHead
    filmed: FilmedHead
    eyes_m: float
    jaw_rad: np.ndarray | None  # [T] FLAME's own


def anny_scene(seed: int, n_frames: int) -> Scene:
    """A synthetic person acting a shipped clip, nodding a little."""
    head = load_anny_head()
    clip = load_clip("mixed")
    rows = np.linspace(0, clip.n_frames - 1, n_frames).astype(int)
    motion = np.zeros((n_frames, 6))
    motion[:, :3] = 0.5 * clip.neck[rows]
    motion[:, 3] = 0.004 * np.sin(np.arange(n_frames) / 5)
    filmed = filmed_person(make_person(seed, head), clip.actions[rows], motion)
    eyes = float(np.linalg.norm(filmed.landmarks[0, 36] - filmed.landmarks[0, 45]))
    return Scene(trackable_anny(head), filmed, eyes, None)


def flame_scene(seed: int, n_frames: int, builder: Path) -> Scene:
    """The synthetic FLAME with random identity and a smooth random performance."""
    files = synthetic_flame(builder, 0)
    random = np.random.default_rng([seed, 21])
    t = np.arange(n_frames)[:, None]

    def waves(size: int, strength: float) -> np.ndarray:
        phase, speed = random.uniform(0, 2 * np.pi, size), random.uniform(0.1, 0.35, size)
        return strength * np.sin(speed * t + phase)

    jaw = np.zeros((n_frames, 3))
    jaw[:, 0] = 0.12 + waves(1, 0.12)[:, 0]
    parameters = {
        "expr": waves(_FLAME_EXPRESSION, 0.6),
        "rotation": waves(3, 0.05),
        "neck": waves(3, 0.08),
        "jaw": jaw,
        "eyes": np.zeros((n_frames, 6)),
        "translation": waves(3, 0.004),
    }
    model = FlameModel.from_arrays(files.arrays, 300, _FLAME_EXPRESSION)
    shape = 0.8 * random.standard_normal(300)
    filmed = filmed_flame(model, files.landmarks, shape, parameters, seed)
    trackable = trackable_flame(files, _FLAME_IDENTITY, _FLAME_EXPRESSION)
    return Scene(trackable, filmed, NOMINAL_EYES_M, jaw[:, 0])


def synthetic_flame(builder: Path, seed: int) -> FlameFiles:
    """FLAME files without FLAME: true shapes and keys, closed-form geometry."""
    spec = importlib.util.spec_from_file_location("flame_synthetic", builder)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    model = module.build(seed)
    arrays = FlameArrays(
        model["v_template"], model["f"].astype(np.int64), model["shapedirs"], model["posedirs"],
        model["J_regressor"], model["weights"],
    )  # fmt: skip
    landmarks = LandmarkEmbedding.from_file_arrays(module.landmark_embedding(seed), 9976)
    return FlameFiles(arrays, "synthetic", landmarks)


def measure(
    scene: Scene, shot: Film, condition: str, seed: int, config: MultiviewConfig
) -> tuple[Recovery, MultiviewTrack]:
    """Track one condition and compare."""
    frames = shot.told(CONDITIONS[condition], seed)
    started = time.perf_counter()
    track = track_multiview(scene.trackable, frames, config)
    seconds = time.perf_counter() - started
    truth = scene.filmed.true_vertices
    found = vertices_of(scene.trackable, track)
    face = scene.filmed.face
    gap = np.linalg.norm(found - truth, axis=-1)[:, face] * 1000
    change = (found - found.mean(0)) - (truth - truth.mean(0))
    return Recovery(
        scene.trackable.kind, condition, seed, float(gap.mean()), float(np.percentile(gap, 95)),
        float(np.linalg.norm(change, axis=-1)[:, face].mean() * 1000),
        _jaw_error(scene, track, found), _reprojection(scene, shot, found),
        track.photometric_error, seconds, seconds / (frames.n_frames * frames.n_views),
    ), track  # fmt: skip


def vertices_of(head: TrackableHead, track: MultiviewTrack) -> np.ndarray:
    """(T, V, 3) tracked vertices in metres."""
    parameters = {n: torch.from_numpy(v) for n, v in track.parameters.items()}
    return head.vertices(torch.from_numpy(track.identity), parameters).double().numpy()


def landmarks_of(head: TrackableHead, vertices: np.ndarray) -> np.ndarray:
    """(T, 68, 3) landmarks on vertices (T, V, 3)."""
    corners = vertices[:, head.landmark_corners()]
    return np.einsum("tlkc,lk->tlc", corners, head.landmark_barycentric)


def _jaw_error(scene: Scene, track: MultiviewTrack, found: np.ndarray) -> float:
    if scene.jaw_rad is not None:
        return float(np.rad2deg(np.abs(track.parameters["jaw"][:, 0] - scene.jaw_rad)).mean())
    opening = [
        np.linalg.norm(marks[:, 62] - marks[:, 66], axis=-1)
        for marks in (landmarks_of(scene.trackable, found), scene.filmed.landmarks)
    ]
    return float(np.abs(opening[0] - opening[1]).mean() * 1000)


def _reprojection(scene: Scene, shot: Film, found: np.ndarray) -> float:
    marks = landmarks_of(scene.trackable, found)
    shares = []
    for v, camera in enumerate(shot.cameras):
        for t in range(len(marks)):
            pixels, depth = camera.project(marks[t])
            eyes_px = camera.K[0, 0] * scene.eyes_m / depth
            share = np.linalg.norm(pixels - shot.landmarks[t, v], axis=-1) / eyes_px
            shares.append(share[17:][shot.in_sight[t, v, 17:] > 0])
    return float(np.concatenate(shares).mean() * 100)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--heads", nargs="+", default=["anny", "flame"])
    parser.add_argument("--conditions", nargs="+", default=list(CONDITIONS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[1])
    parser.add_argument("--frames", type=int, default=40)
    parser.add_argument("--size", type=int, default=160)
    parser.add_argument("--flame-builder", type=Path, default=BUILDER)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    config = MultiviewConfig()
    rows = []
    for head in arguments.heads:
        if head == "flame" and not arguments.flame_builder.is_file():
            print(f"no synthetic FLAME builder at {arguments.flame_builder}: left out")
            continue
        for seed in arguments.seeds:
            if head == "anny":
                scene = anny_scene(seed, arguments.frames)
            else:
                scene = flame_scene(seed, arguments.frames, arguments.flame_builder)
            shot = film(scene.filmed, clip_cameras(arguments.size))
            for condition in arguments.conditions:
                row, _ = measure(scene, shot, condition, seed, config)
                rows.append(row)
                verdict = "met" if row.vertex_mm <= GOALS[condition] else "MISSED"
                print(
                    f"{row.head:<6}{row.condition:<14} face {row.vertex_mm:.2f} mm ({verdict}), "
                    f"expression {row.expression_mm:.2f} mm, jaw {row.jaw_error:.2f}, "
                    f"reprojection {row.reprojection_percent:.2f} %, {row.seconds:.0f} s",
                    flush=True,
                )
    if arguments.out:
        facts = {
            "frames": arguments.frames,
            "views": len(clip_cameras(arguments.size)),
            "size": arguments.size,
            "machine": f"{platform.machine()}, {os.cpu_count()} cores",
            "torch_threads": torch.get_num_threads(),
            "config": asdict(config),
            "rows": [asdict(row) for row in rows],
        }
        arguments.out.write_text(json.dumps(facts, indent=1) + "\n")


if __name__ == "__main__":
    main()
