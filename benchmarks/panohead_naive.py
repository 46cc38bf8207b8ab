"""PanoHead's arithmetic written the obvious way: what the fast code is measured against.

Kernels per image and grouped convolutions, upsampling by inserting zeros, dense 4 x 4 filters,
tri-grids with channels first, features sorted sample by sample, nothing cached between views.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from unittest import mock

import torch
import torch.nn.functional as F
from torch import Tensor

from fc4d_ray.priors.shape.panohead.layers import fir_filter
from fc4d_ray.priors.shape.panohead.volume_rendering import RayColours, interval_weights

_PACKAGE = "fc4d_ray.priors.shape.panohead"


@contextmanager
def naive_arithmetic() -> Iterator[None]:
    """Within it, every generator computes the obvious way."""
    with (
        mock.patch(f"{_PACKAGE}.layers.modulated_convolution", modulated_convolution),
        mock.patch(f"{_PACKAGE}.synthesis.upsample_image", upsample_image),
        mock.patch(f"{_PACKAGE}.generator.split_planes", split_planes),
        mock.patch(f"{_PACKAGE}.volume_rendering._march", march),
    ):
        yield


def modulated_convolution(
    x: Tensor,  # [N, C, H, W]
    weight: Tensor,  # [O, C, k, k]
    styles: Tensor,  # [P, C]
    *,
    demodulate: bool = True,
    up: bool = False,
    gain: float = 1.0,
) -> Tensor:
    """One kernel per image, all in one grouped convolution."""
    images, channels, height, width = x.shape
    styles = styles.repeat_interleave(images // len(styles), 0)
    kernels = weight[None] * styles[:, None, :, None, None]
    if demodulate:
        kernels = kernels * (kernels.square().sum((2, 3, 4), keepdim=True) + 1e-8).rsqrt()
        kernels = kernels * gain
    out = weight.shape[0]
    grouped = x.reshape(1, images * channels, height, width)
    if up:
        kernels = kernels.transpose(1, 2).flatten(0, 1)
        y = F.conv_transpose2d(grouped, kernels, stride=2, groups=images)
        y = y.view(images, out, *y.shape[-2:])
        return _filtered(F.pad(y, (1, 1, 1, 1)), 4.0)
    y = F.conv2d(grouped, kernels.flatten(0, 1), padding=weight.shape[-1] // 2, groups=images)
    return y.view(images, out, height, width)


def upsample_image(x: Tensor) -> Tensor:
    """Zeros between the pixels, then the filter."""
    images, channels, height, width = x.shape
    spread = x.new_zeros(images, channels, height, 2, width, 2)
    spread[:, :, :, 0, :, 0] = x
    spread = spread.view(images, channels, 2 * height, 2 * width)
    return _filtered(F.pad(spread, (2, 1, 2, 1)), 4.0)


def split_planes(image: Tensor, depth: int) -> Tensor:
    """Volumes as the channels lie in the image."""
    people, channels, height, width = image.shape
    return image.view(people, 3, channels // (3 * depth), depth, height, width)


def march(depths: Tensor, density: Tensor, parts: list[Tensor]) -> RayColours:
    """Everything sorted, features included, then averaged over neighbours."""
    ordered, order = depths.sort(-1)
    features = torch.cat(parts, -2)
    features = features.gather(-2, order[..., None].expand(-1, -1, -1, features.shape[-1]))
    weights = interval_weights(density.gather(-1, order), ordered)
    colours = (features[..., 1:, :] + features[..., :-1, :]) / 2
    middles = (ordered[..., 1:] + ordered[..., :-1]) / 2
    opacity = weights.sum(-1)
    distance = (weights * middles).sum(-1) / opacity
    distance = torch.nan_to_num(distance, torch.inf)
    seen = (weights[..., None] * colours).sum(-2)
    return RayColours(seen, distance, opacity, ordered.min(), ordered.max())


def _filtered(x: Tensor, gain: float) -> Tensor:
    channels = x.shape[1]
    kernel = (fir_filter().to(x) * gain)[None, None].expand(channels, 1, 4, 4)
    return F.conv2d(x, kernel, groups=channels)
