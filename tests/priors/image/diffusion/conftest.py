"""Tiny pipelines in diffusers' own folder format."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from fc4d_ray.assets.tiny_diffusion import write_tiny_diffusion, write_tiny_unet
from fc4d_ray.priors.image.diffusion.config import DiffusionImageConfig, ModelConfig

HERE = Path(__file__).resolve().parent
if str(HERE) not in sys.path:
    sys.path.insert(0, str(HERE))  # for _sphere

KINDS = ("sd15", "sdxl")
SIZE = 64


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """The networks are too small to gain from more."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def pipelines(tmp_path_factory) -> dict[str, Path]:
    """Folders of tiny pipelines, and of UNets released by themselves."""
    folder = tmp_path_factory.mktemp("diffusion")
    found = {kind: write_tiny_diffusion(folder / kind, kind) for kind in KINDS}
    return found | {
        f"{kind}-unet": write_tiny_unet(folder / f"{kind}-unet", kind) for kind in KINDS
    }


@pytest.fixture(scope="session")
def tiny_config(pipelines) -> Callable[..., DiffusionImageConfig]:
    """Options for a tiny pipeline; the prior's own where nothing is said."""

    def make(kind: str = "sd15", **options: Any) -> DiffusionImageConfig:
        model = ModelConfig(base=str(pipelines[kind]), unet=None, device="cpu")
        defaults = {"size": SIZE, "steps": 5, "guidance": 2.0, "batch_rows": 5}
        return DiffusionImageConfig(**{"model": model, **defaults, **options})

    return make
