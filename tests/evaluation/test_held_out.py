from __future__ import annotations

from dataclasses import replace

import numpy as np
from scipy.spatial.transform import Rotation

from fc4d_ray.avatar.avatar import Avatar
from fc4d_ray.cameras import orbit_camera
from fc4d_ray.evaluation.held_out import (
    HELD_OUT_AZIMUTHS_DEG,
    carried_camera,
    held_out_views,
    view_figures,
)
from fc4d_ray.evaluation.synthetic import make_person

SCALE = 1.06
TURN = Rotation.from_euler("xyz", [4, -9, 6], degrees=True).as_matrix()
SHIFT = np.array([0.013, -0.008, 0.02])


def test_a_carried_camera_sees_the_same_pixels() -> None:
    points = np.random.default_rng(0).normal(0, 0.05, (40, 3))
    targets = SCALE * points @ TURN.T + SHIFT
    camera = orbit_camera(35, 10, size=320)
    carried = carried_camera(camera, points, targets)
    expected, depth = camera.project(targets)
    found, carried_depth = carried.project(points)
    np.testing.assert_allclose(found, expected, atol=1e-6)
    np.testing.assert_allclose(carried_depth * SCALE, depth, rtol=1e-9)
    rotation = carried.world_to_camera[:3, :3]
    np.testing.assert_allclose(rotation @ rotation.T, np.eye(3), atol=1e-9)


def test_a_faithful_avatar_is_close_to_the_truth(faithful_avatar: Avatar, person) -> None:
    views = held_out_views(faithful_avatar, person, azimuths_deg=(0, 180), size=384)
    for view in views:
        assert view.head.sum() < view.bust.sum() < 0.6 * view.bust.size
        figures = view_figures(view)["head"]
        assert figures["psnr"] > 18.5
        assert figures["ssim"] > 0.75
        assert figures["detail_agreement"] > 0.15
        assert view.shared.sum() > 0.9 * view.head.sum()
        assert view_figures(view)["shared"]["psnr"] > figures["psnr"], "outlines cost most"


def test_frames_of_their_own_cost_an_avatar_nothing(avatar_of, person) -> None:
    """The pipeline may find a head turned, shifted and larger: its pictures count the same."""
    avatar = avatar_of(person, spacing_m=0.004, size=128)
    rig = avatar.rig
    moved_rig = replace(
        rig,
        neutral=(SCALE * rig.neutral @ TURN.T + SHIFT).astype(np.float32),
        action_basis=(SCALE * rig.action_basis @ TURN.T).astype(np.float32),
    )
    moved = Avatar(avatar.gaussians, moved_rig)
    at = (30.0,)
    (before,), (after,) = (held_out_views(a, person, at, size=128) for a in (avatar, moved))
    shared = before.head & after.head
    assert shared.sum() > 0.97 * before.head.sum()
    assert np.abs(before.picture - after.picture)[shared].mean() < 0.002


def test_held_out_views_are_those_the_brief_asks_for() -> None:
    assert sorted(HELD_OUT_AZIMUTHS_DEG) == [-60, -30, 0, 30, 60, 90, 180]


def test_another_person_is_further_from_the_truth(faithful_avatar: Avatar, person) -> None:
    right, wrong = (
        view_figures(held_out_views(faithful_avatar, someone, azimuths_deg=(0,), size=192)[0])
        for someone in (person, make_person(3))
    )
    assert wrong["head"]["psnr"] < right["head"]["psnr"] - 2
    assert wrong["head"]["detail_agreement"] < right["head"]["detail_agreement"]
