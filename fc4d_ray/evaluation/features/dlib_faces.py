"""dlib's 128 face descriptors: the identity measure that needs no download.

Its distances are Euclidean and the field's figures are ArcFace cosines, so the two stand in columns
of their own and are never mixed.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from fc4d_ray.assets.registry import file_digest, require_asset
from fc4d_ray.evaluation.features.protocol import Embeddings, FeatureConfig, stacked
from fc4d_ray.evaluation.identity import face_descriptor

_WIDTH = 128


class DlibFeatures:
    """Descriptor of the largest face that ``evaluation.identity`` accepts."""

    key = "dlib"

    def __init__(self, config: FeatureConfig) -> None:
        del config  # dlib's models come with the package and run on the CPU

    def unavailable(self) -> str | None:
        return None

    def model_id(self) -> str:
        digests = [
            file_digest(path)[:8]
            for key in ("dlib-descriptor", "dlib-landmarks")
            for path in require_asset(key)
        ]
        return f"dlib-{'-'.join(digests)}"

    def extract(self, images: Sequence[NDArray[np.uint8]]) -> Embeddings:
        return stacked([face_descriptor(image) for image in images], _WIDTH)
