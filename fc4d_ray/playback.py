"""An avatar from any view, with any expression: stills and videos, behind ``fc4d render``.

Parameters reach the avatar as one-frame tensors: ``actions`` (1, 52) in ARKit order and ``neck``
(1, 3) axis-angle in radians, relative to the portrait's own expression.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fc4d_ray.cameras import ORBIT_FOV_DEG, ORBIT_RADIUS_M, Camera, orbit_camera, view_name
from fc4d_ray.errors import ConfigError
from fc4d_ray.images import write_png
from fc4d_ray.priors.video.motion import MotionClip, action_vector, load_clip
from fc4d_ray.publishing.video import write_video

STILL_VIDEO_FPS = 24.0
STILL_VIDEO_SECONDS = 4.0
"""Length of a camera move without a motion clip."""
LARGEST_SIDE = 8192


class Renderable(Protocol):
    """What playback needs of an avatar."""

    def render(self, camera: Camera, parameters: Mapping[str, Tensor]) -> Tensor:
        """(H, W, 4) RGBA in [0, 1], colour not multiplied by alpha."""


@dataclass(frozen=True)
class ViewPath:
    """Orbit cameras: every azimuth at every elevation, in degrees."""

    azimuths_deg: Sequence[float] = (0.0,)
    elevations_deg: Sequence[float] = (0.0,)
    fov_deg: float = ORBIT_FOV_DEG
    radius_m: float = ORBIT_RADIUS_M
    size: int = 512

    def __post_init__(self) -> None:
        def require(condition: bool, option: str, rule: str, found: object) -> None:
            if not condition:
                raise ConfigError(f"--{option} must be {rule}, found {found}")

        require(bool(self.azimuths_deg), "azimuth", "at least one angle", "none")
        require(bool(self.elevations_deg), "elevation", "at least one angle", "none")
        for angle in self.azimuths_deg:
            require(-720 <= angle <= 720, "azimuth", "within -720..720 degrees", angle)
        for angle in self.elevations_deg:
            require(-89 <= angle <= 89, "elevation", "within -89..89 degrees", angle)
        require(0.1 <= self.fov_deg <= 150, "fov", "within 0.1..150 degrees", self.fov_deg)
        require(0.05 <= self.radius_m <= 100, "radius", "within 0.05..100 m", self.radius_m)
        require(16 <= self.size <= LARGEST_SIDE, "size", f"within 16..{LARGEST_SIDE} px", self.size)

    def camera(self, azimuth_deg: float, elevation_deg: float) -> Camera:
        return orbit_camera(
            azimuth_deg,
            elevation_deg,
            size=self.size,
            radius_m=self.radius_m,
            fov_deg=self.fov_deg,
        )

    def named_cameras(self) -> dict[str, Camera]:
        """Cameras by view name; ``ConfigError`` where two angles round to one name."""
        cameras: dict[str, Camera] = {}
        for elevation in self.elevations_deg:
            for azimuth in self.azimuths_deg:
                name = view_name(azimuth, elevation)
                if name in cameras:
                    raise ConfigError(f"two views are both named {name}: angles too close")
                cameras[name] = self.camera(azimuth, elevation)
        return cameras

    def moving_cameras(self, n_frames: int) -> list[Camera]:
        """Cameras of a video that passes through the angles at constant speed."""
        n_keys = max(len(self.azimuths_deg), len(self.elevations_deg))
        if {len(self.azimuths_deg), len(self.elevations_deg)} - {1, n_keys}:
            raise ConfigError("a moving camera needs one elevation, or as many as azimuths")
        keys = np.stack(
            [np.broadcast_to(angles, n_keys) for angles in (self.azimuths_deg, self.elevations_deg)]
        )
        way = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(keys), axis=0))])
        steps = np.linspace(0.0, way[-1], n_frames)
        return [
            self.camera(azimuth, elevation)
            for azimuth, elevation in zip(*(np.interp(steps, way, k) for k in keys), strict=True)
        ]


@dataclass(frozen=True)
class Performance:
    """What the face does: constant actions, and a clip on top where there is one."""

    actions: Mapping[str, float] = field(default_factory=dict)
    clip: MotionClip | None = None

    def parameters(self, frame: int) -> dict[str, Tensor]:
        """Head parameters of a frame: per action the stronger of the two."""
        actions = torch.from_numpy(action_vector(self.actions))[None]
        if self.clip is None:
            return {"actions": actions, "neck": torch.zeros(1, 3)}
        acted = {name: torch.from_numpy(v) for name, v in self.clip.parameters(frame).items()}
        return {"actions": torch.maximum(actions, acted["actions"]), "neck": acted["neck"]}


def render_views(
    avatar_dir: Path,
    azimuths_deg: Sequence[float] = (0.0,),
    elevations_deg: Sequence[float] = (0.0,),
    fov_deg: float = ORBIT_FOV_DEG,
    radius_m: float = ORBIT_RADIUS_M,
    actions: Mapping[str, float] | None = None,
    clip: str | Path | None = None,
    size: int = 512,
    out: Path = Path(),
    rgba: bool = False,
    video: Path | None = None,
) -> list[Path]:
    """Render a published avatar to images or a video, and return the files written.

    Without ``video``: ``out/az+030_el+00.png`` for every azimuth at every elevation, on white or
    with alpha (``rgba``); with ``clip`` one image per view and frame, ``az+030_el+00_f0012.png``.
    With ``video``: the clip seen from one view, or from a camera that moves through the given
    angles at constant speed while it plays; without a clip the camera moves for four seconds.

    Args:
        clip: name of a shipped clip or path of a Live Link Face CSV.
        actions: constant ARKit weights in [0, 1].

    Raises:
        ConfigError: no avatar there, an unknown action or clip, or options that do not fit.
    """
    path = ViewPath(azimuths_deg, elevations_deg, fov_deg, radius_m, size)
    performance = Performance(actions or {}, None if clip is None else load_clip(clip))
    action_vector(performance.actions)  # names are checked before the avatar is loaded
    if video is not None:
        _check_video(video, rgba, path, performance)
    avatar = load_avatar(avatar_dir)
    if video is not None:
        video.parent.mkdir(parents=True, exist_ok=True)
        fps = performance.clip.fps if performance.clip else STILL_VIDEO_FPS
        write_video(video, _video_frames(avatar, path, performance), fps)
        return [video]
    out.mkdir(parents=True, exist_ok=True)
    return list(_write_stills(avatar, path, performance, out, rgba))


def load_avatar(avatar_dir: Path) -> Renderable:
    """The avatar in a published directory; ``ConfigError`` where there is none."""
    if not (avatar_dir / "rig.npz").is_file():
        raise ConfigError(f"no avatar in {avatar_dir}: expected rig.npz there")
    from fc4d_ray.avatar.avatar import Avatar

    return Avatar.load(avatar_dir)


@torch.no_grad()
def render_rgba(
    avatar: Renderable, camera: Camera, parameters: Mapping[str, Tensor]
) -> NDArray[np.uint8]:
    """(H, W, 4) straight-alpha RGBA, 0..255."""
    image = avatar.render(camera, parameters).clamp(0, 1)
    return (image * 255).round().to(torch.uint8).cpu().numpy()


def on_white(rgba: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """(H, W, 3) composite of straight-alpha RGBA over white."""
    alpha = rgba[..., 3:].astype(np.float32) / 255
    return np.rint(rgba[..., :3] * alpha + 255 * (1 - alpha)).astype(np.uint8)


def _write_stills(
    avatar: Renderable, path: ViewPath, performance: Performance, out: Path, rgba: bool
) -> Iterator[Path]:
    n_frames = performance.clip.n_frames if performance.clip else 1
    for frame in range(n_frames):
        suffix = f"_f{frame:04d}" if performance.clip else ""
        for name, camera in path.named_cameras().items():
            image = render_rgba(avatar, camera, performance.parameters(frame))
            file = out / f"{name}{suffix}.png"
            write_png(file, image if rgba else on_white(image))
            yield file


def _video_frames(
    avatar: Renderable, path: ViewPath, performance: Performance
) -> Iterator[NDArray[np.uint8]]:
    clip = performance.clip
    n_frames = clip.n_frames if clip else round(STILL_VIDEO_FPS * STILL_VIDEO_SECONDS)
    for frame, camera in enumerate(path.moving_cameras(n_frames)):
        yield on_white(render_rgba(avatar, camera, performance.parameters(frame)))


def _check_video(video: Path, rgba: bool, path: ViewPath, performance: Performance) -> None:
    if rgba:
        raise ConfigError("--rgba and --video exclude each other: H.264 holds no alpha")
    if video.suffix.lower() != ".mp4":
        raise ConfigError(f"--video must name an .mp4 file, found {video.name}")
    if performance.clip is None and len(path.azimuths_deg) == len(path.elevations_deg) == 1:
        raise ConfigError("--video needs --clip, or angles for the camera to move through")
    path.moving_cameras(2)
