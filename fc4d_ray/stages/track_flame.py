"""Fifth stage, the paper's way: FLAME fitted to the views and tracked through the clips."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from fc4d_ray.assets.registry import file_digest
from fc4d_ray.clips import ClipReader
from fc4d_ray.errors import ConfigError
from fc4d_ray.heads.anny import AnnyHead, load_anny_head
from fc4d_ray.heads.flame_files import EDITIONS, FlameFiles, flame_path, load_flame
from fc4d_ray.heads.flame_rig import FlameRig
from fc4d_ray.heads.trackable import trackable_flame
from fc4d_ray.images import read_png
from fc4d_ray.portraits.dlib_models import LANDMARKS_FILE, FaceModels, model_digest
from fc4d_ray.portraits.landmark_providers import (
    DlibLandmarks,
    InsightFaceLandmarks,
    LandmarkProvider,
    locate_all,
)
from fc4d_ray.priors.shape.views import REFERENCE, NamedCamera, read_cameras
from fc4d_ray.stages.protocol import Facts, StageContext
from fc4d_ray.tracking.evidence import MultiviewFrames
from fc4d_ray.tracking.flame_person import flame_person
from fc4d_ray.tracking.multiview import MultiviewTrack, track_multiview
from fc4d_ray.tracking.multiview_config import MultiviewConfig


@dataclass(frozen=True)
class FlameTrackConfig:
    """Tracking with FLAME."""

    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid"}

    edition: str = "flame2023"
    """Imported edition (``fc4d assets import flame``), or the path of an imported npz."""
    n_identity: int = 300
    """Identity coefficients that are fitted."""
    n_expression: int = 100
    """Expression coefficients that are fitted."""
    max_azimuth_deg: float = 75.0
    """Animated views up to this azimuth are used; the reference always is."""
    landmark_azimuth_deg: float = 60.0
    """Views beyond this azimuth contribute skin and outline only."""
    working_size: int = 256
    """Side of the pictures that are compared; landmarks are found at full size."""
    landmarks: Literal["dlib", "insightface"] = "dlib"
    """Who finds landmarks."""
    device: str = "cpu"
    """Where to track: cpu, cuda …"""
    multiview: MultiviewConfig = field(default_factory=MultiviewConfig)
    """The tracker's own options."""

    def __post_init__(self) -> None:
        def require(condition: bool, option: str, rule: str) -> None:
            if not condition:
                raise ConfigError(f"track.{option} must be {rule}, found {getattr(self, option)!r}")

        known = self.edition in EDITIONS or self.edition.endswith(".npz")
        require(known, "edition", f"one of {', '.join(EDITIONS)} or an .npz")
        require(1 <= self.n_identity <= 300, "n_identity", "within 1..300")
        require(1 <= self.n_expression <= 100, "n_expression", "within 1..100")
        require(0 <= self.max_azimuth_deg <= 180, "max_azimuth_deg", "within 0..180")
        require(0 <= self.landmark_azimuth_deg <= 90, "landmark_azimuth_deg", "within 0..90")
        require(64 <= self.working_size <= 1024, "working_size", "within 64..1024 px")
        if self.multiview.estimate_scale:
            raise ConfigError(
                "track.multiview.estimate_scale: this stage's cameras are in metres already"
            )


class FlameTrackStage:
    """``head.npz`` (the FLAME rig), ``track.npz`` (rest, then a row per clip frame)."""

    name = "track"
    requires: tuple[str, ...] = ("shape", "image", "video")
    version = "flame-1"

    def __init__(self) -> None:
        self._files: FlameFiles | None = None
        self._head: AnnyHead | None = None

    def weights_digest(self, config: FlameTrackConfig) -> str:
        """Of FLAME's file and of the landmark predictor."""
        return f"{file_digest(flame_path(config.edition))}-{model_digest(LANDMARKS_FILE)[:16]}"

    def setup(self, config: FlameTrackConfig) -> None:
        """Load FLAME, and the embedded head whose actions drive it."""
        self._files = load_flame(config.edition)
        self._head = load_anny_head()

    def process(self, context: StageContext) -> Facts:
        config: FlameTrackConfig = context.config
        if self._files is None:
            self.setup(config)
        clips = _Clips(context, config)
        context.progress(0.05, "finding landmarks")
        frames = clips.frames(_provider(config))
        trackable = trackable_flame(
            self._files, config.n_identity, config.n_expression, config.device
        )
        track = track_multiview(
            trackable, frames, config.multiview, device=config.device,
            progress=lambda done, text: context.progress(0.3 + 0.6 * done, text),
        )  # fmt: skip
        rig, parameters = flame_person(self._files, track, 0, self._head)
        arrays = rig.to_arrays() | {"kind": np.array(rig.kind)}
        np.savez_compressed(context.output / "head.npz", **arrays)
        np.savez_compressed(
            context.output / "track.npz",
            clip=clips.clip,
            frame=clips.frame,
            **{f"parameter.{name}": values for name, values in parameters.items()},
        )
        facts = self._facts(track, frames, rig)
        (context.output / "track.json").write_text(json.dumps(facts, indent=1))
        return facts

    def _facts(self, track: MultiviewTrack, frames: MultiviewFrames, rig: FlameRig) -> Facts:
        error_px = float(np.nanmean(track.landmark_error_px))
        return {
            "tracking_error": round(error_px / frames.cameras[0].width, 6),
            "landmark_error_px": round(error_px, 3),
            "photometric_error": round(track.photometric_error, 5),
            "views_with_landmarks": int((frames.confidence.max((0, 2)) > 0).sum()),
            "conversion_error_mm": round(float(rig.conversion.error_mm.mean()), 3),
            "head": f"{self._files.edition} {self._files.digest[:16]}",
            "components": [self._files.edition, "anny", "dlib-landmarks"],
        }


class _Clips:
    """The stage's pictures: row 0 is rest, the others are the clips' frames in order."""

    def __init__(self, context: StageContext, config: FlameTrackConfig) -> None:
        self._image, self._video = context.inputs["image"], context.inputs["video"]
        self._config = config
        facts = json.loads((self._video / "video.json").read_text())
        self._names: list[str] = facts["clips"]
        self._views = [
            named
            for named in read_cameras(context.inputs["shape"])
            if named.name in facts["views"]
            and (named.name == REFERENCE or abs(named.azimuth_deg) <= config.max_azimuth_deg)
        ]
        with np.load(self._video / "motion.npz") as motion:
            counts = [len(motion[f"{name}.frames"]) for name in self._names]
        self.clip = np.repeat(np.arange(len(counts), dtype=np.int32), counts)
        self.frame = np.concatenate([np.arange(count, dtype=np.int32) for count in counts])

    def frames(self, provider: LandmarkProvider) -> MultiviewFrames:
        """Everything at working size, with landmarks found at full size."""
        size = self._config.working_size
        images, mattes, marks, confidence = [], [], [], []
        for named in self._views:
            rgba = self._pictures(named)
            whole = [_over_white(picture) for picture in rgba]
            points, seen = locate_all(provider, whole)
            is_turned = abs(named.azimuth_deg) > self._config.landmark_azimuth_deg
            if is_turned and named.name != REFERENCE:
                seen[:] = 0
            small = (size, size)
            images.append([cv2.resize(p, small, interpolation=cv2.INTER_AREA) for p in whole])
            mattes.append(
                [cv2.resize(p[..., 3], small, interpolation=cv2.INTER_AREA) for p in rgba]
            )
            marks.append(points * size / rgba[0].shape[0])
            confidence.append(seen)
        return MultiviewFrames(
            [named.camera.resized(size, size) for named in self._views],
            np.swapaxes(np.array(images), 0, 1),
            np.swapaxes(np.array(marks), 0, 1),
            np.swapaxes(np.array(confidence), 0, 1),
            np.swapaxes(np.array(mattes), 0, 1),
            np.concatenate([[-1], self.clip]),
        )

    def _pictures(self, named: NamedCamera) -> list[NDArray[np.uint8]]:
        """RGBA of one view, rest first, all of the clips' size."""
        pictures: list[NDArray[np.uint8]] = []
        for clip in self._names:
            path: Path = self._video / "clips" / clip / f"{named.name}.clip"
            with ClipReader(path) as reader:
                pictures.extend(reader)
        side = (pictures[0].shape[1], pictures[0].shape[0])
        rest = read_png(self._image / "views" / f"{named.name}.png")
        return [cv2.resize(rest, side, interpolation=cv2.INTER_AREA), *pictures]


def _provider(config: FlameTrackConfig) -> LandmarkProvider:
    if config.landmarks == "insightface":
        return InsightFaceLandmarks()
    return DlibLandmarks(FaceModels(), thorough=False)


def _over_white(rgba: NDArray[np.uint8]) -> NDArray[np.uint8]:
    alpha = rgba[..., 3:].astype(np.float32) / 255
    return (rgba[..., :3] * alpha + 255 * (1 - alpha) + 0.5).astype(np.uint8)


def tracked_rig(track_directory: Path) -> FlameRig | None:
    """The FLAME rig a track artifact holds, None where tracking used the shape stage's own."""
    path = track_directory / "head.npz"
    if not path.exists():
        return None
    with np.load(path) as arrays:
        return FlameRig.from_arrays({name: arrays[name] for name in arrays.files})


def tracked_parameters(tracked: Mapping[str, NDArray]) -> dict[str, torch.Tensor]:
    """Parameters by name of ``track.npz``, (1 + T, d): row 0 is rest."""
    prefix = "parameter."
    named = [name for name in tracked if name.startswith(prefix)]
    if named:
        return {n.removeprefix(prefix): torch.from_numpy(tracked[n]).float() for n in named}
    return {
        name: torch.from_numpy(np.vstack([np.zeros((1, tracked[name].shape[1])), tracked[name]]))
        .float()
        for name in ("actions", "neck")
    }  # fmt: skip
