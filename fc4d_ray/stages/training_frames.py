"""The pictures of one person, as the trainer wants them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fc4d_ray.avatar.frames import Sample
from fc4d_ray.cameras import Camera
from fc4d_ray.clips import ClipReader
from fc4d_ray.heads.flame_rig import FlameRig
from fc4d_ray.heads.rig import HeadRig
from fc4d_ray.images import read_png
from fc4d_ray.priors.shape.views import REFERENCE, read_cameras
from fc4d_ray.stages.track_flame import tracked_parameters


class PersonFrames:
    """A ``FrameSource`` over the image, video and track artifacts.

    Time 0 is rest; time ``1 + i`` is row ``i`` of ``track.npz``. Frames are decoded one at a time.
    """

    def __init__(
        self, shape: Path, image: Path, video: Path, track: Path, rig: HeadRig | FlameRig
    ) -> None:
        named = read_cameras(shape)
        self._pictures = [image / "views" / f"{c.name}.png" for c in named]
        self.names = [c.name for c in named]
        self.reference_view = self.names.index(REFERENCE)
        facts = json.loads((video / "video.json").read_text())
        with np.load(track / "track.npz") as tracked:
            clip, frame = tracked["clip"], tracked["frame"]
            self.parameters: Mapping[str, Tensor] = tracked_parameters(tracked)
        self._readers: dict[tuple[int, int], ClipReader] = {}
        rows = zip(clip.tolist(), frame.tolist(), strict=True)
        self._row = dict(enumerate(rows, start=1))
        for view_name in facts["views"]:
            view = self.names.index(view_name)
            for index, clip_name in enumerate(facts["clips"]):
                path = video / "clips" / clip_name / f"{view_name}.clip"
                self._readers[view, index] = ClipReader(path)
        self.static_samples = [Sample(view, 0) for view in range(len(named))]
        self.animated_samples = [
            Sample(self.names.index(name), time) for time in self._row for name in facts["views"]
        ]
        # One camera, one size: that of the clips, or of the picture where nothing moves.
        sizes = [reader.frame(0).shape[0] for reader in list(self._readers.values())[:1]]
        self.views: list[Camera] = [
            c.camera.resized(sizes[0], sizes[0]) if sizes else c.camera for c in named
        ]
        self._focus = [_face_box(rig, camera) for camera in self.views]

    def load(self, sample: Sample) -> NDArray[np.uint8]:
        """(H, W, 4) RGBA of one picture."""
        if sample.time == 0:
            picture, camera = read_png(self._pictures[sample.view]), self.views[sample.view]
            if picture.shape[1] == camera.width:
                return picture
            side = (camera.width, camera.height)
            return cv2.resize(picture, side, interpolation=cv2.INTER_AREA)
        clip, frame = self._row[sample.time]
        return self._readers[sample.view, clip].frame(frame)

    def focus_box(self, sample: Sample) -> tuple[float, float, float, float] | None:
        """The face's box where it is turned towards the camera."""
        return self._focus[sample.view]


def _face_box(rig: HeadRig | FlameRig, camera: Camera) -> tuple[float, float, float, float] | None:
    position = camera.position
    if np.rad2deg(np.arctan2(abs(position[0]), position[2])) > 80:
        return None
    points = rig.landmarks(torch.from_numpy(rig.neutral)).numpy().astype(np.float64)
    pixels, _ = camera.project(points)
    low, high = pixels.min(0), pixels.max(0)
    return float(low[0]), float(low[1]), float(high[0]), float(high[1])
