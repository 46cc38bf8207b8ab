"""Stages that take time and no CPU, in the paper's proportions: 2, 10, 10 and 120 minutes."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import ClassVar

from fc4d_ray.stages import StageEntry, single
from fc4d_ray.stages.protocol import Facts, StageContext

TIMES = {"shape": 1.0, "image": 5.0, "video": 5.0, "train": 60.0}
"""In units; one unit is two minutes in the paper."""
SHARES = {"shape": 0.1, "image": 0.45, "video": 0.45, "train": 0.25}
LOAD_TIME = 0.25
"""Units a front stage needs to load its models; half a minute in the paper's scale."""


@dataclass(frozen=True)
class SleepConfig:
    """How long to sleep."""

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    seconds: float = 1.0
    """Per portrait."""
    load_seconds: float = 0.0
    """Once per worker."""


class _SleepStage:
    name = ""
    requires: tuple[str, ...] = ()
    version = "1"

    def weights_digest(self, config: SleepConfig) -> str:
        """There are no weights."""
        return "none"

    def setup(self, config: SleepConfig) -> None:
        """Take as long as loading models does."""
        time.sleep(config.load_seconds)

    def process(self, context: StageContext) -> Facts:
        """Take time."""
        time.sleep(context.config.seconds)
        (context.output / "result.txt").write_text(f"{self.name} {context.seed}\n")
        return {}


class ShapeStage(_SleepStage):
    """First."""

    name = "shape"


class ImageStage(_SleepStage):
    """Second."""

    name = "image"
    requires = ("shape",)


class VideoStage(_SleepStage):
    """Third."""

    name = "video"
    requires = ("image",)


class TrainStage(_SleepStage):
    """Last."""

    name = "train"
    requires = ("video",)


_CONFIG = "scaled_stages:SleepConfig"
REGISTRY = (
    StageEntry("shape", single("scaled_stages:ShapeStage", _CONFIG)),
    StageEntry("image", single("scaled_stages:ImageStage", _CONFIG)),
    StageEntry("video", single("scaled_stages:VideoStage", _CONFIG)),
    StageEntry("train", single("scaled_stages:TrainStage", _CONFIG), part="training"),
)
