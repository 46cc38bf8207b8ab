"""Decoder G: the warped features become a picture of eight times their size (SPADE).

The released state dict stores spectrally normalised convolutions as ``weight_orig`` with the two
vectors of the power iteration, which are used as stored. ``folded`` gives the same decoder with
plain weights and with convolutions over one input joined, which is what inference runs.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

SLOPE = 0.2
N_MIDDLE = 6


class SpadeDecoder(nn.Module):
    """Features (B, C, H, W) to RGB (B, 3, 8H, 8W) in (0, 1).

    Args:
        channels_in: C.
        widths: of the middle blocks and after each of the two doubling blocks.
        hidden: width of the layers that turn the features into modulation.
    """

    def __init__(self, channels_in: int, widths: tuple[int, int, int], hidden: int) -> None:
        super().__init__()
        middle, half, quarter = widths
        self.fc = nn.Conv2d(channels_in, middle, 3, padding=1)
        for i in range(N_MIDDLE):
            setattr(self, f"G_middle_{i}", SpadeBlock(middle, middle, channels_in, hidden))
        self.up_0 = SpadeBlock(middle, half, channels_in, hidden)
        self.up_1 = SpadeBlock(half, quarter, channels_in, hidden)
        self.conv_img = nn.Sequential(nn.Conv2d(quarter, 12, 3, padding=1), nn.PixelShuffle(2))

    def forward(self, features: Tensor) -> Tensor:
        out = self.fc(features)
        for i in range(N_MIDDLE):
            out = getattr(self, f"G_middle_{i}")(out, features)
        for block in (self.up_0, self.up_1):
            out = block(F.interpolate(out, scale_factor=2), features)
        return torch.sigmoid(self.conv_img(F.leaky_relu(out, SLOPE)))


class SpadeBlock(nn.Module):
    """Residual block whose normalisations are modulated by the features."""

    def __init__(self, channels_in: int, channels_out: int, condition: int, hidden: int) -> None:
        super().__init__()
        middle = min(channels_in, channels_out)
        self.conv_0 = SpectralConv2d(channels_in, middle, 3)
        self.conv_1 = SpectralConv2d(middle, channels_out, 3)
        self.has_shortcut = channels_in != channels_out
        if self.has_shortcut:
            self.conv_s = SpectralConv2d(channels_in, channels_out, 1, bias=False)
        self.norm_0 = SpadeNorm(channels_in, condition, hidden)
        self.norm_1 = SpadeNorm(middle, condition, hidden)
        if self.has_shortcut:
            self.norm_s = SpadeNorm(channels_in, condition, hidden)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        condition = F.interpolate(condition, size=x.shape[2:])
        out = self.conv_0(F.leaky_relu(self.norm_0(x, condition), SLOPE))
        out = self.conv_1(F.leaky_relu(self.norm_1(out, condition), SLOPE))
        shortcut = self.conv_s(self.norm_s(x, condition)) if self.has_shortcut else x
        return shortcut + out


class SpadeNorm(nn.Module):
    """Instance norm, then scale and offset per pixel from the condition."""

    def __init__(self, channels: int, condition: int, hidden: int) -> None:
        super().__init__()
        self.mlp_shared = nn.Sequential(nn.Conv2d(condition, hidden, 3, padding=1), nn.ReLU())
        self.mlp_gamma = nn.Conv2d(hidden, channels, 3, padding=1)
        self.mlp_beta = nn.Conv2d(hidden, channels, 3, padding=1)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        hidden = self.mlp_shared(condition)
        return F.instance_norm(x) * (1 + self.mlp_gamma(hidden)) + self.mlp_beta(hidden)


class SpectralConv2d(nn.Module):
    """Convolution with ``weight_orig`` over its spectral norm as the stored vectors give it."""

    def __init__(self, channels_in: int, channels_out: int, kernel: int, bias: bool = True) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(channels_out)) if bias else None
        self.weight_orig = nn.Parameter(torch.zeros(channels_out, channels_in, kernel, kernel))
        self.register_buffer("weight_u", torch.zeros(channels_out))
        self.register_buffer("weight_v", torch.zeros(channels_in * kernel * kernel))

    @property
    def sigma(self) -> Tensor:
        """The spectral norm, in double precision."""
        flat = self.weight_orig.flatten(1).double()
        return self.weight_u.double() @ (flat @ self.weight_v.double())

    @property
    def weight(self) -> Tensor:
        """The effective weight."""
        return (self.weight_orig.double() / self.sigma).to(self.weight_orig.dtype)

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.weight, self.bias, padding=self.weight_orig.shape[-1] // 2)
