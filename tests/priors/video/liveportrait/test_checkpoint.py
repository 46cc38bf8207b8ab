"""Released files: read whole, or refused with the reason."""

from __future__ import annotations

import os
import pickle
import shutil
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch

from fc4d_ray.errors import UnsafePickle, WeightsMissing
from fc4d_ray.priors.video.liveportrait.checkpoint import (
    RELEASED_FILES,
    LivePortraitNetworks,
    read_networks,
)


@pytest.fixture
def copied(small_files: tuple[Path, ...], tmp_path: Path) -> tuple[Path, ...]:
    """The small release's files, to be damaged."""
    copies = tuple(tmp_path / name for name in RELEASED_FILES)
    for original, copy in zip(small_files, copies, strict=True):
        copy.parent.mkdir(exist_ok=True)
        shutil.copy(original, copy)
    return copies


class _Planted:
    def __init__(self, canary: Path) -> None:
        self._canary = canary

    def __reduce__(self) -> tuple[Any, ...]:
        return os.remove, (str(self._canary),)


def test_networks_hold_the_files_values(
    small_files: tuple[Path, ...], small_networks: LivePortraitNetworks
) -> None:
    for path, network in zip(small_files, small_networks.modules, strict=False):
        if path.parent.name == "base_models":
            saved = torch.load(path, weights_only=True)
            state = network.state_dict()
            assert list(state) == list(saved)
            assert all(torch.equal(state[name], value) for name, value in saved.items())
    assert not any(module.training for module in small_networks.modules)


def test_half_precision_files_are_read(copied: tuple[Path, ...]) -> None:
    state = torch.load(copied[1], weights_only=True)
    torch.save({name: value.half() for name, value in state.items()}, copied[1])
    assert read_networks(copied).motion.detector.fc_kp.weight.dtype == torch.float32


@pytest.mark.parametrize("index", range(5))
def test_a_missing_file_is_named(copied: tuple[Path, ...], index: int) -> None:
    copied[index].unlink()
    with pytest.raises(WeightsMissing, match=copied[index].name):
        read_networks(copied)


@pytest.mark.parametrize("share", [0.0, 0.3, 0.999])
def test_a_half_copied_file_is_named(copied: tuple[Path, ...], share: float) -> None:
    data = copied[2].read_bytes()
    copied[2].write_bytes(data[: int(share * len(data))])
    with pytest.raises(WeightsMissing, match=r"warping_module.pth is cut short"):
        read_networks(copied)


def test_swapped_files_are_told_apart(copied: tuple[Path, ...]) -> None:
    shutil.copy(copied[3], copied[2])
    with pytest.raises(WeightsMissing, match="expected the warping_module.*spade_generator"):
        read_networks(copied)


def test_a_file_of_something_else(copied: tuple[Path, ...]) -> None:
    torch.save({"layer.weight": torch.zeros(3)}, copied[0])
    with pytest.raises(WeightsMissing, match="something else"):
        read_networks(copied)
    torch.save([torch.zeros(3)], copied[0])
    with pytest.raises(WeightsMissing, match="expected a state dict, found a list"):
        read_networks(copied)


@pytest.mark.parametrize(
    "name", ["dense_motion_network.mask.weight", "third.norm.running_mean", "fourth.bias"]
)
def test_a_lost_value_is_named(copied: tuple[Path, ...], name: str) -> None:
    state = torch.load(copied[2], weights_only=True)
    del state[name]
    torch.save(state, copied[2])
    with pytest.raises(WeightsMissing, match="warping_module"):
        read_networks(copied)


def test_wrong_shapes_and_values(copied: tuple[Path, ...]) -> None:
    state = torch.load(copied[0], weights_only=True)
    torch.save(state | {"first.conv.bias": torch.zeros(5)}, copied[0])
    with pytest.raises(WeightsMissing, match=r"first\.conv\.bias"):
        read_networks(copied)
    torch.save(state | {"first.conv.bias": torch.full((8,), torch.nan)}, copied[0])
    with pytest.raises(WeightsMissing, match="no finite numbers"):
        read_networks(copied)


def test_networks_of_different_releases(copied: tuple[Path, ...]) -> None:
    state = torch.load(copied[3], weights_only=True)
    wider = {
        name: torch.cat([value, value], 1)
        if name == "fc.weight" or "mlp_shared.0.weight" in name
        else value
        for name, value in state.items()
    }
    torch.save(wider, copied[3])
    with pytest.raises(WeightsMissing, match="decoder inputs of 16 and of 32"):
        read_networks(copied)


@pytest.mark.parametrize("index", [0, 4])
def test_a_planted_call_is_refused_and_never_made(
    copied: tuple[Path, ...], tmp_path: Path, index: int
) -> None:
    canary = tmp_path / "canary"
    canary.write_text("alive")
    state = torch.load(copied[index], weights_only=True)
    torch.save(state | {"planted": _Planted(canary)}, copied[index])
    with pytest.raises(UnsafePickle, match="remove"):
        read_networks(copied)
    copied[index].write_bytes(pickle.dumps({"planted": _Planted(canary)}))
    with pytest.raises(UnsafePickle, match="remove"):
        read_networks(copied)
    assert canary.read_text() == "alive"
    assert not zipfile.is_zipfile(copied[index])
