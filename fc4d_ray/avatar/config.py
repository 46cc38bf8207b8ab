"""Configuration of avatar training; the parts lie beside the code that reads them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from fc4d_ray.avatar.binding import Attachment
from fc4d_ray.avatar.coin import CoinConfig
from fc4d_ray.avatar.density import DensityConfig
from fc4d_ray.avatar.frames import WindowConfig
from fc4d_ray.avatar.learning_rates import LearningRateConfig
from fc4d_ray.avatar.losses import LossConfig
from fc4d_ray.errors import ConfigError


@dataclass(frozen=True)
class TrainConfig:
    """Training of one avatar: a static stage, then COIN; defaults are the paper's (section 4)."""

    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid"}

    static_steps: int = 30_000
    """Steps of the first stage, on static pictures."""
    coin_steps: int = 90_000
    """Steps of the second stage, with per-view offsets, on static and animated pictures."""
    sh_degree: int = 3
    """Degree of view-dependent colour; it grows from 0 during the first stage."""
    sh_interval: int = 1000
    """Steps between two degrees."""
    attachment: Attachment = "similarity"
    """How splats follow their triangle. ``similarity``: turned, and scaled by one number, as in
    GaussianAvatars. ``affine``: deformed as the triangle is, so that skin which unfolds (a shutting
    lid, an inner lip) keeps its splats without gaps."""
    background: Literal["white", "black", "random"] = "white"
    """What pictures are composited over; a new colour every step where random, which makes
    opacity matter everywhere."""
    reference_fraction: float = 0.0
    """Extra share of steps on the reference view, whose pixels are the portrait's own."""
    window: WindowConfig = field(default_factory=WindowConfig)
    """Which part of a picture a step renders."""
    losses: LossConfig = field(default_factory=LossConfig)
    """Weights of the loss."""
    rates: LearningRateConfig = field(default_factory=LearningRateConfig)
    """Learning rates."""
    density: DensityConfig = field(default_factory=DensityConfig)
    """Adding and removing splats."""
    coin: CoinConfig = field(default_factory=CoinConfig)
    """The second stage."""
    device: str = "cpu"
    """Where to train: cpu, cuda, cuda:1 …"""
    checkpoint_interval_s: float = 120.0
    """Seconds between checkpoints; 0 for none by time."""
    checkpoint_interval_steps: int = 0
    """Steps between checkpoints; 0 for none by steps."""
    log_interval: int = 100
    """Steps averaged into one row of the curves."""
    preview_interval: int = 0
    """Steps between preview pictures; 0 for none."""
    tensorboard: bool = False
    """Also write the curves as TensorBoard events."""
    frame_cache_mb: int = 256
    """Memory for decoded training pictures, MiB."""

    def __post_init__(self) -> None:
        at_least = {"static_steps": 0, "coin_steps": 0, "sh_interval": 1, "log_interval": 1}
        at_least |= {"checkpoint_interval_steps": 0, "preview_interval": 0, "frame_cache_mb": 0}
        for name, minimum in at_least.items():
            if getattr(self, name) < minimum:
                raise ConfigError(
                    f"train.{name} must be at least {minimum}, got {getattr(self, name)}"
                )
        if not 0 <= self.sh_degree <= 3:
            raise ConfigError(f"train.sh_degree must be in 0..3, got {self.sh_degree}")
        if not 0 <= self.reference_fraction <= 1:
            raise ConfigError(
                f"train.reference_fraction must be in 0..1, got {self.reference_fraction}"
            )
        if self.checkpoint_interval_s < 0:
            raise ConfigError(
                f"train.checkpoint_interval_s must not be negative, got "
                f"{self.checkpoint_interval_s}"
            )
        if self.static_steps + self.coin_steps == 0:
            raise ConfigError("train.static_steps and train.coin_steps are both 0")
