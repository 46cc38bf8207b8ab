from __future__ import annotations

import pytest
import torch

from fc4d_ray.tracking.appearance import (
    FULL_LIGHT,
    Appearance,
    Observations,
    fit_appearance,
    shading,
)


def _normals(n_frames: int, n_points: int) -> torch.Tensor:
    g = torch.Generator().manual_seed(0)
    return torch.nn.functional.normalize(torch.randn(n_frames, n_points, 3, generator=g), dim=-1)


def test_the_first_coefficient_is_light_from_everywhere() -> None:
    light = torch.zeros(9, 3)
    light[0] = FULL_LIGHT
    torch.testing.assert_close(shading(_normals(1, 5), light), torch.ones(1, 5, 3), atol=1e-4,
                               rtol=0)  # fmt: skip


def test_observed_colours_are_explained() -> None:
    g = torch.Generator().manual_seed(1)
    normals = _normals(6, 80)
    light = torch.zeros(9, 3)
    light[0] = FULL_LIGHT
    light[1:4] = 0.3 * torch.randn(3, 3, generator=g)
    truth = Appearance(0.2 + 0.6 * torch.rand(80, 3, generator=g), light)
    colours = truth.colours(normals)
    weight = torch.rand(6, 80, generator=g) + 0.1
    seen = Observations(weight, weight[..., None] * colours)
    found = fit_appearance(seen, normals, rounds=8)
    assert (found.colours(normals) - colours).abs().mean() < 0.01
    alone = Appearance(seen.colour.sum(0) / weight.sum(0)[:, None], truth.light * 0 + 1e-9)
    flat = alone.albedo.expand_as(colours)
    assert (found.colours(normals) - colours).abs().mean() < 0.3 * (flat - colours).abs().mean()


def test_what_nobody_saw_is_grey_and_finite() -> None:
    normals = _normals(2, 4)
    weight = torch.tensor([[1.0, 1, 1, 0], [1, 1, 1, 0]])
    found = fit_appearance(Observations(weight, weight[..., None] * torch.full((3,), 0.3)), normals)
    assert torch.isfinite(found.light).all()
    assert found.albedo[3].tolist() == pytest.approx([0.5] * 3, abs=0.2)
    assert found.albedo[0].tolist() == pytest.approx([0.3] * 3, abs=0.05)
