from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest

SHARED = Path(__file__).resolve().parents[3] / "shared"
_MISSING = "the gaussian_avatar parity kit is not beside the repository"


@pytest.fixture(scope="session")
def kit() -> dict[str, np.ndarray]:
    """Vectors of the gaussian_avatar parity kit."""
    path = SHARED / "parity" / "gaussian_avatar" / "vectors_seed0.npz"
    if not path.exists():
        pytest.skip(_MISSING)
    with np.load(path) as file:
        return dict(file)


@pytest.fixture(scope="session")
def fill():
    """The parity kits' deterministic tensor generator."""
    path = SHARED / "parity" / "fill.py"
    if not path.exists():
        pytest.skip(_MISSING)
    spec = importlib.util.spec_from_file_location("parity_fill", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.fill
