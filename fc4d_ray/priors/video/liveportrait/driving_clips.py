"""Reads a driving source of any kind as keypoint motion.

Videos and ARKit clips go through the motion extractor: a video's face is cropped by one box for
all its frames, an ARKit clip moves the shipped head model, which is rendered from the front.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from fc4d_ray.cameras import Camera
from fc4d_ray.errors import ConfigError
from fc4d_ray.heads.landmark_embedding import frontal_camera, shaded, template_albedo
from fc4d_ray.heads.rig import HeadRig
from fc4d_ray.portraits.dlib_models import FaceModels
from fc4d_ray.priors.video.liveportrait.animator import FaceAnimator
from fc4d_ray.priors.video.liveportrait.driving import MotionConfig
from fc4d_ray.priors.video.liveportrait.driving_pool import DrivingSource
from fc4d_ray.priors.video.liveportrait.framing import box_transform, driving_box
from fc4d_ray.priors.video.liveportrait.keypoint_motion import (
    KeypointMotion,
    motion_from_faces,
    read_motion,
)
from fc4d_ray.priors.video.liveportrait.openness import openness_68
from fc4d_ray.priors.video.liveportrait.smoothing import kalman_smoothed, nearest_rotations
from fc4d_ray.priors.video.motion import MotionClip, load_clip

BOX_FRAMES = 12
"""Frames of a video in which the face is looked for, to place the box."""
DETECTION_SIDE = 640
"""Frames are reduced to this longer side for the detector, px."""
DETECTOR_THRESHOLD = -0.1


@dataclass(frozen=True)
class DrivingClip:
    """Keypoint motion at the chosen frames of one source."""

    source: DrivingSource
    motion: KeypointMotion
    frames: NDArray[np.int64]
    """(T,) frame numbers in the source; the first is 0, which relative motion counts from."""
    actions: NDArray[np.float32] | None = None
    """(T, 52) where the source states them."""


class DrivingReader:
    """Reads each source once and remembers it, however many avatars it drives."""

    def __init__(
        self,
        animator: FaceAnimator,
        config: MotionConfig,
        n_frames: int,
        rig: HeadRig | None = None,
    ) -> None:
        self._animator = animator
        self._config = config
        self._n_frames = n_frames
        self._rig = rig
        self._faces = FaceModels()
        self._read: dict[str, DrivingClip] = {}

    def read(self, source: DrivingSource) -> DrivingClip:
        """Motion of one source.

        Raises ``ConfigError`` where the source cannot be read, is empty or shows no face.
        """
        if source.name not in self._read:
            self._read[source.name] = self._read_kind(source)
        return self._read[source.name]

    def _read_kind(self, source: DrivingSource) -> DrivingClip:
        if source.kind == "template":
            motion = self._smoothed(read_motion(cast(Path, source.path)))
            frames = spread_frames(motion.n_frames, self._n_frames)
            return DrivingClip(source, motion.chosen(frames), frames)
        if source.kind == "actions":
            return self._from_actions(source)
        return self._from_video(source)

    def _smoothed(self, motion: KeypointMotion) -> KeypointMotion:
        variance = self._config.smoothing
        if variance == 0:
            return motion
        return replace(
            motion,
            expression=kalman_smoothed(motion.expression, variance),
            rotation=nearest_rotations(kalman_smoothed(motion.rotation, variance)),
        )

    def _from_actions(self, source: DrivingSource) -> DrivingClip:
        clip = load_clip(source.name if source.path is None else source.path)
        frames = spread_frames(clip.n_frames, self._n_frames)
        puppet = Puppet(self._head(), self._animator.config.input_size)
        keeps_pose = self._config.region not in ("all", "pose")
        shown = replace(
            clip,
            actions=clip.actions[frames],
            neck=clip.neck[frames] * (0.0 if keeps_pose else 1.0),
        )
        faces = self._animator.read_driving(puppet.frames(shown))
        rest = self._animator.read_driving([puppet.rest()])
        eyes, lips = puppet.openness(shown)
        motion = motion_from_faces(source.name, clip.fps, faces, eyes, lips)
        motion = replace(motion, neutral=rest.expression[0].cpu().numpy())
        return DrivingClip(source, self._smoothed(motion), frames, shown.actions)

    def _head(self) -> HeadRig:
        if self._rig is None:
            from fc4d_ray.heads.anny import load_anny_head

            head = load_anny_head()
            self._rig = head.rig(np.zeros(len(head.identity_basis)))
        return self._rig

    def _from_video(self, source: DrivingSource) -> DrivingClip:
        path = cast(Path, source.path)
        count, fps = _length(path)
        wanted = spread_frames(count, self._n_frames)
        pictures = list(_frames_at(path, wanted))
        if not pictures:
            raise ConfigError(f"driving video {path} has zero frames")
        frames = wanted[: len(pictures)]
        landmarks = self._landmarks(path, pictures)
        boxes = np.stack([driving_box(points) for points in landmarks.values()])
        side = self._animator.config.input_size
        transform = box_transform(boxes.mean(0), side)
        faces = self._animator.read_driving(_cropped(p, transform, side) for p in pictures)
        eyes = lips = None
        if self._config.retargets:
            eyes, lips = _openness_of_all(landmarks, len(pictures))
        motion = motion_from_faces(source.name, fps, faces, eyes, lips)
        return DrivingClip(source, self._smoothed(motion), frames)

    def _landmarks(
        self, path: Path, pictures: list[NDArray[np.uint8]]
    ) -> dict[int, NDArray[np.float64]]:
        """68 landmarks (68, 2) of those looked-at frames that show a face, by index."""
        count = len(pictures) if self._config.retargets else BOX_FRAMES
        looked_at = spread_frames(len(pictures), count)
        found = {}
        for index in looked_at.tolist():
            picture = pictures[index]
            factor = min(1.0, DETECTION_SIDE / max(picture.shape[:2]))
            reduced = cv2.resize(picture, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA)
            faces = self._faces.find_hog(reduced, upsample=0, threshold=DETECTOR_THRESHOLD)
            if faces:
                largest = max(faces, key=lambda face: face.width)
                found[index] = self._faces.landmarks(reduced, largest.box) / factor
        if not found:
            raise ConfigError(
                f"driving video {path}: no face found in any of {len(looked_at)} frames looked at"
            )
        return found


class Puppet:
    """The head model, plainly shaded, as a driving video of an ARKit clip."""

    def __init__(self, rig: HeadRig, size: int) -> None:
        self._rig = rig
        neutral = torch.as_tensor(rig.neutral)
        self._albedo = template_albedo(rig.neutral, rig.region)
        camera = frontal_camera()
        pixels, _ = camera.project(rig.landmarks(neutral).numpy().astype(np.float64))
        left, top, right, _ = driving_box(pixels)
        factor = size / (right - left)
        resized = camera.resized(round(camera.width * factor), round(camera.height * factor))
        self._camera: Camera = resized.cropped(left * factor, top * factor, size, size)

    def rest(self) -> NDArray[np.uint8]:
        """(S, S, 3) of the face at rest."""
        return self._render(self._rig.pose(self._rig.neutral_parameters())[0].numpy())

    def frames(self, clip: MotionClip) -> Iterator[NDArray[np.uint8]]:
        """(S, S, 3) pictures of the clip."""
        for frame in range(clip.n_frames):
            yield self._render(self._vertices(clip, frame)[0].numpy())

    def openness(self, clip: MotionClip) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Eyes (T, 2) and lips (T, 1) of the clip, on the model's own landmarks."""
        points = [self._rig.landmarks(self._vertices(clip, i)) for i in range(clip.n_frames)]
        eyes, lips = openness_68(torch.cat(points).numpy())
        return eyes.astype(np.float32), lips.astype(np.float32)

    def _vertices(self, clip: MotionClip, frame: int) -> torch.Tensor:
        parameters = clip.parameters(frame)
        return self._rig.pose({name: torch.from_numpy(v) for name, v in parameters.items()})

    def _render(self, vertices: NDArray[np.float32]) -> NDArray[np.uint8]:
        return shaded(vertices, self._rig.faces, self._albedo, self._camera)


def spread_frames(available: int, count: int) -> NDArray[np.int64]:
    """Up to ``count`` rising frame numbers, evenly spread, the first one 0."""
    if available < 1:
        return np.zeros(0, np.int64)
    return np.unique(np.linspace(0, available - 1, min(count, available)).round().astype(np.int64))


def _length(path: Path) -> tuple[int, float]:
    video = cv2.VideoCapture(str(path))
    try:
        if not video.isOpened():
            raise ConfigError(f"driving video {path} cannot be opened as a video")
        count, fps = int(video.get(cv2.CAP_PROP_FRAME_COUNT)), video.get(cv2.CAP_PROP_FPS)
    finally:
        video.release()
    if count < 1:
        raise ConfigError(f"driving video {path} has zero frames")
    return count, fps if fps > 0 else 25.0


def _frames_at(path: Path, wanted: NDArray[np.int64]) -> Iterator[NDArray[np.uint8]]:
    """RGB frames of rising numbers; ends early where the file holds fewer than it says."""
    video = cv2.VideoCapture(str(path))
    try:
        for number in range(int(wanted[-1]) + 1):
            if not video.grab():
                return
            if number in wanted:
                read, frame = video.retrieve()
                if not read:
                    return
                yield cv2.cvtColor(frame, cv2.COLOR_BGR2RGB)
    finally:
        video.release()


def _cropped(
    picture: NDArray[np.uint8], transform: NDArray[np.float64], side: int
) -> NDArray[np.uint8]:
    """(side, side, 3) of the picture, black beyond its borders."""
    # OpenCV puts pixel centres at whole numbers.
    shifted = transform.copy()
    shifted[:, 2] += 0.5 * (transform[:, :2].sum(1) - 1)
    return cv2.warpAffine(picture, shifted, (side, side), flags=cv2.INTER_AREA)


def _openness_of_all(
    landmarks: dict[int, NDArray[np.float64]], count: int
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Openness of every frame; frames without a found face get their neighbours' by time."""
    known = np.array(sorted(landmarks))
    eyes, lips = openness_68(np.stack([landmarks[index] for index in known]))
    at = np.arange(count)
    columns = [np.interp(at, known, values) for values in (*eyes.T, *lips.T)]
    stacked = np.stack(columns, 1).astype(np.float32)
    return stacked[:, :2], stacked[:, 2:]
