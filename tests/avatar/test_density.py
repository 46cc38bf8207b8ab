from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from fc4d_ray.avatar.binding import face_frames
from fc4d_ray.avatar.density import (
    DensityConfig,
    DensityStatistics,
    densify_and_prune,
    removable,
    reset_opacities,
)
from fc4d_ray.avatar.gaussians import Gaussians
from fc4d_ray.avatar.initialise import initialise
from fc4d_ray.errors import ConfigError


def kit_gaussians(kit) -> Gaussians:
    def tensor(name: str) -> torch.Tensor:
        return torch.tensor(kit[f"densify.in_{name}"])

    features = tensor("features")
    return Gaussians(
        tensor("xyz"), tensor("log_scale"), tensor("quat"), tensor("opacity_logit")[:, 0],
        features[:, 0], features[:, 1:], torch.tensor(kit["bind.binding"], dtype=torch.int64),
    )  # fmt: skip


def test_parity_of_one_density_step(kit, fill):
    gradient_threshold, prune_opacity, extent, _, size_limit = kit["densify.params"]
    config = DensityConfig(
        gradient_threshold=float(gradient_threshold), prune_opacity=float(prune_opacity),
        size_limit=float(size_limit), split_noise="upstream",
    )  # fmt: skip
    gaussians = kit_gaussians(kit)
    vertices = torch.tensor(kit["bind.verts"], dtype=torch.float32)
    faces = torch.tensor(kit["bind.faces"], dtype=torch.int64)
    statistics = DensityStatistics(
        torch.tensor(kit["densify.in_grad_accum"])[:, 0],
        torch.tensor(kit["densify.in_denom"])[:, 0],
    )
    edit = densify_and_prune(
        gaussians, face_frames(vertices, faces).scale[gaussians.binding], statistics.mean(),
        config, extent=float(extent), prune_large=True,
        draw_noise=lambda m: torch.tensor(fill("ga.split_noise", (m, 3), 0, "unit")),
    )  # fmt: skip
    out = edit.gaussians
    np.testing.assert_array_equal(out.binding, kit["densify.out_binding"])
    counter = torch.bincount(out.binding, minlength=200)
    np.testing.assert_array_equal(counter, kit["densify.out_binding_counter"])
    for name, tensor in {
        "xyz": out.positions,
        "log_scale": out.log_scales,
        "quat": out.quats,
        "opacity_logit": out.opacity_logits[:, None],
        "features": torch.cat([out.sh0[:, None], out.shN], 1),
    }.items():
        expected = kit[f"densify.out_{name}"]
        np.testing.assert_allclose(
            tensor, expected, rtol=0, atol=1e-5 * np.abs(expected).max(), err_msg=name
        )
    cloned = edit.parent[edit.is_new].bincount(minlength=500).numpy()
    np.testing.assert_array_equal(cloned[kit["densify.selected_split"]] <= 2, True)
    untouched = ~(kit["densify.selected_clone"] | kit["densify.selected_split"])
    assert cloned[untouched].sum() == 0
    torch.testing.assert_close(out.sh0, gaussians.sh0[edit.parent])


def test_parity_of_the_keep_one_rule(kit):
    binding = torch.tensor(kit["bind.binding"], dtype=torch.int64)
    effective = removable(torch.tensor(kit["prune.requested"]), binding)
    np.testing.assert_array_equal(effective, kit["prune.effective"])
    np.testing.assert_array_equal(binding[~effective], kit["prune.out_binding"])


def test_parity_of_the_opacity_reset(kit):
    reset = reset_opacities(torch.tensor(kit["reset.in"]), 0.01)
    # The kit's 0.01 was rounded to float32 first.
    np.testing.assert_allclose(reset, kit["reset.out"], rtol=1e-8)


def test_keep_one_spares_all_splats_of_a_face_that_would_be_bare():
    binding = torch.tensor([0, 0, 1, 1, 1, 3])
    requested = torch.tensor([True, True, True, True, False, True])
    assert removable(requested, binding).tolist() == [False, False, True, True, False, False]


def grown(config: DensityConfig, gradient: list[float], sizes: list[float]) -> Gaussians:
    gaussians = initialise(len(sizes), sh_degree=0, generator=torch.Generator().manual_seed(0))
    gaussians = replace(gaussians, log_scales=torch.tensor(sizes).log()[:, None].repeat(1, 3))
    generator = torch.Generator().manual_seed(1)
    return densify_and_prune(
        gaussians, torch.full((len(sizes),), 2.0), torch.tensor(gradient), config, extent=100.0,
        prune_large=False, draw_noise=lambda m: torch.randn(m, 3, generator=generator),
    ).gaussians  # fmt: skip


def test_small_are_cloned_and_large_are_split_into_smaller_ones_apart():
    out = grown(DensityConfig(), [1.0, 1.0, 0.0], [0.4, 0.6, 0.6])
    assert out.binding.tolist() == [0, 2, 0, 1, 1]
    torch.testing.assert_close(out.log_scales[3:].exp(), torch.full((2, 3), 0.6 / 1.6))
    assert (out.positions[3] - out.positions[4]).norm() > 0.1
    torch.testing.assert_close(out.positions[2], out.positions[0])


def test_the_limit_on_splats_keeps_the_strongest():
    out = grown(DensityConfig(max_splats=4), [1.0, 3.0, 2.0], [0.4, 0.4, 0.4])
    assert out.binding.tolist() == [0, 1, 2, 1]
    assert len(grown(DensityConfig(max_splats=2), [1.0, 3.0, 2.0], [0.4, 0.4, 0.4])) == 3


def test_statistics_are_in_normalised_device_units_and_zero_for_the_unseen():
    statistics = DensityStatistics.zeros(3, torch.device("cpu"))
    statistics.add(torch.tensor([[0.03, 0.0], [0.0, 0.1]]), torch.tensor([2, 0]), 200, 100)
    statistics.add(torch.tensor([[0.01, 0.0]]), torch.tensor([2]), 200, 100)
    torch.testing.assert_close(statistics.mean(), torch.tensor([5.0, 0.0, 2.0]))


def test_when_edits_and_resets_are_due():
    config = DensityConfig(start_step=500, stop_step=1000, interval=100, reset_interval=300)
    assert [s for s in range(1, 1200) if config.edits_at(s)] == [600, 700, 800, 900]
    assert [s for s in range(1, 1200) if config.resets_at(s, False)] == [300, 600, 900]
    assert [s for s in range(1, 1200) if config.resets_at(s, True)] == [300, 500, 600, 900]
    assert not DensityConfig(enabled=False).edits_at(600)
    with pytest.raises(ConfigError, match=r"density\.interval"):
        DensityConfig(interval=0)
