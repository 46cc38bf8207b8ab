"""Image losses of avatar training. Images are (H, W, C) float, nominally in [0, 1], unclamped."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any, ClassVar

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from fc4d_ray.errors import ConfigError

WINDOW = 11
SIGMA_PX = 1.5
_C1, _C2 = 0.01**2, 0.03**2


@dataclass(frozen=True)
class LossConfig:
    """Weights of the loss (paper equations 2-4 and GaussianAvatars' regularisers)."""

    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid"}

    l1: float = 0.8
    """Weight of the mean absolute pixel error."""
    ssim: float = 0.2
    """Weight of 1 - SSIM."""
    alpha: float = 0.0
    """Weight of the mean absolute error of the opacity image against the matte."""
    position: float = 0.01
    """Weight of the mean distance by which splats leave their triangle's neighbourhood."""
    position_threshold: float = 1.0
    """Distance from the triangle's centre that is free, in triangle units."""
    scale: float = 1.0
    """Weight of the mean excess of splat scales."""
    scale_threshold: float = 0.6
    """Splat scale that is free, in triangle units."""
    metric: bool = False
    """Measure both excesses in metres instead, with thresholds in metres (upstream's variant)."""

    def __post_init__(self) -> None:
        for name in ("l1", "ssim", "alpha", "position", "scale"):
            if getattr(self, name) < 0:
                raise ConfigError(f"losses.{name} must not be negative, got {getattr(self, name)}")


def pixel_loss(image: Tensor, target: Tensor, config: LossConfig) -> Tensor:
    """``l1 * L1 + ssim * (1 - SSIM)``, equation 2 with the SSIM term read as a loss."""
    loss = config.l1 * (image - target).abs().mean()
    if config.ssim > 0:
        loss = loss + config.ssim * (1 - ssim(image, target))
    return loss


def ssim(image: Tensor, target: Tensor) -> Tensor:
    """Mean structural similarity: 11x11 Gaussian window, sigma 1.5, zero padding.

    Differentiable once with respect to ``image``; ``target`` gets no gradient.
    """
    return _Ssim.apply(image, target.detach())


def psnr(image: Tensor, target: Tensor) -> Tensor:
    """Peak signal-to-noise ratio in dB over all pixels and channels, images clamped to [0, 1]."""
    error = (image.clamp(0, 1) - target.clamp(0, 1)).square().mean()
    return -10 * torch.log10(error.clamp_min(1e-10))


class _Ssim(torch.autograd.Function):
    """SSIM with its gradient written out.

    The window is symmetric and zero padding keeps it so, hence blurring is its own adjoint: the
    backward pass is three more blurs instead of the graph of five convolutions.
    """

    @staticmethod
    def forward(ctx: Any, image: Tensor, target: Tensor) -> Tensor:
        x, y = image.detach(), target
        mu_x, mu_y, xy = blur(x), blur(y), blur(x * y)
        mu_xy, mu_sum = mu_x * mu_y, mu_x * mu_x + mu_y * mu_y
        variance = blur(torch.addcmul(x * x, y, y)).sub_(mu_sum).add_(_C2)
        covariance = xy.sub_(mu_xy).mul_(2).add_(_C2)
        mean_product = mu_xy.mul_(2).add_(_C1)
        mean_sum = mu_sum.add_(_C1)
        inverse = 1 / (mean_sum * variance)
        similarity = mean_product * covariance * inverse
        if ctx.needs_input_grad[0]:
            d_xx = -similarity / variance
            d_xy = mean_product.mul_(inverse).mul_(2)
            d_mu = mu_y * (2 * covariance * inverse - d_xy)
            d_mu -= 2 * mu_x * (similarity / mean_sum + d_xx)
            ctx.save_for_backward(x, y, d_mu, d_xx, d_xy)
        return similarity.mean()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        x, y, d_mu, d_xx, d_xy = ctx.saved_tensors
        through_moments = torch.addcmul(y * blur(d_xy), x, blur(d_xx), value=2)
        return (through_moments + blur(d_mu)) * (gradient / x.numel()), None


def blur(planes: Tensor) -> Tensor:
    """SSIM's Gaussian window over (H, W, C) planes, zeros outside; no autograd on CPU."""
    if planes.device.type == "cpu":
        kernel = _window(str(planes.dtype))
        # On two cores OpenCV's filter takes a fifth of the time of torch's depthwise convolution.
        out = cv2.sepFilter2D(
            planes.contiguous().numpy(), -1, kernel, kernel, borderType=cv2.BORDER_CONSTANT
        )
        return torch.from_numpy(out.reshape(planes.shape))
    kernel_t = torch.from_numpy(_window(str(planes.dtype))).to(planes.device)
    stacked = planes.permute(2, 0, 1)[:, None]
    half = WINDOW // 2
    rows = F.conv2d(stacked, kernel_t.view(1, 1, -1, 1), padding=(half, 0))
    return F.conv2d(rows, kernel_t.view(1, 1, 1, -1), padding=(0, half))[:, 0].permute(1, 2, 0)


@lru_cache(maxsize=2)
def _window(dtype: str) -> NDArray[np.floating]:
    distance = np.arange(WINDOW) - WINDOW // 2
    weights = np.exp(-(distance**2) / (2 * SIGMA_PX**2))
    return (weights / weights.sum()).astype(np.float64 if "64" in dtype else np.float32)
