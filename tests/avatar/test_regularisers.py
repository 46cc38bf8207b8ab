from __future__ import annotations

import numpy as np
import torch

from fc4d_ray.avatar.regularisers import metric_position_excess, position_excess, scale_excess


def test_parity_of_values_and_gradients(kit):
    visible = torch.tensor(kit["reg.visible"])
    positions = torch.tensor(kit["bind.local_xyz"], requires_grad=True)
    log_scales = torch.tensor(kit["bind.local_log_scale"], requires_grad=True)
    position_loss = 0.01 * position_excess(positions, visible, 1.0)
    scale_loss = scale_excess(log_scales.exp(), visible, 0.6)
    np.testing.assert_allclose(position_loss.item(), kit["reg.xyz_loss"], rtol=1e-10)
    np.testing.assert_allclose(scale_loss.item(), kit["reg.scale_loss"], rtol=1e-10)
    position_loss.backward()
    scale_loss.backward()
    for gradient, name in ((positions.grad, "xyz"), (log_scales.grad, "log_scale")):
        expected = kit[f"reg.grad_{name}"]
        np.testing.assert_allclose(gradient, expected, atol=1e-10 * np.abs(expected).max())


def test_parity_of_metric_variants(kit):
    visible = torch.tensor(kit["reg.visible"])
    face_scale = torch.tensor(kit["bind.face_scaling"][kit["bind.binding"]])
    metric_positions = torch.tensor(kit["bind.local_xyz"]) * face_scale
    position_loss = metric_position_excess(metric_positions, visible, 0.05)
    scale_loss = scale_excess(torch.tensor(kit["bind.scaling"]), visible, 0.03)
    np.testing.assert_allclose(
        0.01 * position_loss.item(), kit["reg.metric_xyz_loss_thr0.05"], rtol=1e-10
    )
    np.testing.assert_allclose(scale_loss.item(), kit["reg.metric_scale_loss_thr0.03"], rtol=1e-10)


def test_nothing_visible_and_nothing_in_excess_give_zero_not_nan():
    values = torch.zeros(4, 3, requires_grad=True)
    nobody, everybody = torch.zeros(4, dtype=torch.bool), torch.ones(4, dtype=torch.bool)
    for mask in (nobody, everybody):
        loss = position_excess(values, mask, 1.0) + scale_excess(values, mask, 0.6)
        loss.backward()
        assert loss.item() == 0
        assert torch.equal(values.grad, torch.zeros(4, 3))
