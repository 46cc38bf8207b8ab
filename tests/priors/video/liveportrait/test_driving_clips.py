"""Driving sources of every kind, folders of them, and those that are unusable."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import skimage.data

from fc4d_ray.assets.tiny_liveportrait import write_tiny_liveportrait
from fc4d_ray.errors import ConfigError
from fc4d_ray.heads.anny import load_anny_head
from fc4d_ray.priors.video.liveportrait.animator import FaceAnimator, InferenceConfig
from fc4d_ray.priors.video.liveportrait.checkpoint import read_networks
from fc4d_ray.priors.video.liveportrait.driving import MotionConfig
from fc4d_ray.priors.video.liveportrait.driving_clips import (
    DrivingReader,
    Puppet,
    spread_frames,
)
from fc4d_ray.priors.video.liveportrait.driving_pool import (
    DrivingSource,
    choose_clips,
    open_pool,
    pool_digest,
)
from fc4d_ray.priors.video.motion import MotionClip, load_clip

FRONT = "222200037"


@pytest.fixture(scope="module")
def animator(tmp_path_factory: pytest.TempPathFactory) -> FaceAnimator:
    networks = read_networks(write_tiny_liveportrait(tmp_path_factory.mktemp("tiny")))
    return FaceAnimator(networks, InferenceConfig(input_size=64))


def _video(path: Path, frames: list[np.ndarray], fps: float = 20.0) -> Path:
    size = (frames[0].shape[1], frames[0].shape[0])
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), fps, size)
    for frame in frames:
        writer.write(cv2.cvtColor(frame, cv2.COLOR_RGB2BGR))
    writer.release()
    return path


@pytest.fixture(scope="module")
def face_video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A real face that moves sideways over nine frames."""
    face = skimage.data.astronaut()[:300, 60:420]
    frames = [np.roll(face, 2 * i, axis=1)[:, 20:340] for i in range(9)]
    return _video(tmp_path_factory.mktemp("videos") / "face.avi", frames)


def test_a_video_is_read_from_its_first_frame_on(animator: FaceAnimator, face_video: Path) -> None:
    reader = DrivingReader(animator, MotionConfig(), n_frames=4)
    source = DrivingSource("face", "video", face_video)
    clip = reader.read(source)
    assert clip.frames.tolist() == [0, 3, 5, 8] and clip.motion.n_frames == 4
    assert clip.motion.fps == 20 and clip.actions is None
    assert np.ptp(clip.motion.expression, axis=0).max() > 0
    assert reader.read(source) is clip, "read once, however often it drives"


def test_retargeting_reads_openness_off_videos(animator: FaceAnimator, face_video: Path) -> None:
    reader = DrivingReader(animator, MotionConfig(eye_retargeting=True), n_frames=3)
    motion = reader.read(DrivingSource("face", "video", face_video)).motion
    assert motion.eyes is not None and ((motion.eyes > 0.1) & (motion.eyes < 0.6)).all()
    assert motion.lips is not None and ((motion.lips >= 0) & (motion.lips < 0.6)).all()


def test_a_video_without_a_face(animator: FaceAnimator, tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (6, 96, 128, 3), np.uint8)
    path = _video(tmp_path / "noise.avi", list(noise))
    reader = DrivingReader(animator, MotionConfig(), n_frames=4)
    with pytest.raises(ConfigError, match=r"noise\.avi: no face found in any of 4 frames"):
        reader.read(DrivingSource("noise", "video", path))


def test_files_that_are_no_videos(animator: FaceAnimator, tmp_path: Path) -> None:
    reader = DrivingReader(animator, MotionConfig(), n_frames=4)
    path = tmp_path / "text.mp4"
    path.write_text("this is no video")
    with pytest.raises(ConfigError, match="cannot be opened as a video"):
        reader.read(DrivingSource("text", "video", path))


def test_arkit_clips_drive_through_the_head_model(animator: FaceAnimator) -> None:
    reader = DrivingReader(animator, MotionConfig(), n_frames=4)
    clip = reader.read(DrivingSource("smile", "actions", None))
    expected = load_clip("smile")
    np.testing.assert_array_equal(clip.actions, expected.actions[clip.frames])
    assert clip.motion.neutral is not None and clip.motion.neutral.shape == (21, 3)
    # The clip starts from the neutral face, which relative motion counts from.
    np.testing.assert_allclose(clip.motion.expression[0], clip.motion.neutral, atol=1e-5)
    assert np.abs(clip.motion.expression[2] - clip.motion.neutral).max() > 1e-5


def test_the_puppet_shows_what_it_is_told() -> None:
    head = load_anny_head()
    puppet = Puppet(head.rig(np.zeros(len(head.identity_basis))), 96)
    rest = puppet.rest().astype(int)
    assert rest.shape == (96, 96, 3)
    blink = load_clip("blink")
    closed = int(np.argmax(blink.actions.sum(1)))
    *_, picture = puppet.frames(_only(blink, [0, closed]))
    moved = np.abs(picture.astype(int) - rest).max(-1) > 12
    eye_rows, mouth_rows = moved[34:58], moved[62:]
    assert eye_rows.sum() > 20 > 4 * mouth_rows.sum(), "a blink moves the eyes"
    eyes, lips = puppet.openness(_only(blink, [0, closed]))
    assert (eyes[1] < 0.5 * eyes[0]).all() and abs(lips[1] - lips[0]) < 0.02


def _only(clip: MotionClip, frames: list[int]) -> MotionClip:
    return replace(clip, actions=clip.actions[frames], neck=clip.neck[frames])


def test_pools(tmp_path: Path) -> None:
    take = tmp_path / "nersemble" / "018" / "sequences" / "EMO-1-shout+laugh" / "images"
    take.mkdir(parents=True)
    for serial in (FRONT, "222200036"):
        (take / f"cam_{serial}.mp4").write_bytes(b"-")
    background = tmp_path / "nersemble" / "018" / "sequences" / "BACKGROUND" / "images"
    background.mkdir(parents=True)
    (background / f"cam_{FRONT}.mp4").write_bytes(b"-")
    loose = tmp_path / "nersemble" / "nod.csv"
    loose.write_text("-")
    (tmp_path / "nersemble" / "notes.txt").write_text("-")
    pool = open_pool(["smile", str(tmp_path / "nersemble")], FRONT)
    assert [(s.name, s.kind) for s in pool] == [
        ("smile", "actions"),
        ("018_EMO-1-shout+laugh", "video"),
        ("nod", "actions"),
    ]
    assert len(open_pool([str(take)], FRONT)) == 1
    digest = pool_digest(pool)
    loose.write_text("changed")
    assert pool_digest(open_pool(["smile", str(tmp_path / "nersemble")], FRONT)) != digest


def test_choices_are_seeded_and_different() -> None:
    pool = [DrivingSource(f"clip{i}", "actions", None) for i in range(20)]
    first = choose_clips(pool, 8, seed=4)
    assert choose_clips(pool, 8, seed=4) == first and choose_clips(pool, 8, seed=5) != first
    assert len({s.name for s in first}) == 8
    assert list(first) == sorted(first, key=pool.index)


def test_unusable_pools(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigError, match="no driving clip in folder"):
        open_pool([str(tmp_path / "empty")], FRONT)
    with pytest.raises(ConfigError, match="'smirk' is no shipped clip"):
        open_pool(["smirk"], FRONT)
    (tmp_path / "smile.csv").write_text("-")
    with pytest.raises(ConfigError, match=r"video\.clips is 2, but video\.pool holds 1"):
        open_pool(["smile"], FRONT, at_least=2)
    with pytest.raises(ConfigError, match="more than one clip is named smile"):
        open_pool(["smile", str(tmp_path / "smile.csv")], FRONT)


def test_spread_frames() -> None:
    assert spread_frames(9, 4).tolist() == [0, 3, 5, 8]
    assert spread_frames(3, 10).tolist() == [0, 1, 2]
    assert spread_frames(5, 1).tolist() == [0] and len(spread_frames(0, 3)) == 0
