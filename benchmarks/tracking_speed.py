"""What batching saves a tracker: one system over all frames against frame after frame.

Both track the same film of a synthetic person on the same machine in the same run. The plain way is
the usual one: Adam by automatic differentiation, the first frame for long, every further frame from
the one before, all views of a frame at once, the same landmark, colour and outline terms and the
same visibility. Both are asked for the face's error, so that speed is not bought with accuracy. The
projection to 12 views x 8 clips x 100 frames at 512² scales the batched time by frames and pixels'
share of it.

    python benchmarks/tracking_speed.py --frames 12 --size 128
    python benchmarks/tracking_speed.py --device cuda      # not run yet: no GPU was at hand
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tracking_recovery import anny_scene, vertices_of

from fc4d_ray.evaluation.synthetic_clips import Flaws, clip_cameras, film
from fc4d_ray.heads.anny import load_anny_head
from fc4d_ray.heads.trackable import TrackableHead, trackable_anny
from fc4d_ray.tracking.appearance import Observations, fit_appearance
from fc4d_ray.tracking.evidence import MultiviewFrames, make_scale
from fc4d_ray.tracking.initial_pose import initial_poses
from fc4d_ray.tracking.multiview import track_multiview
from fc4d_ray.tracking.multiview_config import MultiviewConfig
from fc4d_ray.tracking.visibility import facing_and_visible, project_all

FIRST_STEPS, FURTHER_STEPS = 1500, 50
"""Of the usual tracker: three stages of 500 steps on the first frame, 50 on every further one."""
_RATES = {"identity": 5e-3, "actions": 5e-2, "neck": 5e-3, "rotation": 5e-3, "translation": 1e-3}
_RENEW = 25
PAPER_FRAMES, PAPER_SIZE, PAPER_MINUTES = 12 * 8 * 100, 512, 10.0


@dataclass
class _Plain:
    """Frame after frame by Adam."""

    head: TrackableHead
    frames: MultiviewFrames
    config: MultiviewConfig

    def run(self, first_steps: int, further_steps: int) -> tuple[np.ndarray, float, float]:
        """(T, V, 3) vertices, and the seconds of the first frame and of all others."""
        rotation, translation, _ = initial_poses(self.head, self.frames)
        values = {n: torch.zeros(1, d) for n, d in self.head.parameter_sizes.items()}
        values["rotation"] = torch.from_numpy(rotation[:1]).float()
        values["translation"] = torch.from_numpy(translation[:1]).float()
        identity = torch.zeros(self.head.identity_size)
        found, seconds = [], []
        for t in range(self.frames.n_frames):
            started = time.perf_counter()
            steps = first_steps if t == 0 else further_steps
            identity, values = self._frame(t, identity, values, steps)
            seconds.append(time.perf_counter() - started)
            with torch.no_grad():
                found.append(self.head.vertices(identity, values)[0].numpy())
        return np.stack(found), seconds[0], sum(seconds[1:])

    def _frame(
        self, t: int, identity: Tensor, start: dict[str, Tensor], steps: int
    ) -> tuple[Tensor, dict[str, Tensor]]:
        frame = self.frames.only(np.array([t]))
        pictures = make_scale(frame, 1)
        images = pictures.images[0].float() / 255
        values = {n: v.clone().requires_grad_() for n, v in start.items()}
        identity = identity.clone().requires_grad_(t == 0)
        groups = [{"params": [v], "lr": _RATES[n]} for n, v in values.items()]
        if t == 0:
            groups.append({"params": [identity], "lr": _RATES["identity"]})
        adam = torch.optim.Adam(groups)
        skin = np.flatnonzero(self.head.region == 0)
        skin = torch.from_numpy(skin[:: max(1, len(skin) // self.config.photometric_points)])
        corners = torch.from_numpy(self.head.landmark_corners())
        shares = torch.from_numpy(self.head.landmark_barycentric).float()
        marks = torch.from_numpy(frame.landmarks[0]).float()
        trust_marks = torch.from_numpy(frame.confidence[0]).float()
        deviation_px = self.config.landmark_deviation_m * frame.cameras[0].K[0, 0] / 1.9
        expected = trust = None
        for step in range(steps):
            vertices = self.head.vertices(identity, values)
            if step % _RENEW == 0:
                expected, trust = _look(vertices.detach(), self.head, skin, pictures)
            points = (vertices[:, corners] * shares[..., None]).sum(2)
            pixels, _ = project_all(points, frame.cameras)
            gap = ((pixels[0] - marks).square().sum(-1) + 1e-8).sqrt() / deviation_px
            loss = (trust_marks * torch.nn.functional.huber_loss(
                gap, torch.zeros_like(gap), reduction="none", delta=3.0)).sum()  # fmt: skip
            seen, _ = project_all(vertices[:, skin], frame.cameras)
            difference = (_bilinear(images, seen[0]) - expected).square().sum(-1)
            difference = difference / (4 * self.config.photometric_deviation) ** 2
            weight = (
                trust * self.config.photometric_count / trust.sum(-1, keepdim=True).clamp_min(30)
            )
            loss = loss + 16 * (weight * difference / (1 + difference)).sum()
            rim, _ = project_all(vertices[:, skin[::3]], frame.cameras)
            outside = _bilinear(pictures.outside[0].float(), rim[0])[..., 0].clamp_min(0)
            loss = loss + 0.05 * (outside / deviation_px).square().sum()
            loss = loss + identity.square().sum() + 2 * values["actions"].square().sum()
            adam.zero_grad()
            loss.backward()
            adam.step()
            with torch.no_grad():
                values["actions"].clamp_(0, 1)
        return identity.detach(), {n: v.detach() for n, v in values.items()}


@torch.no_grad()
def _look(vertices: Tensor, head: TrackableHead, skin: Tensor, pictures) -> tuple[Tensor, Tensor]:
    """Expected colours (N, 3) and trust (views, N) of one frame."""
    normals, cosine, unhidden = facing_and_visible(
        vertices, head.faces, skin, pictures.cameras, torch.get_num_threads()
    )
    trust = ((cosine - 0.45) / 0.55).clamp(0, 1) * unhidden
    pixels, _ = project_all(vertices[:, skin], pictures.cameras)
    values = _bilinear(pictures.images[0].float() / 255, pixels[0])
    seen = Observations(trust.sum(1), (trust[0, ..., None] * values).sum(0)[None])
    return fit_appearance(seen, normals).colours(normals)[0], trust[0]


def _bilinear(images: Tensor, pixels: Tensor) -> Tensor:
    """(views, N, C) of images (views, C, H, W) at (views, N, 2)."""
    size = pixels.new_tensor([images.shape[-1], images.shape[-2]])
    sampled = torch.nn.functional.grid_sample(
        images, (pixels / size * 2 - 1)[:, :, None], padding_mode="border", align_corners=False
    )
    return sampled[..., 0].transpose(1, 2)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--frames", type=int, default=12)
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--first-steps", type=int, default=FIRST_STEPS)
    parser.add_argument("--plain-frames", type=int, default=4, help="timed of the plain way")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    scene = anny_scene(1, arguments.frames)
    frames = film(scene.filmed, clip_cameras(arguments.size)).told(Flaws(), 1)
    head = trackable_anny(load_anny_head(), device=arguments.device)
    config = MultiviewConfig()

    def error_mm(found: np.ndarray, rows: slice) -> float:
        gap = np.linalg.norm(found - scene.filmed.true_vertices[rows], axis=-1)
        return float(gap[:, scene.filmed.face].mean() * 1000)

    track_multiview(head, frames.only(np.arange(1)), config, device=arguments.device)
    started = time.perf_counter()
    track = track_multiview(head, frames, config, device=arguments.device)
    batched = time.perf_counter() - started
    pairs = frames.n_frames * frames.n_views
    facts = {
        "device": arguments.device,
        "threads": torch.get_num_threads(),
        "frames": frames.n_frames,
        "views": frames.n_views,
        "size": arguments.size,
        "batched_s": batched,
        "batched_s_per_frame_view": batched / pairs,
        "batched_stages_s": dict(track.seconds),
        "batched_error_mm": error_mm(vertices_of(scene.trackable, track), slice(None)),
    }
    if arguments.device == "cpu":
        rows = min(arguments.plain_frames, frames.n_frames)
        plain = _Plain(scene.trackable, frames.only(np.arange(rows)), config)
        found, first, further = plain.run(arguments.first_steps, FURTHER_STEPS)
        each = further / max(rows - 1, 1)
        whole = first + each * (frames.n_frames - 1)
        facts |= {
            "plain_first_frame_s": first,
            "plain_further_frame_s": each,
            "plain_s_per_frame_view": whole / pairs,
            "plain_error_mm": error_mm(found, slice(0, rows)),
            "times_faster": whole / batched,
            "times_faster_without_first_frame": each * frames.n_frames / batched,
        }
    share = sum(v for n, v in track.seconds.items() if n.startswith("photometric")) / batched
    # Rasterizing and shrinking grow with pixels; sampling and the normal equations do not.
    growth = PAPER_FRAMES / pairs
    facts["paper_minutes_at_this_size"] = batched * growth / 60
    facts["photometric_share"] = share
    facts["paper_reference_minutes"] = PAPER_MINUTES
    for name, value in facts.items():
        print(f"{name:<34} {value}")
    if arguments.out:
        arguments.out.write_text(json.dumps(facts, indent=1) + "\n")


if __name__ == "__main__":
    main()
