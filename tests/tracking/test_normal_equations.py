"""Every kind of evidence must point down its own loss: right sides against autograd."""

from __future__ import annotations

import pytest
import torch

from fc4d_ray.cameras import orbit_camera
from fc4d_ray.tracking.normal_equations import (
    colour_evidence,
    landmark_evidence,
    outline_evidence,
    to_parameters,
)
from fc4d_ray.tracking.visibility import project_all, projection_slope

CAMERAS = [orbit_camera(a, size=64) for a in (0.0, 40.0, -70.0)]


def _points() -> torch.Tensor:
    g = torch.Generator().manual_seed(0)
    return 0.08 * (torch.rand(2, 9, 3, generator=g, dtype=torch.float64) - 0.5)


def _smooth_images(channels: int) -> torch.Tensor:
    """(2, 3, C, 64, 64): planes, on which bilinear samples and central differences are exact."""
    g = torch.Generator().manual_seed(1)
    y, x = torch.meshgrid(*[torch.arange(64.0, dtype=torch.float64)] * 2, indexing="ij")
    slope = torch.rand(2, 3, channels, 2, 1, 1, generator=g).double() * 0.01
    return 0.2 + slope[..., 0, :, :] * x + slope[..., 1, :, :] * y


def _gradient(build, points: torch.Tensor) -> None:
    """The right side is minus half the loss' gradient, the matrix not negative."""
    moving = points.clone().requires_grad_()
    evidence = build(moving)
    (gradient,) = torch.autograd.grad(evidence.energy, moving)
    torch.testing.assert_close(evidence.right.detach(), -0.5 * gradient, rtol=1e-6, atol=1e-8)
    assert torch.linalg.eigvalsh(evidence.matrix.detach()).min() > -1e-9
    assert evidence.right.norm() > 0


def test_landmarks_pull_down_their_loss() -> None:
    points = _points()
    pixels, _ = project_all(points, CAMERAS)
    g = torch.Generator().manual_seed(2)
    seen = pixels + torch.randn(pixels.shape, generator=g).double()
    seen[0, 0, 0] += 40  # an outlier, beyond the bend
    confidence = torch.rand(2, 3, 9, generator=g).double()
    confidence[1, 2] = 0
    seen[1, 2] = torch.nan
    _gradient(lambda p: landmark_evidence(p, CAMERAS, seen, confidence, 0.002), points)


def test_colours_pull_down_their_loss() -> None:
    images, points = _smooth_images(3), _points()
    g = torch.Generator().manual_seed(3)
    expected = 0.5 + 0.1 * torch.randn(2, 9, 3, generator=g).double()
    trust = (torch.rand(2, 3, 9, generator=g) > 0.3).double()
    _gradient(lambda p: colour_evidence(p, CAMERAS, images, expected, trust, 0.05, 20.0), points)


def test_outlines_pull_down_their_loss_and_leave_the_inside_alone() -> None:
    points = _points()
    outside = 8 * _smooth_images(1) - 5
    rim = torch.zeros(2, 3, 9, dtype=torch.bool)
    rim[:, :, :4] = True
    _gradient(lambda p: outline_evidence(p, CAMERAS, outside, rim, 0.002, 10.0), points)
    inside = outline_evidence(points, CAMERAS, -torch.ones_like(outside), rim & False, 0.002, 10.0)
    assert float(inside.energy) == 0 and not inside.right.any()


def test_the_slope_of_projection_is_its_derivative() -> None:
    points = _points()[:1]
    expected = torch.autograd.functional.jacobian(lambda p: project_all(p, CAMERAS)[0], points)
    found = projection_slope(points, CAMERAS)
    for n in range(points.shape[1]):
        torch.testing.assert_close(found[0, :, n], expected[0, :, n, :, 0, n])


def test_evidence_is_carried_to_parameters() -> None:
    g = torch.Generator().manual_seed(4)
    slope = torch.randn(2, 9, 3, 6, generator=g).double()
    points = _points()
    pixels, _ = project_all(points, CAMERAS)
    confidence = torch.ones(2, 3, 9).double()
    evidence = landmark_evidence(points, CAMERAS, pixels + 1, confidence, 0.002)
    matrix, right = to_parameters(evidence, slope)
    expected = torch.einsum("tnam,tnab,tnbk->tmk", slope, evidence.matrix, slope)
    torch.testing.assert_close(matrix, expected)
    torch.testing.assert_close(right, torch.einsum("tnam,tna->tm", slope, evidence.right))
    half = evidence.weighted(0.5)
    assert float(half.energy) == pytest.approx(0.5 * float(evidence.energy))
