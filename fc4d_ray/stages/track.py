"""Fifth stage: head parameters of every frame, found from the clips alone."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import cv2
import numpy as np
import torch

from fc4d_ray.clips import ClipReader
from fc4d_ray.images import read_png
from fc4d_ray.portraits.dlib_models import LANDMARKS_FILE, FaceModels, model_digest
from fc4d_ray.priors.shape.views import REFERENCE, NamedCamera, read_cameras
from fc4d_ray.stages.person_files import read_person
from fc4d_ray.stages.protocol import Facts, StageContext
from fc4d_ray.tracking import TrackingConfig, TrackResult, track_clips
from fc4d_ray.tracking.tracker import ViewClip


class TrackStage:
    """``track.npz`` with one row per clip frame, and how it compares with the driving signal."""

    name = "track"
    requires: tuple[str, ...] = ("shape", "image", "video")
    version = "2"

    def __init__(self) -> None:
        self._models = FaceModels()

    def weights_digest(self, config: TrackingConfig) -> str:
        return hashlib.sha256(model_digest(LANDMARKS_FILE).encode()).hexdigest()

    def setup(self, config: TrackingConfig) -> None:
        """dlib's predictor is loaded on first use."""

    def process(self, context: StageContext) -> Facts:
        config: TrackingConfig = context.config
        person = read_person(context.inputs["shape"])
        video = context.inputs["video"]
        clip_names = json.loads((video / "video.json").read_text())["clips"]
        available = set(json.loads((video / "video.json").read_text())["views"])
        cameras = [c for c in read_cameras(context.inputs["shape"]) if c.name in available]
        views = [
            _read_view(context, named, clip_names)
            for named in _chosen(cameras, config.view_azimuths_deg)
        ]
        context.progress(0.3, "tracking")
        result = track_clips(person.rig, person.colour, views, self._models.landmarks, config)
        clip, frame, driven = _frame_index(video, clip_names)
        difference = None
        known = {}
        if driven is not None:
            known["driven_actions"] = driven
            difference = generator_difference_mm(person.rig, result.actions, driven)
        np.savez_compressed(
            context.output / "track.npz",
            actions=result.actions,
            neck=np.zeros((len(result.actions), 3), np.float32),
            clip=clip,
            frame=frame,
            **known,
        )
        facts = _facts(result, difference, views[0].camera.width)
        (context.output / "track.json").write_text(json.dumps(facts, indent=1))
        return facts


def generator_difference_mm(rig, tracked: np.ndarray, driven: np.ndarray) -> float:
    """Mean distance of moving vertices between tracked and driving parameters, millimetres.

    Generator and tracker share the head model here, so this says how well the images determine
    the motion, not how well the model fits people.
    """
    neck = torch.zeros(len(tracked), 3)
    one = rig.pose({"actions": torch.from_numpy(tracked), "neck": neck})
    other = rig.pose({"actions": torch.from_numpy(driven), "neck": neck})
    rest = torch.from_numpy(rig.neutral)
    moving = (other - rest).norm(dim=-1) > 1e-3
    distance = (one - other).norm(dim=-1)
    return float(distance[moving].mean() * 1000) if moving.any() else 0.0


def _facts(result: TrackResult, difference_mm: float | None, width: int) -> Facts:
    return {
        "tracking_error": round(result.landmark_error_px / width, 6),
        "landmark_error_px": round(result.landmark_error_px, 3),
        "photometric_error": round(result.photometric_error, 5),
        "generator_difference_mm": None if difference_mm is None else round(difference_mm, 3),
    }


def _chosen(cameras: list[NamedCamera], azimuths: tuple[float, ...]) -> list[NamedCamera]:
    """The reference and the animated views nearest to the wished azimuths."""
    orbit = [c for c in cameras if c.name != REFERENCE]
    picked = {c.name: c for c in cameras if c.name == REFERENCE}
    for azimuth in azimuths:
        if orbit:
            nearest = min(orbit, key=lambda c: abs(c.azimuth_deg - azimuth))
            picked[nearest.name] = nearest
    return list(picked.values())


def _read_view(context: StageContext, named: NamedCamera, clip_names: list[str]) -> ViewClip:
    frames = []
    for clip in clip_names:
        with ClipReader(context.inputs["video"] / "clips" / clip / f"{named.name}.clip") as reader:
            frames.extend(_over_white(frame) for frame in reader)
    height, width = frames[0].shape[:2]
    rest = read_png(context.inputs["image"] / "views" / f"{named.name}.png")
    rest = cv2.resize(rest, (width, height), interpolation=cv2.INTER_AREA)
    camera = named.camera.resized(width, height)
    return ViewClip(camera, _over_white(rest), np.stack(frames))


def _over_white(rgba: np.ndarray) -> np.ndarray:
    alpha = rgba[..., 3:].astype(np.float32) / 255
    return (rgba[..., :3] * alpha + 255 * (1 - alpha) + 0.5).astype(np.uint8)


def _frame_index(
    video: Path, clip_names: list[str]
) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """Clip and frame number of every row, and the driving actions where all clips state them."""
    with np.load(video / "motion.npz") as motion:
        counts = [len(motion[f"{name}.frames"]) for name in clip_names]
        names = [f"{name}.actions" for name in clip_names]
        is_known = all(name in motion for name in names)
        driven = np.concatenate([motion[name] for name in names]) if is_known else None
    clip = np.repeat(np.arange(len(counts), dtype=np.int32), counts)
    frame = np.concatenate([np.arange(count, dtype=np.int32) for count in counts])
    return clip, frame, None if driven is None else driven.astype(np.float32)
