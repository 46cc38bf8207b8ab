"""Options of the video stage ``liveportrait``."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from fc4d_ray.errors import ConfigError
from fc4d_ray.priors.video.liveportrait.animator import InferenceConfig
from fc4d_ray.priors.video.liveportrait.driving import MotionConfig
from fc4d_ray.priors.video.liveportrait.driving_pool import NERSEMBLE_FRONTAL_CAMERA
from fc4d_ray.priors.video.motion import shipped_clip_names


@dataclass(frozen=True)
class LivePortraitVideoConfig:
    """Video stage of the paper profile (section 3.3; numbers of section 4)."""

    __pydantic_config__: ClassVar = {"extra": "forbid"}

    pool: tuple[str, ...] = field(default_factory=shipped_clip_names)
    """What clips are drawn from: shipped ARKit clips by name, motion templates (.pkl, .npz), Live
    Link Face .csv files, videos, folders of these, NeRSemble folders."""
    clips: int = 8
    """Clips drawn from the pool for each avatar; the draw follows the avatar's seed."""
    frames_per_clip: int = 100
    """Frames taken from each clip, evenly spread, the first one always."""
    frontal_camera: str = NERSEMBLE_FRONTAL_CAMERA
    """Of takes with several cameras (``cam_<serial>`` videos) the one that drives."""
    max_azimuth_deg: float = 75.0
    """Orbit views up to this azimuth are animated; the reference always is."""
    min_visible: float = 0.3
    """Share of the 68 landmarks that a view must show; others stay still and are marked."""
    frame_size: int = 512
    """Side of a frame in pixels."""
    motion: MotionConfig = field(default_factory=MotionConfig)
    """What of the driver's motion is taken over."""
    inference: InferenceConfig = field(default_factory=InferenceConfig)
    """Where and how the networks run."""

    def __post_init__(self) -> None:
        if not self.pool:
            raise ConfigError("video.pool must name at least one clip or folder")
        if self.clips < 1:
            raise ConfigError(f"video.clips must be at least 1, got {self.clips}")
        if self.frames_per_clip < 2:
            raise ConfigError(
                f"video.frames_per_clip must be at least 2, got {self.frames_per_clip}: "
                "motion counts from the first frame"
            )
        if not 0 <= self.min_visible <= 1:
            raise ConfigError(f"video.min_visible must lie in 0…1, got {self.min_visible}")
        if not 32 <= self.frame_size <= 2048:
            raise ConfigError(f"video.frame_size must lie in 32…2048, got {self.frame_size}")
