"""Fourth stage, with LivePortrait: clips of the reference and the frontal views (section 3.3)."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from fc4d_ray.assets.registry import file_digest, require_asset
from fc4d_ray.clips import write_clip
from fc4d_ray.errors import StageFailed
from fc4d_ray.images import read_depth, read_png
from fc4d_ray.priors.shape.views import REFERENCE, NamedCamera, read_cameras
from fc4d_ray.priors.video.liveportrait.animator import FaceAnimator, Sources
from fc4d_ray.priors.video.liveportrait.checkpoint import read_networks
from fc4d_ray.priors.video.liveportrait.config import LivePortraitVideoConfig
from fc4d_ray.priors.video.liveportrait.driving import driven_keypoints
from fc4d_ray.priors.video.liveportrait.driving_clips import DrivingClip, DrivingReader
from fc4d_ray.priors.video.liveportrait.driving_pool import (
    DrivingSource,
    choose_clips,
    open_pool,
    pool_digest,
)
from fc4d_ray.priors.video.liveportrait.openness import openness_68
from fc4d_ray.priors.video.liveportrait.view_crops import (
    CropSheet,
    ViewCrop,
    frame_view,
    lift_landmarks,
)
from fc4d_ray.stages.portrait_files import read_portrait
from fc4d_ray.stages.protocol import Facts, StageContext
from fc4d_ray.stages.video import animated_cameras

ASSET = "liveportrait"
MOST_ENCODERS = 8


@dataclass(frozen=True)
class _View:
    named: NamedCamera
    picture: NDArray[np.uint8]  # [P, P, 4]
    crop: ViewCrop


class LivePortraitVideoStage:
    """Video prior ``liveportrait``: ``clips/<clip>/<view>.clip``, ``motion.npz``, ``video.json``.

    ``video.json`` names the animated views, the views left still with the reason, and the clips
    that were drawn.
    """

    name = "video"
    requires: tuple[str, ...] = ("ingest", "shape", "image")
    version = "1"

    def __init__(self) -> None:
        self._animator: FaceAnimator | None = None
        self._reader: DrivingReader | None = None

    def weights_digest(self, config: LivePortraitVideoConfig) -> str:
        """Of the networks and of every clip of the pool."""
        parts = [file_digest(path) for path in require_asset(ASSET)]
        parts.append(pool_digest(_pool(config)))
        return hashlib.sha256("".join(parts).encode()).hexdigest()

    def setup(self, config: LivePortraitVideoConfig) -> None:
        """Load the networks onto their device."""
        self._animator = FaceAnimator(read_networks(require_asset(ASSET)), config.inference)
        self._reader = DrivingReader(self._animator, config.motion, config.frames_per_clip)

    def process(self, context: StageContext) -> Facts:
        config: LivePortraitVideoConfig = context.config
        if self._animator is None or self._reader is None:
            self.setup(config)
        assert self._animator is not None and self._reader is not None
        context.progress(0.0, "reading the driving clips")
        chosen = choose_clips(_pool(config), config.clips, context.seed)
        clips = [self._reader.read(source) for source in chosen]
        views, still, points = _framed_views(context, self._animator.crop_size)
        sources = self._sources(config, views, points)
        self._write_clips(context, sources, views, clips)
        write_motion_table(context.output / "motion.npz", clips)
        facts = _facts(views, still, clips, sources)
        (context.output / "video.json").write_text(json.dumps(facts, indent=1))
        return {
            "n_clips": len(clips),
            "n_frames": facts["frames"] * len(views),
            "n_still_views": len(still),
        }

    def _sources(
        self, config: LivePortraitVideoConfig, views: list[_View], points: NDArray[np.float64]
    ) -> Sources:
        assert self._animator is not None
        sheet = CropSheet(
            [view.picture for view in views],
            [view.crop.transform for view in views],
            self._animator.crop_size,
            config.frame_size,
            self._animator.device,
        )
        # One person, one expression: openness in space holds for every view.
        eyes, lips = (np.repeat(ratio, len(views), 0) for ratio in openness_68(points[None]))
        return self._animator.read_sources(sheet, eyes, lips)

    def _write_clips(
        self, context: StageContext, sources: Sources, views: list[_View], clips: list[DrivingClip]
    ) -> None:
        """Every clip of the first view, then of the next: frames go to disk as they are made."""
        assert self._animator is not None
        motion = context.config.motion
        with torch.inference_mode():
            driven = [
                driven_keypoints(sources.faces, clip.motion, motion, self._animator.networks)
                for clip in clips
            ]
        frames = self._animator.frames(sources, torch.cat(driven, 1))
        encoders = max(1, min(MOST_ENCODERS, torch.get_num_threads()))
        for index, view in enumerate(views):
            for number, clip in enumerate(clips):
                done = (index * len(clips) + number) / (len(views) * len(clips))
                context.progress(done, f"animating {view.named.name}")
                path = context.output / "clips" / clip.source.name / f"{view.named.name}.clip"
                path.parent.mkdir(parents=True, exist_ok=True)
                wanted = islice(frames, clip.motion.n_frames)
                write_clip(path, wanted, clip.motion.fps, encoders=encoders)


def _pool(config: LivePortraitVideoConfig) -> tuple[DrivingSource, ...]:
    return open_pool(config.pool, config.frontal_camera, at_least=config.clips)


def write_motion_table(path: Path, clips: list[DrivingClip]) -> None:
    """``motion.npz``: per clip the frame numbers, the rate and what is known of the motion."""
    table: dict[str, Any] = {}
    for clip in clips:
        name = clip.source.name
        table[f"{name}.frames"] = clip.frames
        table[f"{name}.fps"] = np.float64(clip.motion.fps)
        table[f"{name}.expression"] = clip.motion.expression
        if clip.actions is not None:
            table[f"{name}.actions"] = clip.actions
    np.savez_compressed(path, **table)


def _framed_views(
    context: StageContext, crop_size: int
) -> tuple[list[_View], dict[str, str], NDArray[np.float64]]:
    """The views to animate, those left still with the reason, and the landmarks in space."""
    config: LivePortraitVideoConfig = context.config
    shape, image = context.inputs["shape"], context.inputs["image"]
    cameras = read_cameras(shape)
    points = _landmarks_in_space(context, cameras)
    candidates = animated_cameras(cameras, config.max_azimuth_deg)
    still = {
        named.name: f"azimuth beyond {config.max_azimuth_deg:g} degrees"
        for named in cameras
        if named not in candidates
    }
    views = []
    for named in candidates:
        picture = read_png(image / "views" / f"{named.name}.png")
        height, width = picture.shape[:2]
        depth = read_depth(shape / "depth" / f"{named.name}.png", named.depth_unit_m)
        try:
            crop = frame_view(points, named.camera.resized(width, height), depth, crop_size)
        except ValueError as error:
            still[named.name] = str(error)
            continue
        if crop.visible < config.min_visible:
            still[named.name] = f"shows {crop.visible:.0%} of the landmarks"
        else:
            views.append(_View(named, picture, crop))
    if REFERENCE in still or not views:
        raise StageFailed(f"the portrait's own view cannot be animated: {still.get(REFERENCE)}")
    return views, still, points


def _landmarks_in_space(context: StageContext, cameras: list[NamedCamera]) -> NDArray[np.float64]:
    """The portrait's landmarks (68, 3), lifted by the reference view's depth."""
    portrait = read_portrait(context.inputs["ingest"])
    (named,) = (camera for camera in cameras if camera.name == REFERENCE)
    path = context.inputs["shape"] / "depth" / f"{REFERENCE}.png"
    depth = read_depth(path, named.depth_unit_m)
    height, width = depth.shape
    # The reference camera sees the whole portrait crop, at the views' size.
    factor = [width / portrait.portrait.shape[1], height / portrait.portrait.shape[0]]
    try:
        return lift_landmarks(
            portrait.landmarks * factor, depth, named.camera.resized(width, height)
        )
    except ValueError as error:
        raise StageFailed(f"the shape does not meet the portrait's face: {error}") from error


def _facts(
    views: list[_View], still: dict[str, str], clips: list[DrivingClip], sources: Sources
) -> Facts:
    motion = sources.faces.motion
    poses = torch.cat([motion.pitch_deg, motion.yaw_deg, motion.roll_deg], 1).cpu().numpy()
    return {
        "views": [view.named.name for view in views],
        "still_views": still,
        "clips": [clip.source.name for clip in clips],
        "frames": sum(clip.motion.n_frames for clip in clips),
        "driving": [
            {
                "name": clip.source.name,
                "kind": clip.source.kind,
                "source": "shipped" if clip.source.path is None else clip.source.path.name,
                "digest": clip.source.digest(),
                "frames": clip.motion.n_frames,
                "fps": clip.motion.fps,
            }
            for clip in clips
        ],
        "faces": {
            view.named.name: {
                "visible": round(view.crop.visible, 3),
                "pitch_yaw_roll_deg": [round(float(angle), 1) for angle in pose],
            }
            for view, pose in zip(views, poses, strict=True)
        },
    }
