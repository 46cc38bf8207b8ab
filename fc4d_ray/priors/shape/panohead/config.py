"""Options of the shape stage's variant ``panohead``."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Literal

from fc4d_ray.errors import ConfigError
from fc4d_ray.priors.shape.fitting import FitConfig
from fc4d_ray.priors.shape.outer_shell import ShellConfig
from fc4d_ray.priors.shape.panohead.inversion_config import InversionConfig


@dataclass(frozen=True)
class PanoHeadShapeConfig:
    """Shape stage of the paper's profile."""

    __pydantic_config__: ClassVar = {"extra": "forbid"}

    checkpoint: str | None = None
    """Imported weights (generator.safetensors); None takes those of `fc4d assets import`."""
    device: str = "auto"
    """``auto`` (a CUDA device where there is one), ``cpu``, ``cuda`` or ``cuda:1``."""
    precision: Literal["float32", "float16", "bfloat16"] = "float32"
    """Type of the convolutions: ``float16`` concerns super-resolution only, as published,
    ``bfloat16`` the backbone too. Rays and look-ups always compute in float32."""
    compiled: bool = False
    """Whether torch.compile makes the inversion's kernels: a minute more for faster steps."""
    view_size: int = 512
    """Side of the 24 orbit views in pixels."""
    depth_size: int = 256
    """Side at which mask and depth are rendered; PanoHead's own is 64."""
    view_batch: int = 1
    """Views rendered at a time."""
    keep_tuning: bool = True
    """Whether the tuned weights are stored, a byte per weight, so that any other camera can be
    rendered later."""
    min_square_px: int = 256
    """Narrowest face square, in pixels of the crop, that is inverted."""
    fit: FitConfig = field(default_factory=FitConfig)
    """Landmark fit of the head that gives pose, rig and placement; its lens is PanoHead's."""
    shell: ShellConfig = field(default_factory=ShellConfig)
    """Hair and clothing around the fitted head."""
    inversion: InversionConfig = field(default_factory=InversionConfig)
    """Search of the latent and tuning of the generator."""

    def __post_init__(self) -> None:
        def require(condition: bool, option: str, rule: str) -> None:
            if not condition:
                found = getattr(self, option)
                raise ConfigError(f"shape.{option} must be {rule}, found {found}")

        require(64 <= self.view_size <= 2048, "view_size", "in 64…2048")
        require(16 <= self.depth_size <= 1024, "depth_size", "in 16…1024")
        require(1 <= self.view_batch <= 64, "view_batch", "in 1…64")
        require(8 <= self.min_square_px <= 4096, "min_square_px", "in 8…4096")
        is_device = self.device in ("auto", "cpu") or self.device.split(":")[0] == "cuda"
        require(is_device, "device", "auto, cpu, cuda or cuda:<number>")
