"""From a latent code and a camera label to w vectors, or to a camera offset."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fc4d_ray.priors.shape.panohead.layers import FullyConnected
from fc4d_ray.priors.shape.panohead.settings import LABEL_SIZE


class MappingNetwork(nn.Module):
    """StyleGAN2's mapping network, conditioned on the camera."""

    def __init__(
        self, z_size: int, w_size: int, layers: int, *, rate: float, last_activation: str
    ) -> None:
        super().__init__()
        self.layers = layers
        self.register_buffer("w_avg", torch.zeros(w_size))
        self.embed = FullyConnected(LABEL_SIZE, w_size)
        for index in range(layers):
            is_last = index == layers - 1
            layer = FullyConnected(
                z_size + w_size if index == 0 else w_size,
                w_size,
                activation=last_activation if is_last else "lrelu",
                rate=rate,
            )
            setattr(self, f"fc{index}", layer)

    def forward(self, z: Tensor, label: Tensor, truncation: float = 1.0) -> Tensor:
        """w (P, w) of codes (P, z) under labels (P, 25); ``truncation`` 0 gives the average w."""
        x = torch.cat([_normalised(z), _normalised(self.embed(label))], 1)
        for index in range(self.layers):
            x = getattr(self, f"fc{index}")(x)
        return x if truncation == 1 else self.w_avg.lerp(x, truncation)


def _normalised(x: Tensor) -> Tensor:
    return x * (x.square().mean(1, keepdim=True) + 1e-8).rsqrt()
