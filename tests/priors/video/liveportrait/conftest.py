"""The parity kit's networks and vectors, where they are at hand."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from fc4d_ray.priors.video.liveportrait.checkpoint import (
    OFFSET_NETWORKS,
    RELEASED_FILES,
    LivePortraitNetworks,
    read_networks,
)

SHARED = Path(__file__).resolve().parents[4].parent / "shared"
KIT = SHARED / "parity" / "liveportrait"
KEYS = {"full": "keys.json", "small": "keys_small.json"}
VECTORS = {"full": "vectors_seed0.npz", "small": "vectors_small_seed0.npz"}

StateDict = dict[str, Tensor]


@pytest.fixture(scope="session")
def kit_state() -> Callable[[str, str], StateDict]:
    """``kit_state(configuration, network)``: the kit's deterministic weights."""
    if not KIT.is_dir():
        pytest.skip("the LivePortrait parity kit is not at hand")
    kit = _load_module(KIT / "kit.py")
    return lambda configuration, network: {
        name: torch.from_numpy(np.asarray(value))
        for name, value in kit.state_dict(kit.load_keys(KEYS[configuration]), network, 0).items()
    }


@pytest.fixture(scope="session")
def small_files(
    kit_state: Callable[[str, str], StateDict], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, ...]:
    """The kit's small networks in the released file formats."""
    folder = tmp_path_factory.mktemp("released")
    files = tuple(folder / name for name in RELEASED_FILES)
    for path in files[:4]:
        path.parent.mkdir(exist_ok=True)
        torch.save(kit_state("small", path.stem), path)
    files[4].parent.mkdir()
    small = {
        theirs: {f"module.{key}": value for key, value in kit_state("small", ours).items()}
        for ours, theirs in OFFSET_NETWORKS.items()
    }
    torch.save({"retarget_other": {}, **small}, files[4])
    return files


@pytest.fixture(scope="session")
def small_networks(small_files: tuple[Path, ...]) -> LivePortraitNetworks:
    return read_networks(small_files)


@pytest.fixture(scope="session")
def vectors() -> Callable[[str], Mapping[str, NDArray]]:
    """``vectors(configuration)``: the kit's inputs and outputs."""
    if not KIT.is_dir():
        pytest.skip("the LivePortrait parity kit is not at hand")

    def read(configuration: str) -> Mapping[str, NDArray]:
        with np.load(KIT / VECTORS[configuration]) as arrays:
            return {name: arrays[name] for name in arrays.files}

    return read


def _load_module(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"parity_{path.stem}", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    before = list(sys.path)
    spec.loader.exec_module(module)
    sys.path[:] = before
    return module
