from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from fc4d_ray.errors import ConfigError
from fc4d_ray.heads.expression_conversion import ExpressionConversion
from fc4d_ray.heads.flame import FlameModel
from fc4d_ray.priors.video.flame_motion import (
    FlameMotion,
    flame_motion_from_clip,
    read_flame_motion,
    write_flame_motion,
)
from fc4d_ray.priors.video.motion import ACTION_NAMES, MotionClip, action_vector

SIZES = {"expr": 100, "rotation": 3, "neck": 3, "jaw": 3, "eyes": 6, "translation": 3}


@pytest.fixture
def motion() -> FlameMotion:
    random = np.random.default_rng(0)
    values = {n: random.normal(size=(4, d)).astype(np.float32) for n, d in SIZES.items()}
    return FlameMotion("take", 24.0, values, random.normal(size=300).astype(np.float32))


def test_sequences_are_read_back(motion, tmp_path) -> None:
    write_flame_motion(motion, tmp_path / "take.npz")
    with np.load(tmp_path / "take.npz") as file:
        assert {"neck_pose", "jaw_pose", "eyes_pose", "expr", "shape", "timestep_id"} <= set(file)
    again = read_flame_motion(tmp_path / "take.npz")
    assert again.fps == 24.0 and again.name == "take"
    for name, values in motion.parameters.items():
        np.testing.assert_array_equal(again.parameters[name], values)


def test_a_folder_of_time_steps_is_one_sequence(motion, tmp_path) -> None:
    """What avatar datasets look like, NeRSemble's among them."""
    folder = tmp_path / "EMO-1" / "flame_param"
    folder.mkdir(parents=True)
    names = {"neck": "neck_pose", "jaw": "jaw_pose", "eyes": "eyes_pose"}
    for t in range(4):
        arrays = {names.get(n, n): v[t : t + 1] for n, v in motion.parameters.items()}
        np.savez(folder / f"{t:05d}.npz", shape=motion.shape, **arrays)
    found = read_flame_motion(tmp_path / "EMO-1", fps=30)
    assert found.n_frames == 4 and found.fps == 30 and found.name == "EMO-1"
    np.testing.assert_array_equal(found.parameters["jaw"], motion.parameters["jaw"])
    np.testing.assert_array_equal(found.shape, motion.shape)


def test_bad_sequences_are_refused(motion, tmp_path) -> None:
    sound = dict(motion.parameters)
    broken = {n: v.copy() for n, v in motion.parameters.items()}
    broken["jaw"][2, 1] = np.nan
    with pytest.raises(ConfigError, match="jaw is no number in frame 2"):
        replace(motion, parameters=broken)
    with pytest.raises(ConfigError, match="eyes is missing"):
        replace(motion, parameters={n: v for n, v in sound.items() if n != "eyes"})
    with pytest.raises(ConfigError, match="no frames"):
        replace(motion, parameters={n: v[:0] for n, v in sound.items()})
    with pytest.raises(ConfigError, match="expected a file of FLAME parameters"):
        read_flame_motion(tmp_path)
    np.savez(tmp_path / "poses.npz", expr=np.zeros((2, 100)))
    with pytest.raises(ConfigError, match="rotation is missing"):
        read_flame_motion(tmp_path / "poses.npz")
    write_flame_motion(motion, tmp_path / "cut.npz")
    whole = (tmp_path / "cut.npz").read_bytes()
    (tmp_path / "cut.npz").write_bytes(whole[:400])
    with pytest.raises(ConfigError, match="cannot be read"):
        read_flame_motion(tmp_path / "cut.npz")


def test_arkit_clips_drive_flame_and_come_back() -> None:
    """A conversion in which every action moves one point of its own by one expression."""
    count = len(ACTION_NAMES)
    basis = torch.zeros(count, count, 3, dtype=torch.float64)
    basis[torch.arange(count), torch.arange(count), 0] = 0.01
    model = FlameModel(
        torch.zeros(count, 3).double(), torch.zeros(1, 3).long(),
        torch.zeros(0, count, 3).double(), basis, torch.zeros(36, count, 3).double(),
        torch.zeros(5, count).double(), torch.eye(5)[1].double().expand(count, -1),
    )  # fmt: skip
    conversion = ExpressionConversion(
        ACTION_NAMES, np.eye(count, dtype=np.float32), np.zeros((count, 3), np.float32),
        np.zeros((count, 6), np.float32), basis.float().numpy(), np.arange(count, dtype=np.int32),
        np.zeros(count, np.float32), np.zeros(count, np.float32),
    )  # fmt: skip
    actions = np.stack([action_vector({"jawOpen": 0.6}), action_vector({"mouthPucker": 0.9})])
    neck = np.array([[0, 0.2, 0], [0.1, 0, 0]], np.float32)
    clip = MotionClip("talk", 30.0, actions, neck)
    motion = flame_motion_from_clip(clip, conversion)
    assert motion.parameters["expr"][0, ACTION_NAMES.index("jawOpen")] == pytest.approx(0.6)
    again = motion.to_clip(conversion, model)
    np.testing.assert_allclose(again.actions, actions, atol=1e-3)
    np.testing.assert_array_equal(again.neck, neck)
    with pytest.raises(ConfigError, match="ARKit"):
        motion.to_clip(replace(conversion, action_names=("a",) * count), model)
