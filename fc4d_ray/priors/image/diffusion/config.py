"""Options of image prior ``diffusion`` (paper section 3.2). docs/diffusion.md gives the reasons."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import ClassVar, Literal

from fc4d_ray.errors import ConfigError
from fc4d_ray.priors.image.diffusion.attention import ExchangeMode
from fc4d_ray.priors.image.diffusion.prompts import PromptConfig
from fc4d_ray.priors.image.diffusion.waves import Propagation
from fc4d_ray.warping import DEPTH_TOLERANCE


@dataclass(frozen=True)
class SamplingProfile:
    """What a named quality sets where the options of the same name are left empty."""

    steps: int
    strength: float
    back_strength: float
    guidance: float
    guided_share: float


PROFILES = {
    "fine": SamplingProfile(50, 0.6, 0.75, 4.0, 1.0),
    "standard": SamplingProfile(30, 0.6, 0.75, 4.0, 1.0),
    "draft": SamplingProfile(20, 0.6, 0.75, 1.0, 1.0),
}


@dataclass(frozen=True)
class ModelConfig:
    """Which networks, and how they run."""

    __pydantic_config__: ClassVar = {"extra": "forbid"}

    base: str = "stable-diffusion-xl-base-1.0"
    """Pipeline folder: a path, a folder under the assets folder, or a hub id (owner/name)."""
    unet: str | None = "CosmicMan-SDXL"
    """UNet folder or hub id that replaces the base's; null keeps the base's own."""
    revision: str | None = None
    """Commit of a hub id; needed where something may be downloaded."""
    unet_revision: str | None = None
    """Commit of the UNet's hub id."""
    allow_downloads: bool = False
    """Whether a hub id that is not in the local cache may be fetched."""
    device: str = "auto"
    """``cpu``, ``cuda``, ``cuda:1`` … or ``auto``: CUDA where there is one."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """``auto``: bfloat16 on CUDA, float32 elsewhere."""
    memory_gib: float | None = None
    """Device memory this worker may plan with, weights included; null takes what is free. Set it
    where workers share a GPU."""
    channels_last: bool = True
    """Memory layout of the convolutions on CUDA."""
    compiled: bool = False
    """Compile the UNet's transformer blocks: minutes at the start, then faster."""

    def __post_init__(self) -> None:
        if self.memory_gib is not None and self.memory_gib <= 0:
            raise ConfigError(f"image.model.memory_gib must be positive, found {self.memory_gib}")


@dataclass(frozen=True)
class ExchangeConfig:
    """Cross-view mutual attention."""

    __pydantic_config__: ClassVar = {"extra": "forbid"}

    enabled: bool = True
    """Off: the paper's ablation without mutual attention."""
    mode: ExchangeMode = "masked"
    """``replace`` as in the paper, ``masked`` (foreground reads foreground) or ``union``."""
    behind_mode: ExchangeMode = "union"
    """The mode of views turned by more than ``behind_deg``: a face must not be painted there."""
    behind_deg: float = 100.0
    """Turn from the reference, in degrees, from which ``behind_mode`` holds."""
    layers: tuple[str, ...] = ("up_blocks",)
    """Module-name prefixes of the layers that exchange; the decoder's by default."""
    first_layer: int = 0
    """Index among all self-attention layers, in order of execution, from which they exchange."""
    first_step_share: float = 0.08
    """Share of all S steps that pass, from pure noise, before the exchange begins."""
    pin_reference: bool = True
    """Keep the reference row on its inverted latents, so that its keys and values are exact."""

    def __post_init__(self) -> None:
        if not self.layers:
            raise ConfigError("image.exchange.layers must name at least one prefix")
        if self.first_layer < 0:
            raise ConfigError(
                f"image.exchange.first_layer must be 0 or more, found {self.first_layer}"
            )
        _require_share("exchange.first_step_share", self.first_step_share, open_end=True)
        if not 0 <= self.behind_deg <= 180:
            raise ConfigError(
                f"image.exchange.behind_deg must lie in 0…180, found {self.behind_deg}"
            )


@dataclass(frozen=True)
class WarpConfig:
    """Warping finished views into unfinished ones, and pasting what was warped."""

    __pydantic_config__: ClassVar = {"extra": "forbid"}

    enabled: bool = True
    """Off: the paper's ablation without warping."""
    propagation: Propagation = "neighbour"
    """``neighbour``: waves outwards, each view from the one before; ``anchors``: all at once."""
    depth_tolerance: float = DEPTH_TOLERANCE
    """Depth difference, in head heights, up to which two depths mean one surface."""
    min_cosine: float = 0.25
    """A source that saw the surface at a smaller cosine does not count."""
    tie_cosine: float = 0.05
    """Sources within this of the best cosine are equals; the reference, then the back, wins."""
    source_rim_px: float = 2.0
    """Pixels of a source beside its silhouette and its depth edges that are not read, at 512
    pixels: they mix two surfaces, and what grazes them spreads them widely."""
    erosion_px: float = 3.0
    """Pixels the mask loses at its rim, at 512 pixels."""
    smallest_island_px: int = 30
    """Smaller patches of the mask are dropped; pixels at 512 pixels."""
    latent_share: float = 1.0
    """Share of a latent cell's pixels that must have been warped for it to be pasted."""
    paste_until: float = 0.8
    """Share of the steps that are run during which warped latents are pasted."""
    hold_background: bool = True
    """Paste the constant background likewise, with or without warping."""

    def __post_init__(self) -> None:
        for name in ("min_cosine", "tie_cosine", "paste_until"):
            _require_share(f"warp.{name}", getattr(self, name))
        if not 0 < self.latent_share <= 1:
            raise ConfigError(f"image.warp.latent_share must be in (0, 1]: {self.latent_share}")
        for name in ("depth_tolerance", "source_rim_px", "erosion_px", "smallest_island_px"):
            if getattr(self, name) < 0:
                raise ConfigError(f"image.warp.{name} must not be negative")


@dataclass(frozen=True)
class GateConfig:
    """What a view must pass; one that does not is made again from another start."""

    __pydantic_config__: ClassVar = {"extra": "forbid"}

    retries: int = 2
    """Views that may be made again, per portrait; 0 only measures."""
    retry_noise: float = 0.5
    """Share of the starting latents that fresh noise replaces on a second try."""
    min_agreement_db: float = 18.0
    """Least PSNR of a view against its finished sources where both see the surface."""
    behind_deg: float = 120.0
    """Absolute azimuth from which no face may be found."""
    face_threshold: float = 0.0
    """Score of the face detector above which a view from behind shows a face."""
    on_failure: Literal["keep", "fail"] = "keep"
    """A view that passes on no try: keep the best one and say so in the record, or give up."""

    def __post_init__(self) -> None:
        if self.retries < 0:
            raise ConfigError(f"image.gates.retries must be 0 or more, found {self.retries}")
        _require_share("gates.retry_noise", self.retry_noise)


@dataclass(frozen=True)
class DiffusionImageConfig:
    """Image stage of the paper's profile."""

    __pydantic_config__: ClassVar = {"extra": "forbid"}

    model: ModelConfig = field(default_factory=ModelConfig)
    """Networks."""
    size: int = 1024
    """Side in pixels at which the UNet works: 1024 for SDXL, 512 for SD 1.5."""
    profile: Literal["fine", "standard", "draft"] = "standard"
    """Sets steps, strengths and guidance where these are left empty."""
    steps: int | None = None
    """S, DDIM steps from pure noise (fine 50, standard 30, draft 20)."""
    strength: float | None = None
    """Share of the steps that is run (0.6)."""
    back_strength: float | None = None
    """The same for the view of the back, which needs more invention (0.75)."""
    guidance: float | None = None
    """Classifier-free guidance while denoising (fine and standard 4, draft 1 = off)."""
    guided_share: float | None = None
    """Share of the steps, from the noisy end, that are guided."""
    start: Literal["inversion", "noise"] = "inversion"
    """``inversion`` as in the paper; ``noise`` saves its cost and pastes noised composites."""
    exchange: ExchangeConfig = field(default_factory=ExchangeConfig)
    """Cross-view mutual attention."""
    warp: WarpConfig = field(default_factory=WarpConfig)
    """Depth-guided warping and paste-in."""
    gates: GateConfig = field(default_factory=GateConfig)
    """Quality gates."""
    prompt: PromptConfig = field(default_factory=PromptConfig)
    """Text conditions."""
    batch_rows: int = 0
    """Images in one batch, references included; 0 measures what fits into the device's memory."""
    background: float = 1.0
    """Grey level, 0…1, that everything is composited on."""

    def __post_init__(self) -> None:
        if self.size < 64 or self.size % 64:
            raise ConfigError(f"image.size must be a multiple of 64, found {self.size}")
        if self.batch_rows < 0:
            raise ConfigError(f"image.batch_rows must be 0 or more, found {self.batch_rows}")
        _require_share("background", self.background)
        if self.steps is not None and self.steps < 2:
            raise ConfigError(f"image.steps must be 2 or more, found {self.steps}")
        for name in ("strength", "back_strength"):
            value = getattr(self, name)
            if value is not None and not 0 < value <= 1:
                raise ConfigError(f"image.{name} must be in (0, 1], found {value}")
        if self.guidance is not None and self.guidance < 1:
            raise ConfigError(f"image.guidance must be 1 or more, found {self.guidance}")
        if self.guided_share is not None:
            _require_share("guided_share", self.guided_share)

    @property
    def sampling(self) -> SamplingProfile:
        """The profile with what the options say instead."""
        names = ("steps", "strength", "back_strength", "guidance", "guided_share")
        given = {name: getattr(self, name) for name in names if getattr(self, name) is not None}
        return replace(PROFILES[self.profile], **given)


def _require_share(option: str, value: float, *, open_end: bool = False) -> None:
    if not (0 <= value < 1 if open_end else 0 <= value <= 1):
        raise ConfigError(f"image.{option} must be in 0…1, found {value}")
