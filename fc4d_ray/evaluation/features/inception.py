"""Inception-v3 pool features through clean-fid, in its ``clean`` mode.

Resized per float channel by PIL's antialiased bicubic filter, then clean-fid's TorchScript file.
clean-fid itself fetches that file where it is absent; here it is only ever read from disk.
"""

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

MODE = "clean"


class InceptionFeatures:
    """2048 features per image, for FID and KID."""

    key = "inception"

    def __init__(self, config: FeatureConfig) -> None:
        self._config = config

    def unavailable(self) -> str | None:
        if missing := package_missing("cleanfid", "torchvision"):
            return missing
        return self._file if isinstance(self._file, str) else None

    def model_id(self) -> str:
        assert isinstance(self._file, Path)
        return f"inception-{MODE}-{file_digest(self._file)[:16]}"

    def extract(self, images: Sequence[NDArray[np.uint8]]) -> Embeddings:
        import torch

        resize, model = self._model
        parts = []
        for start in range(0, len(images), self._config.batch):
            batch = np.stack(
                [resize(image) for image in images[start : start + self._config.batch]]
            )
            pixels = torch.from_numpy(batch).permute(0, 3, 1, 2).float()
            with torch.inference_mode():
                found = model(pixels.to(self._config.torch_device))
            parts.append(found.float().cpu().numpy())
        return Embeddings(np.concatenate(parts))

    @cached_property
    def _file(self) -> Path | str:
        return find_weights(self._config.inception, "inception-fid", folder=False)

    @cached_property
    def _model(self) -> tuple[Any, Any]:
        ensure_torchvision_importable()
        from cleanfid.inception_torchscript import InceptionV3W
        from cleanfid.resize import build_resizer

        assert isinstance(self._file, Path)
        expected = "inception-2015-12-05.pt"
        if self._file.name != expected:
            raise ModelFileError(f"clean-fid reads {expected}; {self._file} has another name")
        try:
            model = InceptionV3W(str(self._file.parent), download=False, resize_inside=False)
        except (RuntimeError, OSError) as error:
            raise ModelFileError(f"{self._file} is no TorchScript model: {error}") from error
        return build_resizer(MODE), model.eval().to(self._config.torch_device)
