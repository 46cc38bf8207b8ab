"""What the jaw opens is an oval, and lips that close over it meet."""

from __future__ import annotations

import numpy as np
import pytest

from fc4d_ray.heads.anny import load_anny_head
from fc4d_ray.heads.open_mouth import JAW_WAY, shape_open_mouth

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
    assert (gap[[65, 67]] > 0.95 * middle).all(), "not a triangle on its tip"
    assert (gap[list(CORNERS)] > 0.65 * middle).all()
    assert (gap[list(INNER_UPPER)] < 0.15 * middle).all(), "the upper lip stays"


def test_lips_close_over_an_open_jaw(lips) -> None:
    opened, closed = lips(jawOpen=1.0), lips(jawOpen=1.0, mouthClose=1.0)
    for marks in (opened, closed):
        marks[:, 0] = 0
    wide = np.linalg.norm(opened[list(INNER_UPPER)] - opened[list(INNER_LOWER)], axis=1)
    left = np.linalg.norm(closed[list(INNER_UPPER)] - closed[list(INNER_LOWER)], axis=1)
    assert (left < 0.25 * wide).all()


def test_what_the_jaw_takes_along_the_lips_bring_back() -> None:
    """Closing over an open jaw ends where anny's own two actions end, nine tenths of the way."""
    generator = np.random.default_rng(0)
    vertices = generator.uniform(-0.02, 0.02, (40, 3))
    basis = np.zeros((2, 40, 3))
    basis[0, :, 1] = -0.03 * generator.uniform(0, 1, 40)
    basis[1] = generator.normal(0, 0.01, (40, 3))
    faces = np.zeros((68, 3), int)
    faces[66] = int(basis[0, :, 1].argmin())
    shaped = shape_open_mouth(
        basis, ("jawOpen", "mouthClose"), vertices, faces, np.full((68, 3), 1 / 3)
    )
    np.testing.assert_allclose(shaped.sum(0), JAW_WAY * basis.sum(0), atol=1e-7)
    assert (shaped[0, :, 1] <= JAW_WAY * basis[0, :, 1] + 1e-7).all()
    assert (shaped[0, :, 1] < JAW_WAY * basis[0, :, 1] - 1e-3).any(), "more than anny's way"


def test_nothing_jumps(lips) -> None:
    """Halfway open is half of open: the action is linear still."""
    rest, half, full = lips(), lips(jawOpen=0.5), lips(jawOpen=1.0)
    np.testing.assert_allclose(half - rest, 0.5 * (full - rest), atol=1e-6)
