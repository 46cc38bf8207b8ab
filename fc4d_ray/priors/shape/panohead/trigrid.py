"""The tri-grid: three shallow feature volumes, read trilinearly and averaged, and their decoder.

Points are in PanoHead units. No sign flips: the world's +y grows with the row index.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fc4d_ray.priors.shape.panohead.layers import FullyConnected
from fc4d_ray.priors.shape.panohead.settings import FEATURES, GeneratorSettings

_AXES = ((0, 1, 2), (0, 2, 1), (1, 2, 0))
"""World axes that run along width, height and depth of each volume."""


def split_planes(image: Tensor, depth: int) -> Tensor:
    """Backbone image (P, 3 * C * D, H, W) as volumes (P, 3, C, D, H, W).

    Channels lie last in memory, so that one cell's features are read together.
    """
    people, channels, height, width = image.shape
    grid = image.view(people, 3, channels // (3 * depth), depth, height, width)
    return grid.permute(0, 1, 3, 4, 5, 2).contiguous().permute(0, 1, 5, 2, 3, 4)


def grid_coordinates(points: Tensor, box_size: float) -> Tensor:
    """Where (P, M, 3) points lie in each volume: (P, 3, M, 3) as (width, height, depth)."""
    scaled = points * (2 / box_size)
    return torch.stack([scaled[..., list(axes)] for axes in _AXES], 1)


def plane_features(planes: Tensor, points: Tensor, box_size: float) -> Tensor:
    """Features (P, 3, M, C) of points (P, M, 3) in each volume; zero outside."""
    people, count = points.shape[:2]
    coordinates = grid_coordinates(points, box_size).flatten(0, 1)[:, None, None]
    # Depth 1 takes this path too: plain bilinear look-up would give other values.
    sampled = F.grid_sample(
        planes.flatten(0, 1),
        coordinates.to(planes.dtype),
        mode="bilinear",
        padding_mode="zeros",
        align_corners=False,
    )
    return sampled.view(people, 3, -1, count).transpose(2, 3)


class Decoder(nn.Module):
    """Mean feature of the three volumes to density and 32 features; no viewing direction."""

    def __init__(self, settings: GeneratorSettings) -> None:
        super().__init__()
        rate = settings.decoder_rate
        self.net = nn.Sequential(
            FullyConnected(FEATURES, 64, rate=rate),
            nn.Softplus(),
            FullyConnected(64, 1 + FEATURES, rate=rate),
        )

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """(..., 32) to raw density (...) and features (..., 32)."""
        y = self.net(features.float())
        return y[..., 0], y[..., 1:]
