"""Eyelids as they look when shut."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from fc4d_ray.priors.shape.lid_colour import lid_vertices, paint_lids

SHUT = {"eyeBlinkLeft": 1.0, "eyeBlinkRight": 1.0}


@pytest.fixture(scope="module")
def painted(fitted):
    """Skin that is lighter towards the cheek, lids of a colour no skin has."""
    height = fitted.rig.neutral[:, 1:2]
    skin = np.clip(0.6 - 4.0 * (height - 0.01), 0, 1) * np.array([1.0, 0.8, 0.7])
    colour = np.where(lid_vertices(fitted.rig)[:, None], [0.0, 1.0, 0.0], skin)
    return paint_lids(fitted.rig, replace(fitted.colour, colour=colour.astype(np.float32)))


def test_only_lids_change(fitted) -> None:
    again = paint_lids(fitted.rig, fitted.colour)
    others = ~lid_vertices(fitted.rig)
    np.testing.assert_array_equal(again.colour[others], fitted.colour.colour[others])
    assert 100 < lid_vertices(fitted.rig).sum() < 800


def test_lids_take_their_surroundings_colour_not_their_own(fitted, painted) -> None:
    rig = fitted.rig
    eyes = rig.landmarks(torch.from_numpy(rig.neutral))[36:48].numpy()
    near = np.linalg.norm(rig.neutral[:, None] - eyes, axis=-1).min(1) < 0.01
    lids = painted.colour[lid_vertices(rig) & near]
    assert (lids[:, 1] < lids[:, 0] + 1e-3).all(), "no trace of green"
    assert np.isfinite(lids).all() and (lids >= 0).all() and (lids <= 1).all()


def test_the_edge_is_dark_and_the_rest_is_not(fitted, painted) -> None:
    rig = fitted.rig
    shut = rig.pose(rig.parameters_from_actions(SHUT))[0].numpy()
    motion = np.linalg.norm(shut - rig.neutral, axis=1)
    points = rig.landmarks(rig.pose(rig.parameters_from_actions(SHUT)))[0].numpy()
    lid = lid_vertices(rig) & (motion > 0.3 * motion.max())
    for upper in (37, 38, 43, 44):
        edge = rig.faces[rig.landmark_faces[upper]]
        over = shut - points[upper]
        above = lid & (np.abs(over[:, 0]) < 0.004) & (over[:, 1] > 0.004) & (over[:, 2] > -0.004)
        assert above.any()
        assert painted.colour[edge].mean() < 0.75 * painted.colour[above].mean()
