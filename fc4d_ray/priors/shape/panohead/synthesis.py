"""StyleGAN2 synthesis with a running image: the tri-grid backbone and the background network."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fc4d_ray.priors.shape.panohead.layers import (
    SynthesisLayer,
    ToRGB,
    fir_filter,
    upsample_image,
)


class SynthesisBlock(nn.Module):
    """One resolution: upsampling convolution (not at 4 px), convolution, addition to the image."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        w_size: int,
        resolution: int,
        image_channels: int,
        clamp: float | None = None,
    ) -> None:
        super().__init__()
        self.is_first = in_channels == 0
        if self.is_first:
            self.const = nn.Parameter(torch.randn(out_channels, resolution, resolution))
        self.register_buffer("resample_filter", fir_filter())
        if not self.is_first:
            self.conv0 = SynthesisLayer(
                in_channels, out_channels, w_size, resolution, up=True, clamp=clamp
            )
        self.conv1 = SynthesisLayer(out_channels, out_channels, w_size, resolution, clamp=clamp)
        self.torgb = ToRGB(out_channels, image_channels, w_size, clamp)

    @property
    def layer_count(self) -> int:
        """w vectors the convolutions read; the image's one follows and is shared onwards."""
        return 1 if self.is_first else 2

    def forward(
        self,
        x: Tensor | None,  # [N, C, H, W], None at the first block
        image: Tensor | None,  # [N, I, H, W] running image, float32
        ws: Tensor,  # [P, layers + 1, w]
        *,
        noise: bool,
        dtype: torch.dtype = torch.float32,
    ) -> tuple[Tensor, Tensor]:
        """Hidden channels and running image, both at this block's resolution."""
        latents = list(ws.unbind(1))
        if self.is_first:
            x = self.const.to(dtype).expand(len(ws), -1, -1, -1)
        else:
            x = self.conv0(x.to(dtype), latents.pop(0), noise=noise)
        x = self.conv1(x, latents.pop(0), noise=noise)
        added = self.torgb(x, latents.pop(0)).float()
        return x, added if image is None else upsample_image(image) + added


class SynthesisNetwork(nn.Module):
    """Blocks ``b4``, ``b8`` … up to the output's resolution."""

    def __init__(
        self,
        w_size: int,
        resolution: int,
        image_channels: int,
        channel_base: int,
        channel_max: int,
        clamp: float | None = None,
    ) -> None:
        super().__init__()
        self.resolutions = [4 << i for i in range(resolution.bit_length() - 2)]
        previous = 0
        for side in self.resolutions:
            channels = min(channel_base // side, channel_max)
            block = SynthesisBlock(previous, channels, w_size, side, image_channels, clamp)
            setattr(self, f"b{side}", block)
            previous = channels

    @property
    def latent_count(self) -> int:
        """w vectors read."""
        return 2 * len(self.resolutions)

    def forward(
        self, ws: Tensor, *, noise: bool = True, dtype: torch.dtype = torch.float32
    ) -> Tensor:
        """Image (P, I, R, R) in float32 of latents (P, >= latent_count, w)."""
        x = image = None
        first = 0
        for side in self.resolutions:
            block = getattr(self, f"b{side}")
            used = ws[:, first : first + block.layer_count + 1]
            x, image = block(x, image, used, noise=noise, dtype=dtype)
            first += block.layer_count
        return image
