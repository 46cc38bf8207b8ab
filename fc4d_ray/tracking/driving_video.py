"""A driving signal from a video of a face: the multi-view tracker with one camera.

The camera is unknown; a field of view is assumed, which turns and expressions hardly depend on.
What the driver's head does against the first frame becomes neck motion.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from fc4d_ray.cameras import Camera, look_at
from fc4d_ray.errors import ConfigError, TrackingFailed
from fc4d_ray.heads.trackable import TrackableHead
from fc4d_ray.portraits.landmark_providers import LandmarkProvider, locate_all
from fc4d_ray.priors.video.flame_motion import FlameMotion
from fc4d_ray.priors.video.motion import MotionClip
from fc4d_ray.tracking.evidence import MultiviewFrames
from fc4d_ray.tracking.multiview import MultiviewTrack, track_multiview
from fc4d_ray.tracking.multiview_config import MultiviewConfig

_CAMERA_DISTANCE_M = 1.0
_SEEN_SHARE = 0.2


@dataclass(frozen=True)
class DrivingConfig:
    """How a driving video is tracked."""

    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid"}

    fov_deg: float = 30.0
    """Field of view assumed across the longer side."""
    working_side: int = 480
    """Longer side of the frames that are tracked, pixels; landmarks are found at full size."""
    max_frames: int = 3000
    """Longer videos are refused."""
    neutral_frame: int | None = None
    """A frame that shows the driver's rest; its actions are taken off all frames."""

    def __post_init__(self) -> None:
        def require(condition: bool, option: str, rule: str) -> None:
            if not condition:
                raise ConfigError(f"drive.{option} must be {rule}, found {getattr(self, option)}")

        require(5 <= self.fov_deg <= 120, "fov_deg", "within 5..120 degrees")
        require(64 <= self.working_side <= 2048, "working_side", "within 64..2048 px")
        require(self.max_frames >= 1, "max_frames", "1 or more")


@dataclass(frozen=True)
class DrivingTrack:
    """A tracked driver."""

    track: MultiviewTrack
    frames: MultiviewFrames
    fps: float
    seen: NDArray[np.bool_]  # [T] whether a face was found in the frame


def track_driver(
    head: TrackableHead,
    pictures: NDArray[np.uint8],  # [T, H, W, 3]
    fps: float,
    provider: LandmarkProvider,
    config: DrivingConfig | None = None,
    tracking: MultiviewConfig | None = None,
    progress: Callable[[float, str], None] = lambda fraction, message: None,
) -> DrivingTrack:
    """Track one face through a video.

    Raises ``TrackingFailed`` where fewer than a fifth of the frames show one, or there are too
    many frames.
    """
    config = config or DrivingConfig()
    n_frames, height, width = pictures.shape[:3]
    if n_frames > config.max_frames:
        raise TrackingFailed(
            f"the video has {n_frames} frames, drive.max_frames is {config.max_frames}: cut it"
        )
    if config.neutral_frame is not None and not 0 <= config.neutral_frame < n_frames:
        raise ConfigError(f"drive.neutral_frame {config.neutral_frame} of {n_frames} frames")
    progress(0.05, "finding landmarks")
    points, confidence = locate_all(provider, list(pictures))
    seen = confidence.max(1) > 0
    if seen.mean() < _SEEN_SHARE:
        raise TrackingFailed(
            f"a face was found in {int(seen.sum())} of {n_frames} frames, too few to track"
        )
    scale = min(1.0, config.working_side / max(width, height))
    size = (round(width * scale), round(height * scale))
    small = np.stack([cv2.resize(p, size, interpolation=cv2.INTER_AREA) for p in pictures])
    frames = MultiviewFrames(
        [_camera(size, config.fov_deg)], small[:, None],
        (points * [size[0] / width, size[1] / height])[:, None], confidence[:, None],
    )  # fmt: skip
    progress(0.4, "tracking")
    track = track_multiview(head, frames, tracking or MultiviewConfig())
    return DrivingTrack(track, frames, fps, seen)


def to_motion_clip(driven: DrivingTrack, name: str, config: DrivingConfig) -> MotionClip:
    """ARKit actions and neck motion of a driver tracked with the embedded head."""
    parameters = driven.track.parameters
    actions = parameters["actions"].astype(np.float32)
    if config.neutral_frame is not None:
        actions = (actions - actions[config.neutral_frame]).clip(0, 1)
    rotation = Rotation.from_rotvec(parameters["rotation"]) * Rotation.from_rotvec(
        parameters["neck"]
    )
    start = rotation[config.neutral_frame or 0]
    neck = (start.inv() * rotation).as_rotvec().astype(np.float32)
    return MotionClip(name, driven.fps, actions.clip(0, 1), neck)


def to_flame_motion(driven: DrivingTrack, name: str) -> FlameMotion:
    """FLAME's parameters of a driver tracked with FLAME."""
    return FlameMotion(name, driven.fps, dict(driven.track.parameters), driven.track.identity)


def tracked_vertices(head: TrackableHead, track: MultiviewTrack) -> NDArray[np.float32]:
    """(T, V, 3) metres."""
    parameters = {n: torch.from_numpy(v) for n, v in track.parameters.items()}
    return head.vertices(torch.from_numpy(track.identity), parameters).numpy()


def _camera(size: tuple[int, int], fov_deg: float) -> Camera:
    """Level, one metre before the origin."""
    focal = 0.5 * max(size) / np.tan(np.deg2rad(fov_deg) / 2)
    K = np.array([[focal, 0, size[0] / 2], [0, focal, size[1] / 2], [0, 0, 1]])
    pose = look_at(np.array([0.0, 0.0, _CAMERA_DISTANCE_M]), np.zeros(3))
    return Camera(K, pose, *size)
