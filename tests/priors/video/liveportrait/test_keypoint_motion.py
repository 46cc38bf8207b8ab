"""Motion templates of both generations, plain arrays, and files that are neither."""

from __future__ import annotations

import os
import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fc4d_ray.errors import ConfigError, UnsafePickle
from fc4d_ray.priors.video.liveportrait.keypoint_motion import (
    KeypointMotion,
    read_motion,
    write_motion,
)

SHARED = Path(__file__).resolve().parents[4].parent / "shared"
CLIPS = sorted((SHARED / "driving").glob("*.npz"))
FIELDS = ("rotation", "expression", "translation", "scale", "eyes", "lips")


@pytest.fixture
def motion() -> KeypointMotion:
    rng = np.random.default_rng(5)
    angle = rng.normal(0, 0.1, 7)
    rotation = np.zeros((7, 3, 3), np.float32)
    rotation[:, 2, 2] = 1
    rotation[:, 0, 0] = rotation[:, 1, 1] = np.cos(angle)
    rotation[:, 0, 1], rotation[:, 1, 0] = np.sin(angle), -np.sin(angle)
    return KeypointMotion(
        "nod",
        24.0,
        rotation,
        rng.normal(0, 0.01, (7, 21, 3)).astype(np.float32),
        rng.normal(0, 0.1, (7, 3)).astype(np.float32),
        np.full((7, 1), 1.5, np.float32),
        eyes=rng.random((7, 2)).astype(np.float32),
        lips=rng.random((7, 1)).astype(np.float32),
    )


def _template(motion: KeypointMotion, old: bool, as_tensors: bool = False) -> dict[str, Any]:
    """As upstream stores it: one dict per frame, a batch axis of one on every array."""
    wrap = torch.from_numpy if as_tensors else np.asarray
    names = ("R_d", "c_d_eyes_lst", "c_d_lip_lst") if old else ("R", "c_eyes_lst", "c_lip_lst")
    frames = [
        {
            names[0]: wrap(motion.rotation[i][None]),
            "exp": wrap(motion.expression[i][None]),
            "t": wrap(motion.translation[i][None]),
            "scale": wrap(motion.scale[i][None]),
            "kp": wrap(np.zeros((1, 21, 3), np.float32)),
        }
        for i in range(motion.n_frames)
    ]
    return {
        "n_frames": motion.n_frames,
        "output_fps": 24,
        "motion": frames,
        names[1]: [row[None] for row in motion.eyes],
        names[2]: [row[None] for row in motion.lips],
    }


@pytest.mark.parametrize("old", [False, True])
@pytest.mark.parametrize("as_tensors", [False, True])
def test_templates_of_both_generations(
    motion: KeypointMotion, tmp_path: Path, old: bool, as_tensors: bool
) -> None:
    path = tmp_path / "nod.pkl"
    path.write_bytes(pickle.dumps(_template(motion, old, as_tensors)))
    read = read_motion(path)
    assert (read.name, read.fps) == ("nod", 24.0)
    for field in FIELDS:
        np.testing.assert_array_equal(getattr(read, field), getattr(motion, field))


def test_plain_arrays_survive(motion: KeypointMotion, tmp_path: Path) -> None:
    for clip in (motion, replace(motion, eyes=None, lips=None)):
        write_motion(clip, tmp_path / "nod.npz")
        read = read_motion(tmp_path / "nod.npz")
        assert read.fps == 24.0 and (read.eyes is None) == (clip.eyes is None)
        np.testing.assert_array_equal(read.expression, clip.expression)


@pytest.mark.skipif(not CLIPS, reason="the shared driving clips are not at hand")
def test_real_clips_are_read() -> None:
    assert len(CLIPS) == 8
    for path in CLIPS:
        motion = read_motion(path)
        assert motion.n_frames >= 16 and motion.fps in (20, 25, 30)
        assert (motion.eyes is not None) == (path.stem in ("d1", "d2", "d5", "d8"))


class _Planted:
    def __init__(self, canary: Path) -> None:
        self._canary = canary

    def __reduce__(self) -> tuple[Any, ...]:
        return os.remove, (str(self._canary),)


def test_a_planted_call_is_refused_and_never_made(motion: KeypointMotion, tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    canary.write_text("alive")
    path = tmp_path / "evil.pkl"
    path.write_bytes(pickle.dumps(_template(motion, False) | {"extra": _Planted(canary)}))
    with pytest.raises(UnsafePickle, match="remove"):
        read_motion(path)
    np.savez(tmp_path / "evil.npz", exp=np.array([_Planted(canary)], dtype=object))
    with pytest.raises(ConfigError, match="no plain npz"):
        read_motion(tmp_path / "evil.npz")
    assert canary.read_text() == "alive"


def test_clips_of_zero_frames(motion: KeypointMotion, tmp_path: Path) -> None:
    path = tmp_path / "empty.pkl"
    path.write_bytes(pickle.dumps(_template(motion, False) | {"motion": []}))
    with pytest.raises(ConfigError, match="zero frames"):
        read_motion(path)
    np.savez(tmp_path / "empty.npz", R=np.zeros((0, 3, 3)), exp=np.zeros((0, 21, 3)),
             t=np.zeros((0, 3)), scale=np.zeros((0, 1)))  # fmt: skip
    with pytest.raises(ConfigError, match="zero frames"):
        read_motion(tmp_path / "empty.npz")


def test_broken_templates_are_named(motion: KeypointMotion, tmp_path: Path) -> None:
    path = tmp_path / "broken.pkl"
    template = _template(motion, False)
    del template["motion"][3]["exp"]
    path.write_bytes(pickle.dumps(template))
    with pytest.raises(ConfigError, match=r"broken\.pkl: not every frame has 'exp'"):
        read_motion(path)
    template = _template(motion, False)
    template["motion"][2]["exp"] = np.zeros((1, 20, 3), np.float32)
    path.write_bytes(pickle.dumps(template))
    with pytest.raises(ConfigError, match="frames of unequal size"):
        read_motion(path)
    template = _template(motion, False)
    template["c_lip_lst"].pop()
    path.write_bytes(pickle.dumps(template))
    with pytest.raises(ConfigError, match="c_lip.*for 7 frames"):
        read_motion(path)
    path.write_bytes(pickle.dumps([1, 2]))
    with pytest.raises(ConfigError, match="list 'motion'"):
        read_motion(path)
    with pytest.raises(ConfigError, match="no such file"):
        read_motion(tmp_path / "absent.pkl")
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(UnsafePickle, match="truncated"):
        read_motion(path)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("fps", 0.0, "fps"),
        ("expression", np.full((7, 21, 3), np.nan, np.float32), "finite"),
        ("scale", np.zeros((7, 1), np.float32), "scale must be positive"),
        ("rotation", np.ones((7, 3, 3), np.float32), "no rotation matrix"),
        ("translation", np.zeros((6, 3), np.float32), "expected translation"),
    ],
)
def test_impossible_values(motion: KeypointMotion, field: str, value: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        replace(motion, **{field: value})
