"""The numbers that make one PanoHead generator: sizes, rays, density.

A released checkpoint carries its own; ``checkpoint`` reads them from there. The defaults are those
of the published head model.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fc4d_ray.errors import ConfigError

LABEL_SIZE = 25
"""A camera label: 16 numbers camera-to-world, 9 numbers normalised intrinsics."""
FEATURES = 32
"""Channels of a tri-grid cell, of the decoder's output and of the background."""


@dataclass(frozen=True)
class RaySettings:
    """How rays are sampled and what lies around the head. Lengths are PanoHead units."""

    near: float = 2.25
    far: float = 3.3
    coarse_samples: int = 48
    fine_samples: int = 48
    box_size: float = 1.0
    """Side of the cube the tri-grid spans, centred at the origin."""
    crop_margin: float = 0.1
    """Samples this near to the cube's sides in x and z count as empty; y is never cropped."""

    def __post_init__(self) -> None:
        if not 0 < self.near < self.far:
            raise ConfigError(f"rays.near must lie in 0…far, found {self.near} and {self.far}")
        if self.coarse_samples < 4 or self.fine_samples < 0:
            raise ConfigError(
                "rays.coarse_samples must be 4 or more and rays.fine_samples 0 or more, "
                f"found {self.coarse_samples} and {self.fine_samples}"
            )


@dataclass(frozen=True)
class GeneratorSettings:
    """Sizes of the networks."""

    z_size: int = 512
    w_size: int = 512
    mapping_layers: int = 2
    channel_base: int = 32768
    channel_max: int = 512
    conv_clamp: float | None = None
    """Bound of the backbone's hidden values; None leaves them free."""
    trigrid_size: int = 256
    trigrid_depth: int = 3
    output_size: int = 512
    superresolution_channels: tuple[int, int] = (256, 128)
    superresolution_clamp: float | None = 256.0
    neural_size: int = 64
    """Pixels per side of the volume rendering that super-resolution starts from."""
    condition_scale: float = 1.0
    """Factor on the camera label before it conditions the mapping network."""
    decoder_rate: float = 1.0
    """Learning-rate multiplier of the decoder, which scales its stored weights."""
    rays: RaySettings = dataclasses.field(default_factory=RaySettings)

    def __post_init__(self) -> None:
        for name in ("trigrid_size", "output_size"):
            value = getattr(self, name)
            if value < 8 or value & (value - 1):
                raise ConfigError(f"{name} must be a power of two from 8 on, found {value}")

    @property
    def background_size(self) -> int:
        """Side of the background features and of what super-resolution starts from."""
        return self.output_size // 4

    @property
    def latent_count(self) -> int:
        """Number of w vectors the backbone reads: two per resolution."""
        return 2 * (self.trigrid_size.bit_length() - 2)

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return dataclasses.asdict(self)

    @staticmethod
    def from_json(values: Mapping[str, Any]) -> GeneratorSettings:
        """What ``to_json`` gave. ``ConfigError`` where a name is unknown or missing."""
        try:
            rays = RaySettings(**values["rays"])
            channels = tuple(values["superresolution_channels"])
            rest = {**values, "rays": rays, "superresolution_channels": channels}
            return GeneratorSettings(**rest)
        except (KeyError, TypeError) as error:
            raise ConfigError(f"these are no settings of a PanoHead generator: {error}") from error
