"""Embeddings of images, extracted once per image and shared by all metrics that use them."""

from __future__ import annotations

from fc4d_ray.evaluation.features.protocol import (
    EXTRACTOR_CLASSES,
    Embeddings,
    FeatureConfig,
    FeatureExtractor,
    make_extractor,
)

__all__ = [
    "EXTRACTOR_CLASSES",
    "Embeddings",
    "FeatureConfig",
    "FeatureExtractor",
    "make_extractor",
]
