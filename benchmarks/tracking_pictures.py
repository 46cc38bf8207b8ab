"""Pictures of tracked clips: the found head over its frames, as a video and as a sheet.

python benchmarks/tracking_pictures.py --out OUT --sheet docs/images/tracking_sheet.jpg
"""

from __future__ import annotations

import argparse
from pathlib import Path

import cv2
import numpy as np
from tracking_recovery import CONDITIONS, anny_scene, landmarks_of, vertices_of

from fc4d_ray.cameras import Camera, orbit_camera
from fc4d_ray.evaluation.synthetic_clips import film
from fc4d_ray.publishing.sheet import Tile, compose_sheet
from fc4d_ray.publishing.video import write_video
from fc4d_ray.tracking.evidence import MultiviewFrames
from fc4d_ray.tracking.multiview import track_multiview
from fc4d_ray.tracking.overlay import overlay

_LABELS = ("front", "left side", "half right")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=Path, default=Path("tracking"))
    parser.add_argument("--sheet", type=Path)
    parser.add_argument("--frames", type=int, default=12)
    parser.add_argument("--size", type=int, default=192)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    frames, drawn = _tracked(arguments)
    rows = np.linspace(0, frames.n_frames - 1, 4).astype(int)
    tiles = [
        [Tile(drawn[view][t], f"{label}, frame {t}") for t in rows]
        for view, label in enumerate(_LABELS)
    ]
    plain = cv2.resize(frames.images[rows[1], 0], None, fx=3, fy=3, interpolation=cv2.INTER_CUBIC)
    sheet = compose_sheet(
        Tile(plain, "a frame as filmed"), tiles,
        "yellow: landmarks of the tracked head; green: as detected; blue: its surface",
    )  # fmt: skip
    path = arguments.sheet or arguments.out / "sheet.jpg"
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), sheet[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 88])
    beside = [np.concatenate([view[t] for view in drawn], 1) for t in range(frames.n_frames)]
    write_video(arguments.out / "overlay.mp4", beside, 10)
    print(path, arguments.out / "overlay.mp4")


def _tracked(arguments: argparse.Namespace) -> tuple[MultiviewFrames, list[list]]:
    """The frames, and the overlays by view and frame."""
    scene = anny_scene(arguments.seed, arguments.frames)
    cameras: list[Camera] = [
        orbit_camera(a, size=arguments.size, fov_deg=9.0) for a in (0, 75, -40, 40, -75)
    ]
    frames = film(scene.filmed, cameras).told(CONDITIONS["clean"], arguments.seed)
    track = track_multiview(scene.trackable, frames)
    vertices = vertices_of(scene.trackable, track)
    marks = landmarks_of(scene.trackable, vertices)
    drawn = [
        [
            overlay(
                frames.images[t, view], vertices[t], scene.trackable.faces, track.cameras[view],
                marks[t], frames.landmarks[t, view][frames.confidence[t, view] > 0],
                strength=0.35, zoom=3,
            )
            for t in range(frames.n_frames)
        ]
        for view in range(len(_LABELS))
    ]  # fmt: skip
    return frames, drawn


if __name__ == "__main__":
    main()
