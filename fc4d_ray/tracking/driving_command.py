"""What ``fc4d drive`` does: read a video, track its face, write the clip and the overlay."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from fc4d_ray.errors import ConfigError, FC4DError, TrackingFailed
from fc4d_ray.heads.trackable import TrackableHead, trackable_anny, trackable_flame
from fc4d_ray.portraits.landmark_providers import (
    DlibLandmarks,
    InsightFaceLandmarks,
    LandmarkProvider,
    PrecomputedLandmarks,
)
from fc4d_ray.priors.video.flame_motion import write_flame_motion
from fc4d_ray.priors.video.motion import write_live_link
from fc4d_ray.publishing.video import read_video, write_video
from fc4d_ray.tracking.driving_video import (
    DrivingConfig,
    DrivingTrack,
    to_flame_motion,
    to_motion_clip,
    track_driver,
    tracked_vertices,
)
from fc4d_ray.tracking.overlay import overlay as draw_overlay


def extract_clip(
    video: Path,
    out: Path,
    *,
    head: str = "anny",
    landmarks: str = "dlib",
    fov_deg: float = 30.0,
    neutral_frame: int | None = None,
    overlay: Path | None = None,
    progress: Callable[[float, str], None] = lambda fraction, message: None,
) -> str:
    """Write the clip (and overlay); returns a line that says how it went.

    Raises ``TrackingFailed`` for a video without a face or that cannot be read, ``WeightsMissing``
    where model files are absent, ``ConfigError`` for unusable options.
    """
    config = DrivingConfig(fov_deg=fov_deg, neutral_frame=neutral_frame)
    trackable = _trackable(head)
    pictures, fps = _read(video)
    provider = make_provider(landmarks, pictures.shape[2], pictures.shape[1])
    driven = track_driver(trackable, pictures, fps, provider, config, progress=progress)
    out.parent.mkdir(parents=True, exist_ok=True)
    if head == "anny":
        write_live_link(to_motion_clip(driven, out.stem, config), out)
    else:
        write_flame_motion(to_flame_motion(driven, out.stem), out)
    if overlay is not None:
        progress(0.9, "drawing the overlay")
        write_video(overlay, overlay_frames(trackable, driven), fps)
    lost = int((~driven.seen).sum())
    error = float(np.nanmean(driven.track.landmark_error_px))
    return f"{len(pictures)} frames at {fps:g} fps, landmarks within {error:.1f} px" + (
        f", no face in {lost}" if lost else ""
    )


def make_provider(name: str, width: int, height: int) -> LandmarkProvider:
    """``dlib``, ``insightface``, or a file of precomputed landmarks of such pictures."""
    if name == "dlib":
        return DlibLandmarks()
    if name == "insightface":
        return InsightFaceLandmarks()
    if not Path(name).is_file():
        raise ConfigError(f"--landmarks must be dlib, insightface or a file, found {name!r}")
    return PrecomputedLandmarks.read(Path(name), width, height)


def overlay_frames(head: TrackableHead, driven: DrivingTrack, view: int = 0):
    """Pictures of the tracked head over its frames, one by one."""
    vertices = tracked_vertices(head, driven.track)
    marks = np.einsum("tlkc,lk->tlc", vertices[:, head.landmark_corners()],
                      head.landmark_barycentric)  # fmt: skip
    camera = driven.track.cameras[view]
    for t in range(len(vertices)):
        yield draw_overlay(
            driven.frames.images[t, view], vertices[t], head.faces, camera, marks[t],
            driven.frames.landmarks[t, view] if driven.seen[t] else None, strength=0.4,
        )  # fmt: skip


def _trackable(head: str) -> TrackableHead:
    if head == "anny":
        from fc4d_ray.heads.anny import load_anny_head

        return trackable_anny(load_anny_head())
    from fc4d_ray.heads.flame_files import EDITIONS, load_flame

    if head not in EDITIONS:
        raise ConfigError(f"--head must be anny or one of {', '.join(EDITIONS)}, found {head!r}")
    return trackable_flame(load_flame(head))


def _read(video: Path) -> tuple[np.ndarray, float]:
    try:
        return read_video(video)
    except FC4DError:
        raise
    except (OSError, RuntimeError, ValueError, KeyError, StopIteration) as error:
        raise TrackingFailed(f"{video} cannot be read as a video: {error}") from error
