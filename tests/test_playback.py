from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from fc4d_ray import playback
from fc4d_ray.cameras import Camera
from fc4d_ray.errors import ConfigError
from fc4d_ray.images import read_png
from fc4d_ray.playback import Performance, ViewPath, render_views
from fc4d_ray.priors.video.motion import ACTION_NAMES, MotionClip, load_clip, write_live_link
from fc4d_ray.publishing.video import read_video

JAW_OPEN = ACTION_NAMES.index("jawOpen")


class MarkedHead:
    """Fake avatar: a red dot where the nose is, and a green field as bright as jawOpen."""

    def render(self, camera: Camera, parameters: Mapping[str, Tensor]) -> Tensor:
        assert parameters["actions"].shape == (1, 52) and parameters["neck"].shape == (1, 3)
        image = torch.zeros(camera.height, camera.width, 4)
        image[: camera.height // 4, :, 1] = parameters["actions"][0, JAW_OPEN]
        image[: camera.height // 4, :, 3] = 1.0
        pixel, _ = camera.project(np.array([0.0, 0.0, 0.1]))
        x, y = np.floor(pixel).astype(int)
        image[y - 2 : y + 3, x - 2 : x + 3] = torch.tensor([1.0, 0.0, 0.0, 1.0])
        return image


@pytest.fixture
def avatar_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(playback, "load_avatar", lambda directory: MarkedHead())
    return tmp_path


def _dot_x(image: np.ndarray) -> float:
    red = (image[..., 0] > 180) & (image[..., 1] < 80) & (image[..., 2] < 80)
    return float(np.nonzero(red)[1].mean())


def test_stills_are_named_after_their_view_and_show_it(avatar_dir: Path) -> None:
    out = avatar_dir / "views"
    files = render_views(avatar_dir, [0, 30, -30], [0, 10], size=64, out=out)
    assert {f.name for f in files} == {
        f"az{a}_el{e}.png" for a in ("+000", "+030", "-030") for e in ("+00", "+10")
    }
    left, front, right = (
        _dot_x(read_png(out / f"{name}_el+00.png")) for name in ("az-030", "az+000", "az+030")
    )
    assert front == pytest.approx(31.5, abs=0.6)
    # From the subject's left (azimuth +30) the nose points to the left of the picture.
    assert right < front - 3 and left > front + 3


def test_white_background_or_alpha(avatar_dir: Path) -> None:
    (plain,) = render_views(avatar_dir, size=32, out=avatar_dir / "white")
    (with_alpha,) = render_views(avatar_dir, size=32, out=avatar_dir / "rgba", rgba=True)
    white, rgba = read_png(plain), read_png(with_alpha)
    assert white.shape == (32, 32, 3) and (white[20, 2] == 255).all()
    assert rgba.shape == (32, 32, 4) and rgba[20, 2, 3] == 0 and rgba[2, 2, 3] == 255


def test_actions_reach_the_avatar(avatar_dir: Path) -> None:
    (file,) = render_views(avatar_dir, actions={"jawOpen": 0.5}, size=32, out=avatar_dir / "x")
    assert read_png(file)[2, 2].tolist() == [0, 128, 0]


def test_clip_gives_one_still_per_frame(avatar_dir: Path) -> None:
    clip = load_clip("surprise")
    files = render_views(avatar_dir, clip="surprise", size=32, out=avatar_dir / "frames")
    assert len(files) == clip.n_frames and files[7].name == "az+000_el+00_f0007.png"
    greens = [int(read_png(file)[2, 2, 1]) for file in files]
    np.testing.assert_allclose(greens, clip.actions[:, JAW_OPEN] * 255, atol=0.51)


def test_video_of_a_clip_file(avatar_dir: Path) -> None:
    actions = np.zeros((30, 52), np.float32)
    actions[15:, JAW_OPEN] = 1.0
    clip = MotionClip("jaw", 25.0, actions, np.zeros((30, 3), np.float32))
    write_live_link(clip, avatar_dir / "jaw.csv")
    target = avatar_dir / "deep" / "jaw.mp4"
    assert render_views(avatar_dir, clip=avatar_dir / "jaw.csv", size=64, video=target) == [target]
    frames, fps = read_video(target)
    assert fps == 25 and frames.shape == (30, 64, 64, 3)
    assert frames[5, 5, 32, 1] < 30 and frames[25, 5, 32, 1] > 220


def test_video_without_a_clip_moves_the_camera(avatar_dir: Path) -> None:
    target = avatar_dir / "turn.mp4"
    render_views(avatar_dir, [-30, 30], size=64, video=target)
    frames, fps = read_video(target)
    assert fps == 24 and len(frames) == 96
    dots = [_dot_x(frame) for frame in frames[::12]]
    assert dots == sorted(dots, reverse=True) and dots[0] - dots[-1] > 6


def test_camera_moves_at_constant_speed_through_its_keys() -> None:
    path = ViewPath((0.0, 10.0, 40.0), (0.0, 0.0, 20.0), size=32)
    positions = np.array([camera.position for camera in path.moving_cameras(100)])
    elevations = np.rad2deg(np.arcsin(positions[:, 1] / np.linalg.norm(positions, axis=1)))
    azimuths = np.rad2deg(np.arctan2(positions[:, 0], positions[:, 2]))
    speed = np.hypot(np.diff(elevations), np.diff(azimuths))
    # One step cuts the corner at the middle key.
    np.testing.assert_allclose(speed, speed.mean(), rtol=0.06)
    assert azimuths[-1] == pytest.approx(40) and elevations[-1] == pytest.approx(20)


def test_the_stronger_of_clip_and_constant_action_acts() -> None:
    actions = np.zeros((2, 52), np.float32)
    actions[1, JAW_OPEN] = 0.9
    clip = MotionClip("x", 30, actions, np.full((2, 3), 0.1, np.float32))
    performance = Performance({"jawOpen": 0.4, "eyeBlinkLeft": 1.0}, clip)
    jaw = [float(performance.parameters(i)["actions"][0, JAW_OPEN]) for i in range(2)]
    assert jaw == pytest.approx([0.4, 0.9])
    assert performance.parameters(1)["neck"].tolist() == [pytest.approx([0.1] * 3)]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"actions": {"jawopen": 1.0}}, "did you mean"),
        ({"actions": {"jawOpen": 2.0}}, "weight in"),
        ({"clip": "nowhere.csv"}, "no such file"),
        ({"azimuths_deg": [10.1, 10.4]}, "both named"),
        ({"azimuths_deg": []}, "--azimuth"),
        ({"elevations_deg": [95]}, "--elevation"),
        ({"size": 4}, "--size"),
        ({"fov_deg": 0}, "--fov"),
        ({"radius_m": -1}, "--radius"),
        ({"video": Path("x.mp4")}, "--video needs --clip"),
        ({"video": Path("x.gif"), "clip": "smile"}, r"\.mp4"),
        ({"video": Path("x.mp4"), "clip": "smile", "rgba": True}, "exclude"),
        ({"video": Path("x.mp4"), "azimuths_deg": [0, 1, 2], "elevations_deg": [0, 1]}, "as many"),
    ],
)
def test_unusable_options_are_config_errors(avatar_dir: Path, options: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        render_views(avatar_dir, out=avatar_dir / "out", **options)


def test_missing_avatar_is_a_config_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no avatar in .*expected rig.npz"):
        render_views(tmp_path, out=tmp_path / "out")
    assert not (tmp_path / "out").exists()
