from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from fc4d_ray.avatar.losses import LossConfig, blur, pixel_loss, psnr, ssim
from fc4d_ray.errors import ConfigError


def images(kit, dtype=torch.float64) -> tuple[torch.Tensor, torch.Tensor]:
    a, b = (torch.tensor(kit[f"img.{name}"], dtype=dtype).permute(1, 2, 0) for name in "ab")
    return a.contiguous().requires_grad_(), b.contiguous()


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_parity_of_ssim_and_its_gradient(kit, dtype):
    a, b = images(kit, dtype)
    value = ssim(a, b)
    tolerance = 1e-10 if dtype == torch.float64 else 2e-6
    assert abs(value.item() - kit["img.ssim"]) < tolerance
    value.backward()
    expected = kit["img.grad_ssim_wrt_a"].transpose(1, 2, 0)
    error = np.linalg.norm(a.grad.numpy() - expected) / np.linalg.norm(expected)
    assert error < 1e-4


def test_parity_of_pixel_loss_and_psnr(kit):
    a, b = images(kit)
    assert abs(pixel_loss(a, b, LossConfig()).item() - kit["img.photometric_loss"]) < 1e-10
    assert abs((a - b).abs().mean().item() - kit["img.l1"]) < 1e-10
    assert abs(psnr(a, b).item() - kit["img.psnr_global"]) < 1e-4


def test_ssim_gradient_against_finite_differences():
    generator = torch.Generator().manual_seed(0)
    a = torch.rand(7, 9, 2, generator=generator, dtype=torch.float64).requires_grad_()
    b = torch.rand(7, 9, 2, generator=generator, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda x: ssim(x, b), (a,))
    assert ssim(b, b).item() == pytest.approx(1)


def test_blur_equals_zero_padded_convolution():
    planes = torch.rand(20, 30, 5, generator=torch.Generator().manual_seed(1))
    distance = torch.arange(11.0) - 5
    window = torch.exp(-(distance**2) / 4.5)
    window = window / window.sum()
    kernel = torch.outer(window, window).view(1, 1, 11, 11)
    expected = F.conv2d(planes.permute(2, 0, 1)[:, None], kernel, padding=5)[:, 0].permute(1, 2, 0)
    torch.testing.assert_close(blur(planes), expected, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(blur(planes[..., :1]), expected[..., :1], atol=1e-6, rtol=1e-5)


def test_negative_weights_are_refused():
    with pytest.raises(ConfigError, match=r"losses\.ssim"):
        LossConfig(ssim=-0.1)
