"""Fourth stage: expression clips of the reference and the frontal views, one driving signal."""

from __future__ import annotations

import json

import numpy as np

from fc4d_ray.clips import write_clip
from fc4d_ray.images import read_png
from fc4d_ray.priors.shape.views import REFERENCE, NamedCamera, read_cameras
from fc4d_ray.priors.video.actions import ActionsVideoConfig, ViewAnimator, telling_frames
from fc4d_ray.priors.video.motion import load_clip
from fc4d_ray.stages.person_files import read_person
from fc4d_ray.stages.protocol import Facts, StageContext


class VideoStage:
    """Video prior ``actions``: ``clips/<clip>/<view>.clip`` and ``motion.npz``."""

    name = "video"
    requires: tuple[str, ...] = ("shape", "image")
    version = "2"

    def weights_digest(self, config: ActionsVideoConfig) -> str:
        return "none"

    def setup(self, config: ActionsVideoConfig) -> None:
        """No model to load."""

    def process(self, context: StageContext) -> Facts:
        config: ActionsVideoConfig = context.config
        person = read_person(context.inputs["shape"])
        cameras = animated_cameras(read_cameras(context.inputs["shape"]), config.max_azimuth_deg)
        driving = {}
        for name in config.clips:
            clip = load_clip(name)
            frames = telling_frames(clip, config.frames_per_clip)
            driving[clip.name] = (clip.actions[frames], frames, clip.fps)
        for done, named in enumerate(cameras):
            context.progress(done / len(cameras), f"animating {named.name}")
            picture = read_png(context.inputs["image"] / "views" / f"{named.name}.png")
            animator = ViewAnimator(
                person.rig, person.colour, person.material, named.camera, picture,
                config.frame_size,
            )  # fmt: skip
            for clip_name, (actions, _, fps) in driving.items():
                path = context.output / "clips" / clip_name / f"{named.name}.clip"
                path.parent.mkdir(parents=True, exist_ok=True)
                write_clip(path, animator.frames(actions), fps)
        motion = {}
        for clip_name, (actions, frames, fps) in driving.items():
            motion[f"{clip_name}.actions"] = actions
            motion[f"{clip_name}.frames"] = frames
            motion[f"{clip_name}.fps"] = np.float64(fps)
        np.savez_compressed(context.output / "motion.npz", **motion)
        facts = {
            "views": [c.name for c in cameras],
            "clips": list(driving),
            "frames": sum(len(frames) for _, frames, _ in driving.values()),
        }
        (context.output / "video.json").write_text(json.dumps(facts, indent=1))
        return {"n_clips": len(driving), "n_frames": facts["frames"] * len(cameras)}


def animated_cameras(cameras: list[NamedCamera], max_azimuth_deg: float) -> list[NamedCamera]:
    """The reference first, then the frontal orbit views (paper section 4)."""
    frontal = [
        c for c in cameras if c.name != REFERENCE and abs(c.azimuth_deg) <= max_azimuth_deg + 1e-6
    ]
    return [c for c in cameras if c.name == REFERENCE] + frontal
