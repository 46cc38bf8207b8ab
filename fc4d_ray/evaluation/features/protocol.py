"""What an extractor of embeddings is, and which there are.

An extractor that cannot work here says why (``unavailable``); the metric that needs it becomes a
column of nulls with that reason. None is ever replaced by another: each has columns of its own.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from fc4d_ray.errors import ConfigError


@dataclass(frozen=True)
class Embeddings:
    """Of N images; a row of NaN is an image without one (no face found)."""

    vectors: NDArray[np.float32]  # [N, D]

    @property
    def valid(self) -> NDArray[np.bool_]:
        """(N,) whether an image has an embedding."""
        return ~np.isnan(self.vectors).any(1)


@dataclass(frozen=True)
class FeatureConfig:
    """Which model files the extractors use and where they run."""

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    clip: str | None = None
    """Folder with a CLIP model as ``transformers`` stores it; None looks for the asset
    ``clip-vit-l-14``. ViT-L/14 is the field's; values of other checkpoints differ by about 0.1."""
    arcface: str | None = None
    """Folder of an insightface model pack; None looks for the asset ``insightface-buffalo-l``."""
    inception: str | None = None
    """clean-fid's ``inception-2015-12-05.pt``; None looks for the asset ``inception-fid``."""
    lpips_backbone: str | None = None
    """torchvision's AlexNet weights; None looks for the asset ``lpips-alex``."""
    device: str = "auto"
    """``auto`` is CUDA where there is one."""
    batch: int = 16
    """Images per forward pass."""

    def __post_init__(self) -> None:
        if not 1 <= self.batch <= 4096:
            raise ConfigError(f"features.batch must be in 1..4096, found {self.batch}")

    @property
    def torch_device(self) -> str:
        """The device to use."""
        import torch

        if self.device != "auto":
            return self.device
        return "cuda" if torch.cuda.is_available() else "cpu"


class FeatureExtractor(Protocol):
    """Images in, embeddings out. Made cheaply; models are loaded by the first ``extract``."""

    key: str
    """Name of the extractor: ``clip``, ``arcface``, ``dlib``, ``inception``."""

    def unavailable(self) -> str | None:
        """Why it cannot work here: missing package or weights; None where it can."""

    def model_id(self) -> str:
        """What made the embeddings, weights' digest included; only of an available extractor."""

    def extract(self, images: Sequence[NDArray[np.uint8]]) -> Embeddings:
        """Embeddings of prepared images, (S, S, 3) uint8 RGB each."""


ExtractorKey = Literal["clip", "arcface", "dlib", "inception"]

EXTRACTOR_CLASSES: Mapping[str, str] = MappingProxyType(
    {
        "clip": "fc4d_ray.evaluation.features.clip:ClipFeatures",
        "arcface": "fc4d_ray.evaluation.features.arcface:ArcFaceFeatures",
        "dlib": "fc4d_ray.evaluation.features.dlib_faces:DlibFeatures",
        "inception": "fc4d_ray.evaluation.features.inception:InceptionFeatures",
    }
)


def make_extractor(key: str, config: FeatureConfig) -> FeatureExtractor:
    """The extractor of that name; ``ConfigError`` for an unknown one."""
    if key not in EXTRACTOR_CLASSES:
        raise ConfigError(f"no feature extractor {key!r}; known: {', '.join(EXTRACTOR_CLASSES)}")
    module, name = EXTRACTOR_CLASSES[key].split(":")
    return getattr(importlib.import_module(module), name)(config)


def find_weights(configured: str | None, asset_key: str, *, folder: bool) -> Path | str:
    """The configured path or the asset's; a sentence why not where neither is there.

    ``folder``: the asset's folder rather than its first file.
    """
    from fc4d_ray.assets.registry import inspect_asset

    if configured is not None:
        path = Path(configured).expanduser()
        return path if path.exists() else f"{path} does not exist"
    state = inspect_asset(asset_key)
    if not state.is_present:
        missing = ", ".join(file.path for file in state.missing)
        return f"weights missing: {missing} (get them from {state.asset.source})"
    return state.found[0].parent if folder else state.found[0]


def package_missing(*names: str) -> str | None:
    """A sentence where a package is not installed."""
    missing = [name for name in names if importlib.util.find_spec(name) is None]
    if not missing:
        return None
    return f"not installed: {', '.join(missing)} (pip install 'fc4d-ray[eval]')"


def stacked(rows: Sequence[Any], width: int) -> Embeddings:
    """Embeddings of rows that are vectors, or None where there is none."""
    vectors = np.full((len(rows), width), np.nan, np.float32)
    for i, row in enumerate(rows):
        if row is not None:
            vectors[i] = row
    return Embeddings(vectors)
