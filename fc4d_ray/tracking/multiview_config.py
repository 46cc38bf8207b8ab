"""Options of the multi-view tracker."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from fc4d_ray.errors import ConfigError


@dataclass(frozen=True)
class MultiviewConfig:
    """How identity and motion are found from several known cameras.

    Deviations are what one measurement is trusted to; lengths are metres on the head.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid"}

    landmark_iterations: int = 8
    """Gauss-Newton steps on landmarks alone; the first three move the head only."""
    divisors: tuple[int, ...] = (2, 1)
    """Picture sizes of the photometric stages, as parts of the frames' own, coarse to fine."""
    iterations: int = 3
    """Gauss-Newton steps at each size; visibility, albedo and light are renewed before each."""
    landmark_deviation_m: float = 0.0015
    """How far a detected landmark may lie from the model's."""
    photometric_deviation: float = 0.02
    """How far a pixel's colour may lie from the head's, 0…1."""
    silhouette_deviation_m: float = 0.0015
    """How far the outline may lie from the matte's edge."""
    photometric_count: float = 20.0
    """How many independent measurements the skin of one picture counts as, three channels each;
    small, because cameras, albedo and relief are all a little wrong, and pixels together."""
    silhouette_count: float = 20.0
    """How many independent measurements the outline of one picture counts as."""
    landmark_share: float = 1.0
    """Weight of landmarks once the skin itself is aligned."""
    jaw_share: float = 0.3
    """Weight of the 17 jaw landmarks, whose place along the jaw is vague."""
    photometric_points: int = 1000
    """Vertices of the face whose colour is compared."""
    silhouette_points: int = 400
    """Vertices whose place inside the matte is checked."""
    frames_at_once: int = 8
    """Frames whose derivatives are in memory together."""
    estimate_scale: bool = False
    """Whether the world's unit is unknown (generated heads): cameras are then brought to metres."""

    def __post_init__(self) -> None:
        def require(condition: bool, option: str, rule: str) -> None:
            if not condition:
                raise ConfigError(f"track.{option} must be {rule}, found {getattr(self, option)!r}")

        for option in (
            "landmark_iterations", "iterations", "photometric_points", "silhouette_points",
            "frames_at_once",
        ):  # fmt: skip
            require(getattr(self, option) >= 1, option, "1 or more")
        require(all(d >= 1 for d in self.divisors), "divisors", "a list of numbers of 1 or more")
        for option in ("landmark_deviation_m", "photometric_deviation", "silhouette_deviation_m"):
            require(getattr(self, option) > 0, option, "positive")
        for option in ("photometric_count", "silhouette_count", "landmark_share", "jaw_share"):
            require(getattr(self, option) >= 0, option, "0 or more")
