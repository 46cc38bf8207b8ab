"""CLIP image embeddings after projection, through ``transformers``."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fc4d_ray.assets.registry import file_digest
from fc4d_ray.assets.torchvision_shim import ensure_torchvision_importable
from fc4d_ray.errors import ModelFileError
from fc4d_ray.evaluation.features.protocol import (
    Embeddings,
    FeatureConfig,
    find_weights,
    package_missing,
)

_WEIGHTS = "model.safetensors"


class ClipFeatures:
    """A local CLIP folder as ``transformers`` stores it; nothing is fetched."""

    key = "clip"

    def __init__(self, config: FeatureConfig) -> None:
        self._config = config

    def unavailable(self) -> str | None:
        if missing := package_missing("transformers", "torchvision"):
            return missing
        found = self._folder
        if isinstance(found, str):
            return found
        if not (found / _WEIGHTS).is_file():
            return f"{found} holds no {_WEIGHTS}"
        return None

    def model_id(self) -> str:
        assert isinstance(self._folder, Path)
        return f"clip-{self._folder.name}-{file_digest(self._folder / _WEIGHTS)[:16]}"

    def extract(self, images: Sequence[NDArray[np.uint8]]) -> Embeddings:
        import torch

        processor, model = self._model
        parts = []
        for start in range(0, len(images), self._config.batch):
            batch = processor(
                images=list(images[start : start + self._config.batch]), return_tensors="pt"
            )
            with torch.inference_mode():
                pixels = batch["pixel_values"].to(model.device)
                parts.append(model(pixel_values=pixels).image_embeds.float().cpu().numpy())
        return Embeddings(np.concatenate(parts))

    @cached_property
    def _folder(self) -> Path | str:
        return find_weights(self._config.clip, "clip-vit-l-14", folder=True)

    @cached_property
    def _model(self) -> tuple[Any, Any]:
        ensure_torchvision_importable()
        from safetensors import SafetensorError
        from transformers import CLIPImageProcessor, CLIPVisionModelWithProjection

        folder = str(self._folder)
        try:
            model = CLIPVisionModelWithProjection.from_pretrained(folder, local_files_only=True)
            processor = CLIPImageProcessor.from_pretrained(folder, local_files_only=True)
        except (OSError, ValueError, KeyError, SafetensorError) as error:
            raise ModelFileError(f"{folder} is no CLIP model: {error}") from error
        return processor, model.eval().to(self._config.torch_device)
