"""The parity kit beside the repository, and generators filled with its deterministic weights."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from fc4d_ray.priors.shape.panohead.generator import PanoHeadGenerator
from fc4d_ray.priors.shape.panohead.settings import GeneratorSettings, RaySettings

SHARED = Path(__file__).resolve().parents[4].parent / "shared"
KIT = SHARED / "parity" / "panohead"


@pytest.fixture(scope="session")
def kit() -> Path:
    if not KIT.is_dir():
        pytest.skip("PanoHead parity files not at hand")
    return KIT


@pytest.fixture(scope="session")
def fill(kit: Path) -> Callable[..., np.ndarray]:
    """The kit's deterministic weights by name, shape, seed and rule."""
    spec = importlib.util.spec_from_file_location("parity_fill", SHARED / "parity" / "fill.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.fill


@pytest.fixture(scope="session")
def filled(kit: Path, fill: Callable[..., np.ndarray]) -> Callable[[str], SimpleNamespace]:
    """``filled("_small")``: generator, vectors and key list of one configuration."""
    cache: dict[str, SimpleNamespace] = {}

    def make(suffix: str) -> SimpleNamespace:
        if suffix not in cache:
            keys = json.loads((kit / f"keys{suffix}.json").read_text())
            generator = PanoHeadGenerator(settings_of(kit / f"config{suffix}.json"))
            state = generator.state_dict()
            for key in keys:
                if key["rule"] is not None:
                    values = fill(key["name"], tuple(key["shape"]), 0, key["rule"])
                    state[key["name"]] = torch.from_numpy(np.asarray(values))
            generator.load_state_dict(state)
            with np.load(kit / f"vectors{suffix}_seed0.npz") as arrays:
                vectors = {name: torch.from_numpy(arrays[name]) for name in arrays.files}
            cache[suffix] = SimpleNamespace(generator=generator.eval(), vectors=vectors, keys=keys)
        return cache[suffix]

    return make


def settings_of(path: Path) -> GeneratorSettings:
    """Settings from the kit's constructor arguments, independently of the checkpoint reader."""
    stored: dict[str, Any] = json.loads(path.read_text())
    kwargs = stored["init_kwargs"]
    rendering = kwargs["rendering_kwargs"]
    return GeneratorSettings(
        z_size=kwargs["z_dim"],
        w_size=kwargs["w_dim"],
        channel_base=kwargs["channel_base"],
        channel_max=kwargs["channel_max"],
        trigrid_size=rendering["triplane_size"],
        output_size=kwargs["img_resolution"],
        superresolution_channels=tuple(kwargs["sr_kwargs"].get("sr_channels", (256, 128))),
        neural_size=stored["neural_rendering_resolution"],
        rays=RaySettings(
            coarse_samples=rendering["depth_resolution"],
            fine_samples=rendering["depth_resolution_importance"],
        ),
    )
