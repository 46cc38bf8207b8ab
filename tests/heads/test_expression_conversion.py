"""ARKit actions to FLAME and back, on a FLAME-like head whose face means something."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

sys.path.insert(0, str(Path(__file__).resolve().parent))
from flame_like import SCALE, flame_like

from fc4d_ray.heads.expression_conversion import (
    ExpressionConversion,
    correspond,
    fit_conversion,
)
from fc4d_ray.heads.flame_landmarks import barycentric_points
from fc4d_ray.heads.rig import Region


@pytest.fixture(scope="module")
def rig(head):
    return head.rig(np.zeros(len(head.identity_basis)))


@pytest.fixture(scope="module")
def model(head):
    return flame_like(head)


@pytest.fixture(scope="module")
def landmarks(head, model) -> np.ndarray:
    return barycentric_points(
        model.template, model.faces, head.landmark_faces, head.landmark_barycentric
    ).numpy()


@pytest.fixture(scope="module")
def conversion(head, model, landmarks, rig) -> ExpressionConversion:
    return fit_conversion(model, head.region, landmarks, rig)


def test_points_correspond_over_scale_and_shift(head, model, landmarks, rig) -> None:
    pairs = correspond(model.template.numpy(), head.region, landmarks, rig)
    assert 600 < len(pairs.vertices) <= 1200
    assert (head.region[pairs.vertices] == Region.FACE).all()
    np.testing.assert_allclose(pairs.turn, SCALE * np.eye(3), atol=2e-3)
    own = pairs.source[np.arange(len(pairs.vertices)), pairs.weights.argmax(1)]
    assert (own == pairs.vertices).mean() > 0.98


def test_actions_become_expressions_that_move_alike(conversion) -> None:
    face = [i for i, n in enumerate(conversion.action_names) if not n.startswith("eyeLook")]
    moving = [i for i in face if conversion.motion_mm[i] > 1]
    assert len(moving) > 25
    share = conversion.error_mm[moving] / conversion.motion_mm[moving]
    assert np.median(share) < 0.15 and conversion.error_mm.max() < 1.0
    gaze = conversion.action_names.index("eyeLookOutLeft")
    turn_deg = np.rad2deg(np.abs(conversion.eyes[gaze, 1]))
    assert 10 < turn_deg < 60, "looking out turns the left eye about the vertical"
    assert np.abs(conversion.eyes[gaze, 3:]).max() < 0.02, "and leaves the right one alone"


def test_there_and_back_again(conversion, model) -> None:
    wanted = np.zeros((3, 52), np.float32)
    for row, names in enumerate((("jawOpen",), ("mouthSmileLeft", "mouthSmileRight"), ())):
        for name in names:
            wanted[row, conversion.action_names.index(name)] = 0.7
    parameters = conversion.to_flame(torch.from_numpy(wanted))
    found, error_mm = conversion.to_actions(model, parameters)
    assert found.min() >= 0 and found.max() <= 1
    assert error_mm.max() < 1.0 and error_mm[2] < 1e-3 and not found[2].any()
    there = torch.from_numpy(found) @ torch.from_numpy(conversion.points).flatten(1)
    meant = torch.from_numpy(wanted) @ torch.from_numpy(conversion.points).flatten(1)
    gap = (there - meant).unflatten(-1, (-1, 3)).norm(dim=-1) * 1000
    assert gap[:2].mean() < 0.5, f"{gap.mean()} mm"
    jaw = conversion.action_names.index("jawOpen")
    assert found[0, jaw] > 0.4 and found[1, jaw] < 0.2


def test_gaze_goes_there_and_back(conversion, model) -> None:
    wanted = torch.zeros(1, 52)
    wanted[0, conversion.action_names.index("eyeLookUpRight")] = 0.8
    found, _ = conversion.to_actions(model, conversion.to_flame(wanted))
    assert found[0, conversion.action_names.index("eyeLookUpRight")] == pytest.approx(0.8, abs=0.1)


def test_arrays_survive_storage(conversion) -> None:
    again = ExpressionConversion.from_arrays(conversion.to_arrays())
    assert again.action_names == conversion.action_names
    np.testing.assert_array_equal(again.expr, conversion.expr)
