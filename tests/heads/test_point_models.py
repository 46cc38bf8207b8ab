"""Analytic columns against automatic differentiation, and points against whole heads."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fc4d_ray.heads.flame import FlameModel
from fc4d_ray.heads.point_models import FlamePoints, PointModel, RigPoints


def _flame(seed: int = 0) -> FlameModel:
    g = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> torch.Tensor:
        return 0.1 * torch.randn(*shape, generator=g, dtype=torch.float64)

    return FlameModel(
        normal(30, 3), torch.zeros(1, 3).long(), normal(4, 30, 3), normal(3, 30, 3),
        normal(36, 30, 3), torch.softmax(10 * normal(5, 30), -1), torch.softmax(normal(30, 5), -1),
    )  # fmt: skip


def _rig() -> RigPoints:
    g = torch.Generator().manual_seed(1)

    def normal(*shape: int) -> torch.Tensor:
        return 0.1 * torch.randn(*shape, generator=g, dtype=torch.float64)

    weight = torch.rand(7, generator=g, dtype=torch.float64)
    return RigPoints(normal(7, 3), normal(2, 7, 3), normal(5, 7, 3), normal(3), weight)


def _random(points: PointModel, n_frames: int = 2) -> tuple[torch.Tensor, dict]:
    g = torch.Generator().manual_seed(2)
    sizes = points.parameter_sizes
    values = {n: 0.4 * torch.randn(n_frames, d, generator=g).double() for n, d in sizes.items()}
    return torch.randn(points.identity_size, generator=g).double(), values


@pytest.mark.parametrize("points", [FlamePoints.of(_flame(), torch.arange(0, 30, 3)), _rig()])
def test_columns_are_the_derivatives(points) -> None:
    identity, parameters = _random(points)
    found = points.jacobian(identity, parameters)
    offset = 0

    def check(name: str, vary, value: torch.Tensor) -> None:
        nonlocal offset
        whole = torch.autograd.functional.jacobian(vary, value)
        for t in range(found.shape[0]):
            expected = whole[t] if value.ndim == 1 else whole[t][..., t, :]
            columns = found[t, ..., offset : offset + value.shape[-1]]
            torch.testing.assert_close(columns, expected, atol=1e-10, rtol=1e-8, msg=name)
        offset += value.shape[-1]

    check("identity", lambda v: points.positions(v, parameters), identity)
    for name in points.parameter_sizes:
        check(
            name,
            lambda v, name=name: points.positions(identity, parameters | {name: v}),
            parameters[name],
        )
    assert offset == found.shape[-1]


def test_columns_are_right_at_rest_where_angles_vanish() -> None:
    points = FlamePoints.of(_flame(), torch.arange(30))
    identity = torch.zeros(4).double()
    zero = {n: torch.zeros(1, d).double() for n, d in points.parameter_sizes.items()}
    found = points.jacobian(identity, zero)[..., 4 + 3 : 4 + 3 + 15]
    assert torch.isfinite(found).all()
    step = zero | {"rotation": torch.tensor([[0.0, 1e-6, 0.0]]).double()}
    numeric = (points.positions(identity, step) - points.positions(identity, zero)) / 1e-6
    torch.testing.assert_close(found[..., 1], numeric, atol=1e-5, rtol=1e-4)


def test_chosen_points_are_the_models_vertices() -> None:
    model = _flame()
    chosen = torch.tensor([3, 17, 20])
    points = FlamePoints.of(model, chosen)
    identity, parameters = _random(points)
    whole = model.pose(parameters | {"shape": identity.expand(2, -1)}).vertices
    torch.testing.assert_close(points.positions(identity, parameters), whole[:, chosen])


def test_the_rigs_points_are_the_rigs_vertices(head) -> None:
    rig = head.rig(np.zeros(len(head.identity_basis)))
    chosen = np.arange(0, len(rig.neutral), 501)
    points = RigPoints(
        torch.from_numpy(rig.neutral[chosen]), torch.zeros(0, len(chosen), 3),
        torch.from_numpy(rig.action_basis[:, chosen]), torch.from_numpy(rig.neck_pivot),
        torch.from_numpy(rig.neck_weight[chosen]),
    )  # fmt: skip
    actions, neck = torch.rand(2, 52), torch.tensor([[0.1, 0.4, -0.2], [0.0, 0.0, 0.0]])
    still = {"rotation": torch.zeros(2, 3), "translation": torch.zeros(2, 3)}
    found = points.positions(torch.zeros(0), {"actions": actions, "neck": neck} | still)
    expected = rig.pose({"actions": actions, "neck": neck})[:, chosen]
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=0)
