"""Appearance feature extractor F: a crop becomes a feature volume, once per source."""

from __future__ import annotations

from collections import OrderedDict
from itertools import pairwise

import torch.nn.functional as F
from torch import Tensor, nn

from fc4d_ray.priors.video.liveportrait.blocks import ConvNorm2d, DownBlock2d, ResidualBlock3d


class AppearanceExtractor(nn.Module):
    """RGB (B, 3, 4H, 4W) in [0, 1] to features (B, C, D, H, W).

    Args:
        widths: channels after ``first`` and after each halving block.
        volume_channels, volume_depth: C and D.
        n_residual: number of residual blocks on the volume.
    """

    def __init__(
        self, widths: list[int], volume_channels: int, volume_depth: int, n_residual: int
    ) -> None:
        super().__init__()
        self.volume_channels, self.volume_depth = volume_channels, volume_depth
        self.first = ConvNorm2d(3, widths[0])
        pairs = pairwise(widths)
        self.down_blocks = nn.ModuleList(DownBlock2d(a, b) for a, b in pairs)
        self.second = nn.Conv2d(widths[-1], volume_channels * volume_depth, 1)
        self.resblocks_3d = nn.Sequential(
            OrderedDict((f"3dr{i}", ResidualBlock3d(volume_channels)) for i in range(n_residual))
        )

    @property
    def stride(self) -> int:
        """Pixels of the crop per cell of the volume."""
        return 2 ** len(self.down_blocks)

    def forward(self, image: Tensor) -> Tensor:
        out = F.relu(self.first(image))
        for block in self.down_blocks:
            out = block(out)
        out = self.second(out)
        size = (self.volume_channels, self.volume_depth, *out.shape[2:])
        return self.resblocks_3d(out.view(len(out), *size))
