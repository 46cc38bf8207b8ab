"""What a generator must be able to do for the image prior; the diffusion backbone does it.

The loop around it is the same for a real UNet and for the oracle of ``evaluation``, which stands
in for one on synthetic people.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from fc4d_ray.priors.image.diffusion.attention import Exchange


@dataclass(frozen=True)
class Row:
    """What one row of a batch shows."""

    portrait_id: str
    view: str
    prompt: str


class Denoiser(Protocol):
    """A latent diffusion model. Latents are float32 on its device, whatever it computes in."""

    device: torch.device
    latent_factor: int
    """Pixels per latent cell, along one side."""
    scheduler_config: Any

    def encode(self, images: Tensor) -> Tensor:
        """Images (B, 3, S, S) in 0…1 to clean latents (B, c, s, s), always the same ones."""

    def decode(self, latents: Tensor) -> Tensor:
        """Clean latents to images (B, 3, S, S) in 0…1."""

    def condition(self, rows: Sequence[Row]) -> Any:
        """What the model must know of each row besides its latent."""

    def predict(
        self,
        latents: Tensor,  # [B, c, s, s]
        timestep: int,
        condition: Any,
        *,
        exchange: Exchange | None = None,
        guidance: float = 1.0,
    ) -> Tensor:
        """The model's output for each row, guided where ``guidance`` is not 1."""
