"""Learning rates and their schedules."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from fc4d_ray.errors import ConfigError


@dataclass(frozen=True)
class LearningRateConfig:
    """Adam's step sizes per kind of parameter (GaussianAvatars; local units are triangle units)."""

    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid"}

    position: float = 5e-3
    """Splat positions at the start, multiplied by the scene extent."""
    position_final: float = 5e-5
    """Splat positions at the end of the static stage and through COIN."""
    scale: float = 0.017
    """Splat log scales."""
    rotation: float = 1e-3
    """Splat quaternions."""
    opacity: float = 0.05
    """Splat opacity logits."""
    sh0: float = 2.5e-3
    """Constant colour coefficients."""
    shN: float = 2.5e-3 / 20
    """Higher colour coefficients."""
    epsilon: float = 1e-15
    """Gradient below which a parameter hardly moves. Adam's steps do not depend on how large a
    gradient is, so that with next to none splats that next to nothing shows (the mouth's, behind
    shut lips) drift as fast as others."""
    head: Mapping[str, float] = field(default_factory=dict)
    """Head-model parameters that training may refine, by name; the others stay as tracked."""

    def __post_init__(self) -> None:
        for name in ("position", "position_final"):
            if getattr(self, name) <= 0:
                raise ConfigError(f"rates.{name} must be positive, got {getattr(self, name)}")
        for name in ("scale", "rotation", "opacity", "sh0", "shN", "epsilon"):
            if getattr(self, name) < 0:
                raise ConfigError(f"rates.{name} must not be negative, got {getattr(self, name)}")


def log_linear(step: float, first: float, last: float, steps: int) -> float:
    """From ``first`` at step 0 to ``last`` at ``steps`` and beyond, linear in the logarithm."""
    u = min(max(step / steps, 0.0), 1.0) if steps > 0 else 1.0
    return math.exp((1 - u) * math.log(first) + u * math.log(last))
