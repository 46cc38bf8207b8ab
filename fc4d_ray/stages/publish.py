"""Last stage: what people open. Files, quality figures and the record of how it was made."""

from __future__ import annotations

import importlib.metadata
import json
import platform
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray

from fc4d_ray import __version__
from fc4d_ray.assets.catalogue import CATALOGUE
from fc4d_ray.assets.registry import file_digest, require_asset
from fc4d_ray.avatar.avatar import Avatar
from fc4d_ray.avatar.formats import write_world_ply
from fc4d_ray.avatar.splatting import render_splats
from fc4d_ray.cameras import Camera, orbit_camera
from fc4d_ray.errors import ConfigError
from fc4d_ray.images import write_png
from fc4d_ray.playback import Performance, Renderable, on_white, render_rgba
from fc4d_ray.priors.shape.views import REFERENCE, read_cameras
from fc4d_ray.priors.video.motion import load_clip
from fc4d_ray.publishing.expressions import SHOWN_EXPRESSIONS
from fc4d_ray.publishing.quality import describe, identity_figures, silhouette_iou
from fc4d_ray.publishing.sheet import Tile, compose_sheet
from fc4d_ray.publishing.video import write_video
from fc4d_ray.stages.portrait_files import PortraitFiles, read_portrait
from fc4d_ray.stages.protocol import Facts, StageContext

MEASURED_SIZE = 512
"""Side of stills and of the renders that are measured: the identity protocol asks for it."""
SHEET_AZIMUTHS_DEG = (-60, -30, 0, 30, 60, 90, 180)
SHEET_TURNED_EXPRESSIONS = (("smile", 30), ("surprise", -30))
SHEET_WINDOW_PX = (66, 40, 446, 496)
"""Left, top, right, bottom of the part of a still the sheet shows: the head and the shoulders."""
RECORD_FORMAT = "fc4d-avatar-record/1"
_RECORDED_PACKAGES = ("anny", "dlib-bin", "numpy", "torch")


@dataclass(frozen=True)
class PublishConfig:
    """The videos that come with an avatar."""

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    video_size: int = 384
    """Side of the videos in pixels."""
    turntable_seconds: float = 4.0
    """Length of one turn of the camera around the head; 0 writes no turntable."""
    fps: float = 24.0
    """Frames per second of both videos."""
    clips: tuple[str, ...] = ("smile", "surprise", "speech")
    """Motion acted in expressions.mp4, one clip after another; names or Live Link Face CSV."""
    sway_deg: float = 15.0
    """How far the camera swings to either side while the clips are acted."""

    def __post_init__(self) -> None:
        def require(condition: bool, option: str, rule: str) -> None:
            if not condition:
                raise ConfigError(f"publish.{option} must be {rule}, found {getattr(self, option)}")

        require(64 <= self.video_size <= 2048, "video_size", "within 64..2048 px")
        require(0 <= self.turntable_seconds <= 60, "turntable_seconds", "within 0..60 s")
        require(1 <= self.fps <= 120, "fps", "within 1..120")
        require(0 <= self.sway_deg <= 60, "sway_deg", "within 0..60 degrees")
        for clip in self.clips:
            load_clip(clip)


class PublishStage:
    """Writes ``avatar.ply``, ``rig.npz``, stills, videos, the contact sheet and the record."""

    name = "publish"
    requires: tuple[str, ...] = ("ingest", "shape", "train")
    version = "2"

    def weights_digest(self, config: PublishConfig) -> str:
        """Digest of the models that measure identity."""
        paths = [p for key in ("dlib-descriptor", "dlib-landmarks") for p in require_asset(key)]
        return "-".join(file_digest(path)[:16] for path in paths)

    def setup(self, config: PublishConfig) -> None:
        """Nothing is loaded ahead."""

    def process(self, context: StageContext) -> Facts:
        config: PublishConfig = context.config
        train_dir, output = context.inputs["train"], context.output
        shutil.copyfile(train_dir / "rig.npz", output / "rig.npz")
        avatar = Avatar.load(train_dir)
        write_world_ply(output / "avatar.ply", avatar.splats({}))
        portrait = read_portrait(context.inputs["ingest"])
        cameras = {named.name: named.camera for named in read_cameras(context.inputs["shape"])}
        reference = cameras[REFERENCE]
        stills = _Stills(avatar)

        context.progress(0.05, "measuring")
        figures = identity_figures(portrait.portrait, reference, stills.at)
        figures["silhouette_iou"] = _silhouette_iou(avatar, reference, portrait)
        figures["tracking_error"] = context.facts.get("track", {}).get("tracking_error")
        write_png(output / "preview.png", stills.at(0, 0))
        write_png(output / "reference.png", np.dstack([portrait.portrait, portrait.matte]))

        context.progress(0.3, "drawing the sheet")
        sheet = _sheet(stills, portrait, describe(figures))
        write_png(output / "sheet.png", sheet)

        context.progress(0.4, "filming the turntable")
        if config.turntable_seconds:
            write_video(output / "turntable.mp4", turntable_frames(avatar, config), config.fps)
        context.progress(0.6, "filming the expressions")
        if config.clips:
            write_video(output / "expressions.mp4", expression_frames(avatar, config), config.fps)

        record = avatar_record(context, figures)
        text = json.dumps(record, indent=1, sort_keys=True, ensure_ascii=False)
        (output / "record.json").write_text(text + "\n", encoding="utf-8")
        return figures


class _Stills:
    """Renders of the measured size on white, each made once."""

    def __init__(self, avatar: Renderable) -> None:
        self._avatar = avatar
        self._made: dict[tuple[float, float, str | None], NDArray[np.uint8]] = {}

    def at(
        self, azimuth_deg: float, elevation_deg: float, expression: str | None = None
    ) -> NDArray[np.uint8]:
        """(512, 512, 3) view on white, neutral or with an expression of the sheet."""
        key = (azimuth_deg, elevation_deg, expression)
        if key not in self._made:
            self._made[key] = self._render(*key)
        return self._made[key]

    def _render(
        self, azimuth_deg: float, elevation_deg: float, expression: str | None
    ) -> NDArray[np.uint8]:
        camera = orbit_camera(azimuth_deg, elevation_deg, size=MEASURED_SIZE)
        performance = Performance(SHOWN_EXPRESSIONS[expression] if expression else {})
        return on_white(render_rgba(self._avatar, camera, performance.parameters(0)))


@torch.no_grad()
def turntable_frames(avatar: Avatar, config: PublishConfig) -> Iterator[NDArray[np.uint8]]:
    """One full turn; the frame after the last would be the first again. Posed only once."""
    n_frames = max(round(config.turntable_seconds * config.fps), 1)
    splats = avatar.splats({})
    white = splats.means.new_ones(3)
    for frame in range(n_frames):
        camera = orbit_camera(360.0 * frame / n_frames, size=config.video_size)
        image = render_splats(splats, camera, white).image.clamp(0, 1)
        yield (image * 255).round().to(torch.uint8).cpu().numpy()


def expression_frames(avatar: Renderable, config: PublishConfig) -> Iterator[NDArray[np.uint8]]:
    """The clips one after another, seen by a camera that sways once per clip."""
    for name in config.clips:
        clip = load_clip(name).resampled(config.fps)
        performance = Performance(clip=clip)
        for frame in range(clip.n_frames):
            swing = np.sin(2 * np.pi * frame / clip.n_frames)
            camera = orbit_camera(float(config.sway_deg * swing), size=config.video_size)
            yield on_white(render_rgba(avatar, camera, performance.parameters(frame)))


def avatar_record(context: StageContext, figures: Mapping[str, Any]) -> dict[str, Any]:
    """What made this avatar, from what, under which licences, and how good it is."""
    row = context.row
    passed_through = {
        key: value
        for key, value in row.items()
        if key not in ("avatar_id", "source_uri", "config_digest", "landmarks", "face_box")
        and isinstance(value, str | int | float | bool | None)
    }
    return {
        "format": RECORD_FORMAT,
        "avatar_id": row.get("avatar_id"),
        "source_uri": row.get("source_uri"),
        "input_columns": passed_through,
        "config_digest": row.get("config_digest"),
        "seed": context.seed,
        "quality": dict(figures),
        "facts": {stage: dict(facts) for stage, facts in context.facts.items()},
        "components": _components(context.facts),
        "packages": {
            "fc4d-ray": __version__,
            "python": platform.python_version(),
            **{name: importlib.metadata.version(name) for name in _RECORDED_PACKAGES},
        },
        "files": [*sorted(p.name for p in context.output.iterdir()), "record.json"],
    }


def _components(facts: Mapping[str, Facts]) -> list[dict[str, str]]:
    """Model files that shaped the avatar, with their licences.

    A stage names its own in the fact ``components``; one that does not is a stage of the embedded
    profile, whose components the catalogue knows.
    """
    used: set[str] = set()
    for stage in (*facts, "publish"):
        reported = facts.get(stage, {}).get("components")
        if reported is not None:
            used.update(reported)
        else:
            used.update(a.key for a in CATALOGUE if stage in a.needed_by.get("embedded", ()))
    return [
        {"key": a.key, "title": a.title, "licence": a.licence, "use": a.use}
        for a in CATALOGUE
        if a.key in used
    ]


def _silhouette_iou(avatar: Renderable, reference: Camera, portrait: PortraitFiles) -> float | None:
    size = len(portrait.matte)
    image = render_rgba(avatar, reference.resized(size, size), Performance().parameters(0))
    # Nobody knows the outline where the source image had ended.
    known = portrait.inside
    return silhouette_iou(image[..., 3] * known, portrait.matte * known, portrait.landmarks)


def _sheet(stills: _Stills, portrait: PortraitFiles, caption: str) -> NDArray[np.uint8]:
    def tile(azimuth_deg: int, expression: str | None, label: str) -> Tile:
        left, top, right, bottom = SHEET_WINDOW_PX
        return Tile(stills.at(azimuth_deg, 0, expression)[top:bottom, left:right], label)

    views = [tile(azimuth, None, _angle(azimuth)) for azimuth in SHEET_AZIMUTHS_DEG]
    expressions = [tile(0, name, name) for name in SHOWN_EXPRESSIONS]
    turned = [
        tile(azimuth, name, f"{name}, {_angle(azimuth)}")
        for name, azimuth in SHEET_TURNED_EXPRESSIONS
    ]
    return compose_sheet(
        Tile(portrait.portrait, "input"), [views, [*expressions, *turned]], caption
    )


def _angle(azimuth_deg: float) -> str:
    return f"{azimuth_deg:+g}°" if abs(azimuth_deg) not in (0, 180) else f"{azimuth_deg:g}°"
