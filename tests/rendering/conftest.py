"""The splat parity kit: golden images and gradients of three scenes in gsplat's conventions."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

SHARED = Path(__file__).resolve().parents[2].parent / "shared"
SMALL_VECTORS = Path(__file__).resolve().parents[1] / "data" / "splat_vectors_scene_a.npz"


@pytest.fixture(scope="session")
def splat_vectors() -> dict[str, np.ndarray]:
    """Scenes ``a`` and ``empty``, copied into the repository."""
    with np.load(SMALL_VECTORS) as vectors:
        return dict(vectors)


@pytest.fixture(scope="session")
def all_splat_vectors() -> dict[str, np.ndarray]:
    """The whole kit, with scene ``b`` of 2000 splats."""
    path = SHARED / "parity" / "splat" / "vectors_seed0.npz"
    if not path.exists():
        pytest.skip(f"the full splat parity kit is not beside the repository: {path}")
    with np.load(path) as vectors:
        return dict(vectors)


@pytest.fixture(scope="session")
def oracle() -> Iterator[ModuleType]:
    """The plain PyTorch rasterizers of oracle.py."""
    path = Path(__file__).with_name("oracle.py")
    spec = importlib.util.spec_from_file_location("splat_oracle", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]
