from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fc4d_ray.errors import ConfigError
from fc4d_ray.priors.video.authoring import authored_clips
from fc4d_ray.priors.video.motion import (
    ACTION_NAMES,
    MotionClip,
    action_vector,
    load_clip,
    read_live_link,
    shipped_clip_names,
    write_live_link,
)

SHIPPED = {"neutral", "speech", "smile", "surprise", "blink", "brow", "mixed", "frown"}


def _action(clip: MotionClip, name: str) -> np.ndarray:
    return clip.actions[:, ACTION_NAMES.index(name)]


def _random_clip(n_frames: int, fps: float, seed: int = 0) -> MotionClip:
    random = np.random.default_rng(seed)
    return MotionClip(
        "random",
        fps,
        random.random((n_frames, 52), np.float32),
        random.uniform(-0.4, 0.4, (n_frames, 3)).astype(np.float32),
    )


def test_action_names_are_arkits_52_in_alphabetical_order() -> None:
    assert len(ACTION_NAMES) == len(set(ACTION_NAMES)) == 52
    assert list(ACTION_NAMES) == sorted(ACTION_NAMES)
    assert ACTION_NAMES[0] == "browDownLeft" and ACTION_NAMES[24] == "jawOpen"
    for name in ACTION_NAMES:
        if name.endswith("Left") and name not in ("jawLeft", "mouthLeft"):
            assert name.removesuffix("Left") + "Right" in ACTION_NAMES


def test_shipped_files_are_what_the_authoring_script_writes() -> None:
    authored = {clip.name: clip for clip in authored_clips()}
    assert set(authored) == set(shipped_clip_names()) == SHIPPED
    for name, expected in authored.items():
        clip = load_clip(name)
        assert clip.name == name and clip.fps == 30
        np.testing.assert_allclose(clip.actions, expected.actions, atol=6e-5)
        np.testing.assert_allclose(clip.neck, expected.neck, atol=2e-4)


@pytest.mark.parametrize("name", sorted(SHIPPED))
def test_shipped_motion_is_believable(name: str) -> None:
    clip = load_clip(name)
    assert 1.4 <= clip.duration_s <= 3.0
    assert clip.actions[0].max() < 0.01 and clip.actions[-1].max() < 0.05, "starts, ends neutral"
    assert np.abs(clip.neck[0]).max() < 0.005
    assert np.linalg.norm(clip.neck, axis=1).max() < np.deg2rad(8)
    speed = np.abs(np.diff(clip.actions, axis=0)).max(axis=0)
    is_fast = np.array([n.startswith(("eyeBlink", "eyeLook")) for n in ACTION_NAMES])
    assert speed[~is_fast].max() < 0.32, "per frame at 30 fps"


def test_clips_do_what_their_names_say() -> None:
    assert load_clip("neutral").actions.max() < 0.1
    smile = load_clip("smile")
    peak = smile.actions[_action(smile, "mouthSmileLeft").argmax()]
    for name in ("mouthSmileLeft", "mouthSmileRight", "cheekSquintLeft", "mouthDimpleLeft"):
        assert peak[ACTION_NAMES.index(name)] > 0.15, name
    surprise = load_clip("surprise")
    assert _action(surprise, "browInnerUp").max() > 0.8
    assert _action(surprise, "jawOpen").max() > 0.5
    assert _action(load_clip("frown"), "mouthFrownLeft").max() > 0.7
    brow = load_clip("brow")
    assert _action(brow, "browOuterUpLeft").argmax() < _action(brow, "browDownLeft").argmax()


def test_blinks_last_150_to_200_ms_and_close_the_lids() -> None:
    blink = load_clip("blink")
    lid = _action(blink.resampled(300), "eyeBlinkLeft")
    edges = np.flatnonzero(np.diff((lid > 0.02).astype(int)))
    durations_s = (edges[1::2] - edges[::2]) / 300
    assert len(durations_s) == 3
    # Linear interpolation between 30 fps samples widens each blink by up to a frame.
    assert (durations_s > 0.14).all() and (durations_s < 0.235).all()
    for start, end in zip(edges[::2], edges[1::2], strict=True):
        assert lid[start : end + 1].max() > 0.95


def test_speech_closes_the_lips_and_opens_the_jaw() -> None:
    speech = load_clip("speech")
    jaw, press = _action(speech, "jawOpen"), _action(speech, "mouthPressLeft")
    assert jaw.max() > 0.3 and _action(speech, "mouthPucker").max() > 0.35
    assert press.max() > 0.25
    assert jaw[press.argmax()] < 0.12, "bilabials close the jaw"
    n_openings = np.sum((jaw[1:-1] > jaw[:-2]) & (jaw[1:-1] >= jaw[2:]) & (jaw[1:-1] > 0.1))
    assert n_openings >= 5


def test_written_files_read_back(tmp_path: Path) -> None:
    clip = _random_clip(70, 24)
    write_live_link(clip, tmp_path / "take.csv")
    read = read_live_link(tmp_path / "take.csv")
    assert read.name == "take" and read.fps == 24
    np.testing.assert_allclose(read.actions, clip.actions, atol=6e-5)
    np.testing.assert_allclose(read.neck, clip.neck, atol=2e-4)
    header = (tmp_path / "take.csv").read_text().splitlines()[0].split(",")
    assert header[:2] == ["Timecode", "BlendshapeCount"] and len(header) == 63
    assert {"EyeBlinkLeft", "TongueOut", "HeadYaw", "RightEyeRoll"} <= set(header)


def test_capture_at_60_fps_with_dropped_frames_and_noise(tmp_path: Path) -> None:
    write_live_link(_random_clip(150, 60), tmp_path / "full.csv")
    lines = (tmp_path / "full.csv").read_text().splitlines()
    del lines[20:23]
    cells = lines[1].split(",")
    cells[2], cells[3] = "1.04", "-0.01"
    lines[1] = ",".join(cells)
    (tmp_path / "dropped.csv").write_text("\r\n".join(lines), encoding="utf-8-sig")
    clip = read_live_link(tmp_path / "dropped.csv")
    assert clip.fps == 60 and clip.n_frames == 147
    assert clip.actions[0, 0] == 1.0 and clip.actions[0, 1] == 0.0


@pytest.mark.parametrize(
    ("yaw", "pitch", "roll", "moved", "towards"),
    [
        (0.3, 0, 0, [0, 0, 1], [1, 0, 0]),  # yaw: the face turns to the subject's left
        (0, 0.3, 0, [0, 0, 1], [0, -1, 0]),  # pitch: it bows
        (0, 0, 0.3, [0, 1, 0], [-1, 0, 0]),  # roll: the crown leans to the subject's right
    ],
)
def test_head_angles_follow_the_conventions(
    tmp_path: Path, yaw: float, pitch: float, roll: float, moved: list, towards: list
) -> None:
    from scipy.spatial.transform import Rotation

    still = MotionClip("x", 60, np.zeros((1, 52), np.float32), np.zeros((1, 3), np.float32))
    write_live_link(still, tmp_path / "x.csv")
    header, row = (line.split(",") for line in (tmp_path / "x.csv").read_text().splitlines())
    for column, value in (("HeadYaw", yaw), ("HeadPitch", pitch), ("HeadRoll", roll)):
        row[header.index(column)] = str(value)
    (tmp_path / "x.csv").write_text(",".join(header) + "\n" + ",".join(row))
    neck = read_live_link(tmp_path / "x.csv").neck[0]
    turned = Rotation.from_rotvec(neck).apply(moved)
    assert turned @ towards == pytest.approx(np.sin(0.3), abs=1e-6)


def test_resampling_keeps_linear_motion_exact() -> None:
    ramp = np.linspace(0, 1, 61, dtype=np.float32)
    clip = MotionClip("ramp", 60, np.tile(ramp[:, None], (1, 52)), np.tile(ramp[:, None], (1, 3)))
    for fps in (24.0, 30.0, 100.0):
        other = clip.resampled(fps)
        assert other.fps == fps and other.n_frames == int(fps) + 1
        np.testing.assert_allclose(other.actions[:, 0], np.arange(fps + 1) / fps, atol=1e-6)
        np.testing.assert_allclose(other.neck[:, 0], np.arange(fps + 1) / fps, atol=1e-6)
    assert clip.resampled(60) is clip


def test_bad_files_and_names_are_config_errors(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="did you mean .*jawOpen"):
        action_vector({"jawopen": 1.0})
    with pytest.raises(ConfigError, match="jawOpen: expected a weight"):
        action_vector({"jawOpen": 1.5})
    with pytest.raises(ConfigError, match="none of the shipped clips .*speech"):
        load_clip("yodelling")
    bad = tmp_path / "bad.csv"
    for content, message in (
        ("", "header and at least one frame"),
        ("Timecode,EyeBlinkLeft\n00:00:00:00,0.1\n", "no column BrowDownLeft"),
        (b"\x89PNG\xff\xfe", "no CSV file"),
    ):
        bad.write_bytes(content if isinstance(content, bytes) else content.encode())
        with pytest.raises(ConfigError, match=message):
            load_clip(bad)
    write_live_link(_random_clip(2, 30), bad)
    text = bad.read_text()
    bad.write_text(text.replace("\n00:00:00:01.000,61,", "\n00:00:00:01.000,61,x", 1))
    with pytest.raises(ConfigError, match="row 2, column BrowDownLeft"):
        load_clip(bad)
    with pytest.raises(ConfigError, match="outside"):
        MotionClip("x", 30, np.full((1, 52), 2, np.float32), np.zeros((1, 3), np.float32))
    assert action_vector({"jawOpen": 0.5})[24] == 0.5
