"""What the jaw opens is an oval, and lips that close over it meet."""

from __future__ import annotations

import numpy as np
import pytest

from fc4d_ray.heads.anny import load_anny_head

INNER_UPPER, INNER_LOWER = (61, 62, 63), (67, 66, 65)
CORNERS = (60, 64)


@pytest.fixture(scope="module")
def lips():
    """Function: the 68 landmarks (68, 3) of the mean head under some actions."""
    head = load_anny_head()
    rig = head.rig(np.zeros(len(head.identity_basis), np.float32))

    def posed(**actions: float) -> np.ndarray:
        return rig.landmarks(rig.pose(rig.parameters_from_actions(actions))[0]).numpy()

    return posed


def test_the_lower_lip_keeps_its_arc(lips) -> None:
    rest, opened = lips(), lips(jawOpen=1.0)
    gap = rest[:, 1] - opened[:, 1]
    middle = gap[66]
    assert 0.025 < middle < 0.045, "metres"
    sides = gap[[65, 67]]
    assert (sides > 0.9 * middle).all(), "not a triangle on its tip"
    assert (gap[list(CORNERS)] > 0.4 * middle).all()
    assert (gap[list(INNER_UPPER)] < 0.15 * middle).all(), "the upper lip stays"


def test_lips_close_over_an_open_jaw(lips) -> None:
    opened, closed = lips(jawOpen=1.0), lips(jawOpen=1.0, mouthClose=1.0)
    for marks in (opened, closed):
        marks[:, 0] = 0
    wide = np.linalg.norm(opened[list(INNER_UPPER)] - opened[list(INNER_LOWER)], axis=1)
    left = np.linalg.norm(closed[list(INNER_UPPER)] - closed[list(INNER_LOWER)], axis=1)
    assert (left < 0.25 * wide).all()


def test_nothing_jumps(lips) -> None:
    """Halfway open is half of open: the action is linear still."""
    rest, half, full = lips(), lips(jawOpen=0.5), lips(jawOpen=1.0)
    np.testing.assert_allclose(half - rest, 0.5 * (full - rest), atol=1e-6)
