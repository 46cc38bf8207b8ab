"""Convolution blocks that the appearance extractor and the warping module share.

Attribute names are those of the released state dicts.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class ConvNorm2d(nn.Module):
    """Convolution and batch norm; the caller applies the activation."""

    def __init__(self, channels_in: int, channels_out: int, kernel: int = 3) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels_in, channels_out, kernel, padding=kernel // 2)
        self.norm = nn.BatchNorm2d(channels_out)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.conv(x))


class ConvNorm3d(nn.Module):
    """The same for volumes (B, C, D, H, W)."""

    def __init__(self, channels_in: int, channels_out: int, kernel: int = 3) -> None:
        super().__init__()
        self.conv = nn.Conv3d(channels_in, channels_out, kernel, padding=kernel // 2)
        self.norm = nn.BatchNorm3d(channels_out)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.conv(x))


class DownBlock2d(ConvNorm2d):
    """Halves height and width."""

    def forward(self, x: Tensor) -> Tensor:
        return F.avg_pool2d(F.relu(super().forward(x)), 2)


class DownBlock3d(ConvNorm3d):
    """Halves height and width, never the depth."""

    def forward(self, x: Tensor) -> Tensor:
        out = F.relu(super().forward(x))
        # Pooled as pictures: the pooling of volumes has no bfloat16 on the CPU.
        pooled = F.avg_pool2d(out.flatten(1, 2), 2)
        return pooled.view(*out.shape[:3], *pooled.shape[2:])


class UpBlock3d(ConvNorm3d):
    """Doubles height and width by repetition, then convolves."""

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(super().forward(F.interpolate(x, scale_factor=(1, 2, 2))))


class ResidualBlock3d(nn.Module):
    """Pre-activation residual block of constant width."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv3d(channels, channels, 3, padding=1)
        self.conv2 = nn.Conv3d(channels, channels, 3, padding=1)
        self.norm1 = nn.BatchNorm3d(channels)
        self.norm2 = nn.BatchNorm3d(channels)

    def forward(self, x: Tensor) -> Tensor:
        out = self.conv1(F.relu(self.norm1(x)))
        return x + self.conv2(F.relu(self.norm2(out)))


class Hourglass3d(nn.Module):
    """Encoder and decoder over height and width with skips by concatenation."""

    def __init__(self, channels_in: int, down_widths: list[int], up_widths: list[int]) -> None:
        super().__init__()
        self.encoder = _Encoder(channels_in, down_widths)
        self.decoder = _Decoder([channels_in, *down_widths], up_widths)

    @property
    def channels_out(self) -> int:
        """Channels of the result: the last up block's and the input's."""
        return self.decoder.conv.out_channels

    def forward(self, x: Tensor) -> Tensor:
        return self.decoder(self.encoder(x))


class _Encoder(nn.Module):
    def __init__(self, channels_in: int, widths: list[int]) -> None:
        super().__init__()
        pairs = zip([channels_in, *widths[:-1]], widths, strict=True)
        self.down_blocks = nn.ModuleList(DownBlock3d(a, b) for a, b in pairs)

    def forward(self, x: Tensor) -> list[Tensor]:
        levels = [x]
        for block in self.down_blocks:
            levels.append(block(levels[-1]))
        return levels


class _Decoder(nn.Module):
    """``level_widths``: channels of the encoder's levels, input first."""

    def __init__(self, level_widths: list[int], widths: list[int]) -> None:
        super().__init__()
        skips = level_widths[-2::-1]
        blocks, channels = [], level_widths[-1]
        for width, skip in zip(widths, skips, strict=True):
            blocks.append(UpBlock3d(channels, width))
            channels = width + skip
        self.up_blocks = nn.ModuleList(blocks)
        self.conv = nn.Conv3d(channels, channels, 3, padding=1)
        self.norm = nn.BatchNorm3d(channels)

    def forward(self, levels: list[Tensor]) -> Tensor:
        out = levels.pop()
        for block in self.up_blocks:
            out = torch.cat([block(out), levels.pop()], 1)
        return F.relu(self.norm(self.conv(out)))
