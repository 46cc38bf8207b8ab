"""Options of the inversion; defaults are upstream's, in the paper's variant (section 3.1)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from fc4d_ray.errors import ConfigError
from fc4d_ray.priors.shape.panohead.perceptual import PerceptualName


@dataclass(frozen=True)
class InversionConfig:
    """How a portrait is found in the generator's latent space, and the generator tuned to it."""

    __pydantic_config__: ClassVar = {"extra": "forbid"}

    latent_steps: int = 500
    """Steps on the latent code z, with the generator fixed."""
    latent_rate: float = 0.1
    """Adam's learning rate of z, between the ramps."""
    ramp_up: float = 0.05
    """Share of the latent steps in which the rate rises from zero."""
    ramp_down: float = 0.25
    """Share of the latent steps in which the rate falls to zero along a cosine."""
    noise: float = 0.05
    """Noise on w at the start, in deviations of w over many codes."""
    noise_until: float = 0.75
    """Share of the latent steps after which the noise is gone."""
    starts: int = 1
    """Codes tried per portrait for the first tenth of the steps; the best goes on. The first is
    the drawn code whose w is nearest to the average."""
    tuning_steps: int = 500
    """Steps on the generator's weights, with z fixed (pivotal tuning); 0 leaves it as it is."""
    tuning_rate: float = 0.0003
    """Adam's learning rate of the weights."""
    mse_weight: float = 0.1
    """Weight of the mean squared difference of images in -1…1."""
    perceptual_weight: float = 1.0
    """Weight of the perceptual distance."""
    perceptual: PerceptualName = "auto"
    """``auto``: LPIPS over VGG-16 where its weights are, else no perceptual distance, which the
    record then says. ``lpips_vgg`` and ``lpips_alex`` insist; ``none`` leaves it out."""
    lpips_backbone: str | None = None
    """File with torchvision's weights for LPIPS; None looks for the imported asset."""
    background_weight: float = 1.0
    """Share of a difference that counts outside the matte; upstream compares the whole frame."""
    near: float = 2.35
    """Near plane while inverting and afterwards, PanoHead units: nothing floats before the face."""
    statistics_samples: int = 10_000
    """Codes drawn for the mean and the spread of w."""
    patience: int = 50
    """Steps without progress after which a phase is cut short; 0 never does."""
    progress: float = 0.01
    """Relative fall of the loss within ``patience`` steps that counts as progress."""

    def __post_init__(self) -> None:
        def require(condition: bool, option: str, rule: str) -> None:
            if not condition:
                found = getattr(self, option)
                raise ConfigError(f"shape.inversion.{option} must be {rule}, found {found}")

        require(self.latent_steps >= 1, "latent_steps", "at least 1")
        require(self.tuning_steps >= 0, "tuning_steps", "0 or more")
        require(self.latent_rate > 0, "latent_rate", "positive")
        require(self.tuning_rate > 0, "tuning_rate", "positive")
        require(0 <= self.ramp_up <= 1, "ramp_up", "in 0…1")
        require(0 < self.ramp_down <= 1, "ramp_down", "in 0…1 and not 0")
        require(self.noise >= 0, "noise", "0 or more")
        require(0 < self.noise_until <= 1, "noise_until", "in 0…1 and not 0")
        require(self.starts >= 1, "starts", "at least 1")
        require(self.mse_weight >= 0, "mse_weight", "0 or more")
        require(self.perceptual_weight >= 0, "perceptual_weight", "0 or more")
        require(0 <= self.background_weight <= 1, "background_weight", "in 0…1")
        require(0 < self.near < 3, "near", "between 0 and 3")
        require(self.statistics_samples >= 2, "statistics_samples", "at least 2")
        require(self.patience >= 0, "patience", "0 or more")
        require(0 <= self.progress < 1, "progress", "in 0…1")
        if self.mse_weight == 0 and (self.perceptual_weight == 0 or self.perceptual == "none"):
            raise ConfigError(
                "shape.inversion.mse_weight must be positive where nothing perceptual is compared"
            )


def learning_rate(position: float, config: InversionConfig) -> float:
    """Rate of z at ``position`` (0…1) of the latent steps."""
    fall = min(1.0, (1 - position) / config.ramp_down)
    rise = min(1.0, position / config.ramp_up) if config.ramp_up else 1.0
    return config.latent_rate * (0.5 - 0.5 * math.cos(math.pi * fall)) * rise


def noise_scale(position: float, config: InversionConfig) -> float:
    """Noise on w at ``position`` (0…1), in deviations of w."""
    return config.noise * max(0.0, 1 - position / config.noise_until) ** 2
