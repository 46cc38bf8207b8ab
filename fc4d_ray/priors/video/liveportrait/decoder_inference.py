"""The decoder as inference runs it: plain weights, convolutions of one input joined into one.

Exact but for rounding: the spectral norms are divided out in double precision; a block's hidden
layers (one per normalisation) see the same condition, and scale and offset the same hidden layer.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fc4d_ray.priors.video.liveportrait.decoder import (
    N_MIDDLE,
    SLOPE,
    SpadeBlock,
    SpadeDecoder,
    SpectralConv2d,
)


class InferenceDecoder(nn.Module):
    """Same arguments and result as the ``SpadeDecoder`` it was made from."""

    def __init__(self, decoder: SpadeDecoder) -> None:
        super().__init__()
        self.fc = decoder.fc
        middle = (getattr(decoder, f"G_middle_{i}") for i in range(N_MIDDLE))
        self.middle = nn.ModuleList(_Block(block) for block in middle)
        self.up = nn.ModuleList(_Block(block) for block in (decoder.up_0, decoder.up_1))
        self.conv_img = decoder.conv_img

    def forward(self, features: Tensor) -> Tensor:
        out = self.fc(features)
        for block in self.middle:
            out = block(out, features)
        for block in self.up:
            out = block(F.interpolate(out, scale_factor=2), features)
        return torch.sigmoid(self.conv_img(F.leaky_relu(out, SLOPE)))


class _Block(nn.Module):
    def __init__(self, block: SpadeBlock) -> None:
        super().__init__()
        norms = [block.norm_0, block.norm_1]
        self.conv_0, self.conv_1 = _plain(block.conv_0), _plain(block.conv_1)
        self.conv_s: nn.Conv2d | None = None
        if block.has_shortcut:
            norms.append(block.norm_s)
            self.conv_s = _plain(block.conv_s)
        self.shared = _joined([norm.mlp_shared[0] for norm in norms])
        self.modulation = nn.ModuleList(_joined([n.mlp_gamma, n.mlp_beta]) for n in norms)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        condition = F.interpolate(condition, size=x.shape[2:])
        hidden = F.relu(self.shared(condition)).chunk(len(self.modulation), 1)
        normalised = F.instance_norm(x)
        out = self.conv_0(F.leaky_relu(self._modulated(normalised, hidden, 0), SLOPE))
        out = F.leaky_relu(self._modulated(F.instance_norm(out), hidden, 1), SLOPE)
        out = self.conv_1(out)
        if self.conv_s is None:
            return x + out
        return self.conv_s(self._modulated(normalised, hidden, 2)) + out

    def _modulated(self, normalised: Tensor, hidden: tuple[Tensor, ...], index: int) -> Tensor:
        gamma, beta = self.modulation[index](hidden[index]).chunk(2, 1)
        return torch.addcmul(beta, normalised, 1 + gamma)


def _plain(conv: SpectralConv2d) -> nn.Conv2d:
    with torch.no_grad():
        return _conv(conv.weight.clone(), None if conv.bias is None else conv.bias.clone())


def _joined(convs: list[nn.Conv2d]) -> nn.Conv2d:
    with torch.no_grad():
        return _conv(
            torch.cat([conv.weight for conv in convs]), torch.cat([conv.bias for conv in convs])
        )


def _conv(weight: Tensor, bias: Tensor | None) -> nn.Conv2d:
    channels_out, channels_in, kernel, _ = weight.shape
    conv = nn.Conv2d(
        channels_in, channels_out, kernel, padding=kernel // 2, bias=bias is not None,
        dtype=weight.dtype, device=weight.device,
    )  # fmt: skip
    conv.weight.copy_(weight)
    if bias is not None:
        conv.bias.copy_(bias)
    return conv.requires_grad_(False)
