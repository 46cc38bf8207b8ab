"""Two synthesis blocks that turn rendered features into the full image, four times their size."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fc4d_ray.priors.shape.panohead.layers import resize_image
from fc4d_ray.priors.shape.panohead.settings import FEATURES, GeneratorSettings
from fc4d_ray.priors.shape.panohead.synthesis import SynthesisBlock


class SuperResolution(nn.Module):
    """Features and raw image, resized to a quarter of the output, to the output.

    All layers read the last w vector; none adds noise.
    """

    def __init__(self, settings: GeneratorSettings) -> None:
        super().__init__()
        self.input_size = settings.background_size
        clamp = settings.superresolution_clamp
        first, second = settings.superresolution_channels
        w_size, side = settings.w_size, settings.output_size
        self.block0 = SynthesisBlock(FEATURES, first, w_size, side // 2, 3, clamp)
        self.block1 = SynthesisBlock(first, second, w_size, side, 3, clamp)

    def forward(
        self,
        features: Tensor,  # [N, 32, h, h]
        image: Tensor,  # [N, 3, h, h] nominally -1…1
        w: Tensor,  # [P, w]
        dtype: torch.dtype = torch.float32,
    ) -> Tensor:
        """Image (N, 3, S, S) in float32, nominally -1…1."""
        x = resize_image(features, self.input_size)
        image = resize_image(image, self.input_size)
        ws = w[:, None].expand(-1, 3, -1)
        for block in (self.block0, self.block1):
            x, image = block(x, image, ws, noise=False, dtype=dtype)
        return image
