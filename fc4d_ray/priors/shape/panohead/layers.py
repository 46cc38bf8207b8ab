"""StyleGAN2's building blocks in plain PyTorch: equalised layers, modulation, FIR resampling.

Names of parameters and buffers equal the released state dict's. Weights stay float32; a layer
computes in the type of its input, so half precision is the caller's choice per network.
Tensors: N images, P people, C channels; one person's style serves any number of its images.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

LEAK = 0.2
SQRT2 = math.sqrt(2.0)
_EPSILON = 1e-8


class FullyConnected(nn.Module):
    """Linear layer whose stored weight is scaled at run time (equalised learning rate)."""

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        activation: str = "linear",
        rate: float = 1.0,
        bias: float = 0.0,
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(out_features, in_features) / rate)
        self.bias = nn.Parameter(torch.full((out_features,), bias))
        self.activation = activation
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        """(..., in) to (..., out)."""
        scale = self.rate / math.sqrt(self.weight.shape[1])
        y = F.linear(x, self.weight.to(x) * scale, self.bias.to(x) * self.rate)
        return F.leaky_relu(y, LEAK) * SQRT2 if self.activation == "lrelu" else y


def fir_filter() -> Tensor:
    """The 4 x 4 low-pass kernel outer([1,3,3,1], [1,3,3,1]) / 64."""
    taps = torch.tensor([1.0, 3.0, 3.0, 1.0])
    return torch.outer(taps, taps) / 64


def low_pass(x: Tensor, gain: float) -> Tensor:
    """(N, C, H, W) zero-padded by one and filtered by ``fir_filter`` times ``gain``: side minus 1.

    One pass of sixteen taps is twice as fast on a CPU as two of four: reading is what costs.
    """
    kernel = (fir_filter() * gain).to(x).expand(x.shape[1], 1, 4, 4)
    return F.conv2d(x, kernel, padding=1, groups=x.shape[1])


def upsample_image(x: Tensor) -> Tensor:
    """(N, C, H, W) to twice the size: zero insertion and the FIR filter with gain 4.

    That is bilinear interpolation of an image surrounded by zeros.
    """
    padded = F.pad(x, (1, 1, 1, 1))
    doubled = F.interpolate(padded, scale_factor=2, mode="bilinear", align_corners=False)
    return doubled[..., 2:-2, 2:-2]


def resize_image(x: Tensor, size: int) -> Tensor:
    """(N, C, H, W) to (N, C, size, size), bilinear with antialiasing; unchanged where it fits."""
    if x.shape[-1] == size and x.shape[-2] == size:
        return x
    dtype = x.dtype
    resized = F.interpolate(
        x.float(), size=(size, size), mode="bilinear", align_corners=False, antialias=True
    )
    return resized.to(dtype)


def modulated_convolution(
    x: Tensor,  # [N, C, H, W]
    weight: Tensor,  # [O, C, k, k] float32
    styles: Tensor,  # [P, C] float32, N a multiple of P, images of one person adjacent
    *,
    demodulate: bool = True,
    up: bool = False,
    gain: float = 1.0,
) -> Tensor:
    """Convolution with weights scaled per input channel and normalised per output channel.

    One person's scaled weight is an ordinary kernel for all of its images. For several people the
    scales move to the images instead, which needs no kernel per person. ``gain`` multiplies
    demodulated results.
    """
    people = len(styles)
    if people == 1:
        kernel = weight * styles[0][None, :, None, None]
        if demodulate:
            power = kernel.square().sum((1, 2, 3), keepdim=True)
            kernel = kernel * ((power + _EPSILON).rsqrt() * gain)
        return _convolution(x, kernel.to(x.dtype), up)
    images = len(x) // people
    factor = None
    if demodulate:
        power = styles.square() @ weight.square().sum((2, 3)).T
        factor = (power + _EPSILON).rsqrt() * gain
        if x.dtype == torch.float16:  # keep the scaled images within range
            bound = styles.abs().amax(1, keepdim=True).clamp_min(1e-4)
            styles, factor = styles / bound, factor * bound
    y = _convolution(x * _per_image(styles, images, x), weight.to(x.dtype), up)
    return y if factor is None else y * _per_image(factor, images, x)


def _per_image(values: Tensor, images: int, like: Tensor) -> Tensor:
    return values.repeat_interleave(images, 0)[:, :, None, None].to(like.dtype)


def _convolution(x: Tensor, kernel: Tensor, up: bool) -> Tensor:
    if up:
        # Transposed convolution first, filter second: the border depends on the order.
        return low_pass(F.conv_transpose2d(x, kernel.transpose(0, 1), stride=2), gain=4.0)
    return F.conv2d(x, kernel, padding=kernel.shape[-1] // 2)


class SynthesisLayer(nn.Module):
    """Modulated 3 x 3 convolution, noise, bias, leaky ReLU; doubles the size where ``up``."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        w_size: int,
        resolution: int,
        *,
        up: bool = False,
        clamp: float | None = None,
    ) -> None:
        super().__init__()
        self.up = up
        self.clamp = clamp
        self.weight = nn.Parameter(torch.randn(out_channels, in_channels, 3, 3))
        self.noise_strength = nn.Parameter(torch.zeros([]))
        self.bias = nn.Parameter(torch.zeros(out_channels))
        self.register_buffer("resample_filter", fir_filter())
        self.register_buffer("noise_const", torch.randn(resolution, resolution))
        self.affine = FullyConnected(w_size, in_channels, bias=1.0)

    def forward(self, x: Tensor, w: Tensor, *, noise: bool) -> Tensor:
        """(N, C, H, W) with latents (P, w) to (N, C', H', W')."""
        # The activation's gain passes through it, so it is applied to what is small. What follows
        # the convolution works in place: on a CPU fresh memory costs as much as the arithmetic.
        y = modulated_convolution(x, self.weight, self.affine(w), up=self.up, gain=SQRT2)
        if noise:
            y.add_((self.noise_const * (self.noise_strength * SQRT2)).to(y.dtype))
        y.add_((self.bias * SQRT2).to(y.dtype)[:, None, None])
        y = F.leaky_relu_(y, LEAK)
        if self.clamp is None:
            return y
        bounded = torch.clamp if y.requires_grad else torch.clamp_
        return bounded(y, -self.clamp, self.clamp)


class ToRGB(nn.Module):
    """Modulated 1 x 1 convolution without demodulation: hidden channels to an image."""

    def __init__(
        self, in_channels: int, out_channels: int, w_size: int, clamp: float | None = None
    ) -> None:
        super().__init__()
        self.clamp = clamp
        self.weight = nn.Parameter(torch.randn(out_channels, in_channels, 1, 1))
        self.bias = nn.Parameter(torch.zeros(out_channels))
        self.affine = FullyConnected(w_size, in_channels, bias=1.0)

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        """(N, C, H, W) with latents (P, w) to (N, C', H, W)."""
        styles = self.affine(w) / math.sqrt(self.weight.shape[1])
        y = modulated_convolution(x, self.weight, styles, demodulate=False)
        y = y + self.bias.to(y.dtype)[:, None, None]
        return y if self.clamp is None else y.clamp(-self.clamp, self.clamp)
