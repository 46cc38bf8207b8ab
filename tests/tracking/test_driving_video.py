"""A driving clip out of a video: the command, the motion, and videos that hold no face."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from fc4d_ray.cameras import orbit_camera
from fc4d_ray.cli import app
from fc4d_ray.errors import ConfigError, TrackingFailed
from fc4d_ray.evaluation.synthetic import make_person
from fc4d_ray.evaluation.synthetic_clips import Flaws, film, filmed_person
from fc4d_ray.heads.anny import load_anny_head
from fc4d_ray.heads.trackable import trackable_anny
from fc4d_ray.portraits.landmark_providers import DlibLandmarks, PrecomputedLandmarks
from fc4d_ray.priors.video.flame_motion import read_flame_motion, write_flame_motion
from fc4d_ray.priors.video.motion import ACTION_NAMES, action_vector, read_live_link
from fc4d_ray.publishing.video import read_video, write_video
from fc4d_ray.tracking.driving_command import make_provider
from fc4d_ray.tracking.driving_video import (
    DrivingConfig,
    DrivingTrack,
    to_flame_motion,
    to_motion_clip,
    track_driver,
)
from fc4d_ray.tracking.multiview import MultiviewTrack
from fc4d_ray.tracking.multiview_config import MultiviewConfig

QUICK = MultiviewConfig(divisors=(), landmark_iterations=6)


@pytest.fixture(scope="module")
def filmed():
    actions = np.stack(
        [action_vector(w) for w in ({}, {"jawOpen": 0.5}, {"jawOpen": 0.9}, {"jawOpen": 0.1})]
    )
    motion = np.zeros((4, 6))
    motion[:, 1] = (0.0, 0.1, 0.2, 0.0)
    head = filmed_person(make_person(3), actions, motion)
    shot = film(head, [orbit_camera(0, size=224, fov_deg=9.0)])
    return shot.told(Flaws(landmark_m=0.0005, camera_deg=0, camera_m=0), 1)


@pytest.fixture(scope="module")
def video(filmed, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("driving") / "talk.mp4"
    write_video(path, filmed.images[:, 0], 25)
    np.savez(path.with_suffix(".npz"), points=filmed.landmarks[:, 0])
    return path


def test_the_command_writes_a_clip_and_an_overlay(video, tmp_path) -> None:
    out, overlay = tmp_path / "clip.csv", tmp_path / "over.mp4"
    result = CliRunner().invoke(
        app,
        ["drive", str(video), "--out", str(out), "--landmarks", str(video.with_suffix(".npz")),
         "--neutral", "0", "--fov", "9", "--overlay", str(overlay)],
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    clip = read_live_link(out)
    jaw = clip.actions[:, ACTION_NAMES.index("jawOpen")]
    assert clip.n_frames == 4 and jaw[0] == 0 and jaw[2] == jaw.max() > 0.4 and jaw[1] > jaw[3]
    assert clip.neck[2, 1] == pytest.approx(0.2, abs=0.06)
    drawn, _ = read_video(overlay)
    assert drawn.shape == (4, 448, 448, 3)
    plain, _ = read_video(video)
    assert np.abs(drawn[0, ::2, ::2].astype(int) - plain[0]).max() > 60, "something is drawn"


def test_dlib_sees_the_driver_too(filmed) -> None:
    pictures = filmed.images[:3, 0]
    driven = track_driver(
        trackable_anny(load_anny_head()), pictures, 25.0, DlibLandmarks(), tracking=QUICK
    )
    assert driven.seen.all()
    clip = to_motion_clip(driven, "talk", DrivingConfig(neutral_frame=0))
    assert clip.actions[2, ACTION_NAMES.index("jawOpen")] > 0.25


def test_videos_that_cannot_drive_are_refused(filmed, tmp_path) -> None:
    head = trackable_anny(load_anny_head())
    empty = PrecomputedLandmarks(np.full((4, 68, 2), np.nan))
    with pytest.raises(TrackingFailed, match="0 of 4 frames"):
        track_driver(head, filmed.images[:, 0], 25.0, empty, tracking=QUICK)
    with pytest.raises(TrackingFailed, match="max_frames is 2"):
        track_driver(head, filmed.images[:, 0], 25.0, empty, DrivingConfig(max_frames=2))
    with pytest.raises(ConfigError, match="neutral_frame 9 of 4"):
        track_driver(head, filmed.images[:, 0], 25.0, empty, DrivingConfig(neutral_frame=9))
    with pytest.raises(ConfigError, match="fov_deg"):
        DrivingConfig(fov_deg=1)
    with pytest.raises(ConfigError, match="--landmarks"):
        make_provider("star", 64, 64)

    def drive(*arguments: object) -> tuple[int, str]:
        result = CliRunner().invoke(app, ["drive", *map(str, arguments)])
        assert result.exception is None or isinstance(result.exception, SystemExit)
        return result.exit_code, result.stderr

    no_video = tmp_path / "text.mp4"
    no_video.write_text("no video")
    code, told = drive(no_video, "--out", tmp_path / "a.csv")
    assert code == 1 and "cannot be read as a video" in told
    code, told = drive(tmp_path / "none.mp4", "--out", tmp_path / "a.csv")
    assert code == 2 and "there is no video" in told
    code, told = drive(no_video, "--out", tmp_path / "a.npz")
    assert code == 2 and "--head anny writes .csv" in told
    code, told = drive(no_video, "--out", tmp_path / "a.npz", "--head", "flame1999")
    assert code == 2 and "flame1999" in told


def test_a_driver_tracked_with_flame_becomes_vhaps_form(filmed, tmp_path) -> None:
    random = np.random.default_rng(0)
    sizes = {"expr": 20, "rotation": 3, "neck": 3, "jaw": 3, "eyes": 6, "translation": 3}
    found = {n: random.normal(size=(4, d)).astype(np.float32) for n, d in sizes.items()}
    track = MultiviewTrack(
        random.normal(size=30).astype(np.float32), found, 1.0, tuple(filmed.cameras),
        np.zeros((0, 3)), np.zeros((9, 3)), np.zeros(0, int), np.zeros((4, 1)), 0.0,
    )  # fmt: skip
    driven = DrivingTrack(track, filmed, 25.0, np.ones(4, bool))
    write_flame_motion(to_flame_motion(driven, "talk"), tmp_path / "talk.npz")
    again = read_flame_motion(tmp_path / "talk.npz")
    assert again.fps == 25 and again.n_frames == 4
    np.testing.assert_array_equal(again.parameters["jaw"], found["jaw"])
    np.testing.assert_array_equal(again.shape, track.identity)
