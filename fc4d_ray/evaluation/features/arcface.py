"""ArcFace embeddings through insightface, the identity measure of the paper's tables.

The packs' licence allows non-commercial research only. Packs are read from a local folder; nothing
is fetched. This is the only place that turns RGB into insightface's BGR.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fc4d_ray.assets.registry import file_digest
from fc4d_ray.errors import ModelFileError
from fc4d_ray.evaluation.features.protocol import (
    Embeddings,
    FeatureConfig,
    find_weights,
    package_missing,
    stacked,
)

DETECTION_SIZE = (640, 640)
"""Fixed: insightface 2 otherwise mixes two sizes, and version 0.7 used one."""
DETECTION_THRESHOLD = 0.5
_WIDTH = 512


class ArcFaceFeatures:
    """512 numbers of the largest detected face."""

    key = "arcface"

    def __init__(self, config: FeatureConfig) -> None:
        self._config = config

    def unavailable(self) -> str | None:
        if missing := package_missing("insightface", "onnxruntime"):
            return missing
        found = self._folder
        if isinstance(found, str):
            return found
        return None if list(found.glob("*.onnx")) else f"{found} holds no .onnx files"

    def model_id(self) -> str:
        assert isinstance(self._folder, Path)
        files = sorted(self._folder.glob("*.onnx"))
        return f"arcface-{self._folder.name}-{'-'.join(file_digest(f)[:6] for f in files)}"

    def extract(self, images: Sequence[NDArray[np.uint8]]) -> Embeddings:
        rows = []
        for image in images:
            faces = self._analysis.get(np.ascontiguousarray(image[..., ::-1]))
            largest = max(faces, key=_area, default=None)
            rows.append(None if largest is None else largest.normed_embedding)
        return stacked(rows, _WIDTH)

    @cached_property
    def _folder(self) -> Path | str:
        return find_weights(self._config.arcface, "insightface-buffalo-l", folder=True)

    @cached_property
    def _analysis(self) -> Any:
        from insightface.app import FaceAnalysis

        folder = self._folder
        assert isinstance(folder, Path)
        cuda = self._config.torch_device.startswith("cuda")
        providers = ["CUDAExecutionProvider"] if cuda else []
        try:
            analysis = FaceAnalysis(
                name=folder.name,
                root=str(folder.parent.parent),
                allowed_modules=["detection", "recognition"],
                providers=[*providers, "CPUExecutionProvider"],
            )
        except (AssertionError, RuntimeError, OSError) as error:
            raise ModelFileError(
                f"{folder} is no usable insightface pack (its .onnx files must lie in "
                f"<root>/models/{folder.name}/): {error!r}"
            ) from error
        analysis.prepare(
            ctx_id=0 if cuda else -1, det_thresh=DETECTION_THRESHOLD, det_size=DETECTION_SIZE
        )
        return analysis


def _area(face: Any) -> float:
    left, top, right, bottom = face.bbox[:4]
    return float((right - left) * (bottom - top))
