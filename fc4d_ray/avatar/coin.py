"""COIN: a shared base appearance plus a small network for what one view sees differently.

Paper section 3.4, equations 1-4. Views made one by one by a generative prior disagree in detail;
trained on them directly, splats blur. Here the base colours are held to the structure all views
share, while a two-layer network adds an offset per splat and view that takes up the differences.
For playback the offsets of one view, the reference, are added to the base for good.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from fc4d_ray.avatar.gaussians import Gaussians
from fc4d_ray.avatar.spherical_harmonics import dc_to_rgb
from fc4d_ray.avatar.structure import StructureName
from fc4d_ray.errors import ConfigError
from fc4d_ray.rendering.spherical_harmonics import C0

OffsetMean = Literal["splats_in_sight", "all_splats", "pixels"]


@dataclass(frozen=True)
class CoinConfig:
    """COIN's weights (stated by the paper) and the choices it leaves open (with reasons)."""

    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid"}

    enabled: bool = True
    """Off trains the second stage without offsets, the paper's ablation."""
    structure_weight: float = 0.05
    """Weight of the structural loss on the base image (equation 3)."""
    structure_interval: int = 1
    """Steps from one use of the structural loss to the next, its weight multiplied by as much, so
    that its pull stays the same on average. LPIPS can cost several times the rest of a step."""
    offset_weight: float = 1.0
    """Weight of the mean absolute offset (equation 4)."""
    offset_mean: OffsetMean = "splats_in_sight"
    """What equation 4's L1 is averaged over, besides the channels. ``splats_in_sight``: the splats
    that may touch the picture. ``all_splats``: the whole avatar's. ``pixels``: the sum over splats
    is divided by the picture's pixels, as the L1 of equation 2 is; docs/avatar.md measures them."""
    structure: StructureName = "auto"
    """Structural loss. The paper says LPIPS without naming a backbone; AlexNet is upstream's
    evaluation default. ``auto`` takes it where its weights are given, else a gradient pyramid."""
    lpips_backbone: str | None = None
    """File with torchvision's weights of the LPIPS backbone."""
    embedding_size: int = 32
    """Width of a view's embedding. The paper's exponent is unreadable; 32 is ample for 25 views."""
    embedding_deviation: float = 1.0
    """Standard deviation of initial embeddings: views are told apart from the start. With 0.01 the
    network must first tear them apart against equation 4, and a third of COIN's gain is lost."""
    embedding_l2: float = 1e-4
    """Weight of the squared length of the embedding in use, so that the reference view's vector,
    the one played back, does not become an outlier."""
    hidden_size: int = 64
    """Width of the one hidden layer; two layers are given, the width is not. Wider costs time."""
    position_octaves: int = 6
    """Octaves of the sinusoidal code of a splat's place on the neutral head. A fixed code, not a
    learned vector, so that it survives clone, split and prune."""
    place_size: int = 0
    """Width of a learned vector per splat beside that code, copied on clone and split. It lets
    offsets differ from splat to splat where the code can only vary smoothly: 16 halves again what
    COIN gains and keeps detail sharp, in thousands of steps, not in hundreds (docs/avatar.md)."""
    place_deviation: float = 1.0
    """Standard deviation of initial place vectors: splats are told apart from the start."""
    colour_gradient: Literal["detached", "attached"] = "detached"
    """Whether the pixel loss also reaches the base colour through the network's colour input.
    Detached: the input only tells the network what it adds to."""
    learning_rate: float = 1e-3
    """Adam's rate for network and embeddings: its usual one for small networks."""
    learning_rate_decay: float = 0.1
    """Factor the rate reaches at the end of the stage, log-linearly."""
    sh_degree: int | None = None
    """Degree of the base's view dependence during this stage (None keeps it). It competes with
    the offsets in explaining differences between views; 0 leaves all of them to the offsets."""
    density: Literal["off", "first_half"] = "off"
    """Density control in this stage. Off is safe: splats have settled, and new ones could take up
    what belongs into offsets."""
    static_fraction: float = 0.2
    """Share of steps on static orbit views; the clips never show the back of the head."""

    def __post_init__(self) -> None:
        for name in ("structure_weight", "offset_weight", "embedding_l2", "place_size"):
            if getattr(self, name) < 0:
                raise ConfigError(f"coin.{name} must not be negative, got {getattr(self, name)}")
        counts = ("embedding_size", "hidden_size", "position_octaves", "structure_interval")
        for name in counts:
            if getattr(self, name) < 1:
                raise ConfigError(f"coin.{name} must be at least 1, got {getattr(self, name)}")
        if not 0 <= self.static_fraction <= 1:
            raise ConfigError(f"coin.static_fraction must be in 0..1, got {self.static_fraction}")
        if self.sh_degree is not None and not 0 <= self.sh_degree <= 3:
            raise ConfigError(f"coin.sh_degree must be in 0..3, got {self.sh_degree}")
        if not 0 < self.learning_rate_decay <= 1:
            raise ConfigError(
                f"coin.learning_rate_decay must be in (0, 1], got {self.learning_rate_decay}"
            )


class CoinNetwork(nn.Module):
    """Equation 1: colour offsets from view embedding, base colour and place.

    The last layer starts at zero, so training starts from the avatar as it is. Offsets are added
    before colours are clamped at 0 and do not depend on the direction, hence can be baked.
    """

    def __init__(self, n_views: int, config: CoinConfig, generator: torch.Generator) -> None:
        super().__init__()
        code_size = 3 + 6 * config.position_octaves + config.place_size
        n_inputs = config.embedding_size + 3 + code_size
        bound = 1 / math.sqrt(n_inputs)

        def uniform(*shape: int) -> nn.Parameter:
            return nn.Parameter((2 * torch.rand(*shape, generator=generator) - 1) * bound)

        self._detached = config.colour_gradient == "detached"
        noise = torch.randn(n_views, config.embedding_size, generator=generator)
        self.view_embeddings = nn.Parameter(noise * config.embedding_deviation)
        self.view_weight = uniform(config.embedding_size, config.hidden_size)
        self.splat_weight = uniform(code_size + 3, config.hidden_size)
        self.hidden_bias = uniform(config.hidden_size)
        self.offset_weight = nn.Parameter(torch.zeros(config.hidden_size, 3))
        self.offset_bias = nn.Parameter(torch.zeros(3))

    def forward(
        self,
        view: int,
        dc: Tensor,  # (N, 3) constant coefficients of the base
        code: Tensor,  # (N, P) from position_code, learned places appended
    ) -> Tensor:
        """Offsets (N, 3) in colour units."""
        colour = dc_to_rgb(dc.detach() if self._detached else dc)
        # The view's part of the first layer is one vector for all splats.
        shared = self.view_embeddings[view] @ self.view_weight + self.hidden_bias
        hidden = torch.addmm(shared, torch.cat([code, colour], 1), self.splat_weight).relu_()
        return torch.addmm(self.offset_bias, hidden, self.offset_weight)


def position_code(points: Tensor, octaves: int) -> Tensor:
    """Sinusoidal code (N, 3 + 6 octaves) of points (N, 3) scaled to [-1, 1]; no gradient.

    The coordinates themselves, then sine and cosine of pi times each, doubling per octave.
    """
    with torch.no_grad():
        frequencies = math.pi * 2.0 ** torch.arange(octaves, device=points.device)
        angles = (points[:, None, :] * frequencies[:, None].to(points)).flatten(1)
        return torch.cat([points, angles.sin(), angles.cos()], 1)


def normalise_places(points: Tensor, vertices: Tensor) -> Tensor:
    """Points (N, 3) on the neutral head to [-1, 1] by the box of its ``vertices`` (V, 3)."""
    low, high = vertices.amin(0), vertices.amax(0)
    return (2 * points - (low + high)) / (high - low).max()


def bake_offsets(
    gaussians: Gaussians,
    network: CoinNetwork,
    code: Tensor,  # (N, P), the code the network was trained with
    view: int,
) -> Gaussians:
    """The avatar with the offsets of one view added to its constant colour term, for playback."""
    with torch.no_grad():
        return replace(gaussians, sh0=gaussians.sh0 + network(view, gaussians.sh0, code) / C0)
