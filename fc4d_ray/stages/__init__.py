"""The pipeline's stages in order, by dotted path; importing this loads none of them.

Each section of the configuration belongs to one entry. Where a stage can be done in several ways
(the three priors), the section's ``name`` chooses the variant. ``registry:`` in a configuration
may name another tuple of entries, which is how other people's stages are plugged in.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class StageVariant:
    """One way of doing a stage. Both fields are ``package.module:Class``."""

    stage: str
    config: str


@dataclass(frozen=True)
class StageEntry:
    """A step of the pipeline and the ways it can be done."""

    name: str
    variants: Mapping[str, StageVariant]
    """By the value of the section's ``name``; the first is the default."""
    part: str = "front"
    """``front`` stages share long-lived workers; ``training`` stages run as tasks of their own."""

    @property
    def default(self) -> str:
        """Name of the variant taken where the section names none."""
        return next(iter(self.variants))

    @property
    def is_choosable(self) -> bool:
        """Whether the section's ``name`` selects the variant."""
        return self.default != ""


def single(stage: str, config: str) -> Mapping[str, StageVariant]:
    """The variants of a stage that can be done in one way only."""
    return {"": StageVariant(stage, config)}


REGISTRY: tuple[StageEntry, ...] = (
    StageEntry(
        "ingest",
        single("fc4d_ray.stages.ingest:IngestStage", "fc4d_ray.portraits.config:IngestConfig"),
    ),
    StageEntry(
        "shape",
        {
            "anny": StageVariant(
                "fc4d_ray.stages.shape:ShapeStage", "fc4d_ray.priors.shape.anny:AnnyShapeConfig"
            ),
            "panohead": StageVariant(
                "fc4d_ray.stages.panohead_shape:PanoHeadShapeStage",
                "fc4d_ray.priors.shape.panohead.config:PanoHeadShapeConfig",
            ),
        },
    ),
    StageEntry(
        "image",
        {
            "classical": StageVariant(
                "fc4d_ray.stages.image:ImageStage",
                "fc4d_ray.priors.image.classical:ClassicalImageConfig",
            ),
            "diffusion": StageVariant(
                "fc4d_ray.stages.diffusion_image:DiffusionImageStage",
                "fc4d_ray.priors.image.diffusion.config:DiffusionImageConfig",
            ),
        },
    ),
    StageEntry(
        "video",
        {
            "actions": StageVariant(
                "fc4d_ray.stages.video:VideoStage",
                "fc4d_ray.priors.video.actions:ActionsVideoConfig",
            ),
            "liveportrait": StageVariant(
                "fc4d_ray.stages.liveportrait_video:LivePortraitVideoStage",
                "fc4d_ray.priors.video.liveportrait.config:LivePortraitVideoConfig",
            ),
        },
    ),
    StageEntry(
        "track",
        {
            "rig": StageVariant(
                "fc4d_ray.stages.track:TrackStage", "fc4d_ray.tracking:TrackingConfig"
            ),
            "flame": StageVariant(
                "fc4d_ray.stages.track_flame:FlameTrackStage",
                "fc4d_ray.stages.track_flame:FlameTrackConfig",
            ),
        },
    ),
    StageEntry(
        "train",
        single("fc4d_ray.stages.train:TrainStage", "fc4d_ray.stages.train:TrainStageConfig"),
        part="training",
    ),
    StageEntry(
        "publish",
        single("fc4d_ray.stages.publish:PublishStage", "fc4d_ray.stages.publish:PublishConfig"),
        part="training",
    ),
)


def load(path: str) -> Any:
    """Object named ``package.module:attribute``."""
    module, _, attribute = path.partition(":")
    return getattr(importlib.import_module(module), attribute)
