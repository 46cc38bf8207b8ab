"""The shape prior as a whole: one fitted person and the views of it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from fc4d_ray.cameras import orbit_azimuths, view_name
from fc4d_ray.errors import ConfigError, FitFailed
from fc4d_ray.evaluation.synthetic import surface_error_mm
from fc4d_ray.heads.rig import Region
from fc4d_ray.priors.shape.anny import AnnyShapeConfig, fit_person, render_views
from fc4d_ray.priors.shape.bust import FADE_BOTTOM_Y, FADE_TOP_Y, presence
from fc4d_ray.priors.shape.surface_colour import Material
from fc4d_ray.priors.shape.views import REFERENCE, ShapeView, read_cameras, read_views, write_views
from fc4d_ray.rendering.mesh import rasterize_mesh


@pytest.fixture(scope="module")
def views(fitted, shape_config) -> list[ShapeView]:
    return render_views(fitted, shape_config)


def test_the_rest_is_the_photographed_face_and_driving_is_relative_to_it(head, fitted) -> None:
    rig, fit = fitted.rig, fitted.fit
    bare = head.rig(fit.identity)
    count = len(bare.neutral)
    photographed = bare.neutral_parameters()
    photographed["actions"] = torch.from_numpy(fit.actions)[None]
    rest = bare.pose(photographed)[0].numpy()
    # Lids and lips are laid on the portrait's afterwards; nothing else moves, and by little.
    aligned = np.linalg.norm(rig.neutral[:count] - rest, axis=1)
    assert aligned.max() < 0.006 and (aligned > 1e-6).mean() < 0.6
    full = rig.parameters_from_actions({"jawOpen": 1.0})
    photographed["actions"][0, head.action_names.index("jawOpen")] = 1.0
    np.testing.assert_allclose(
        rig.pose(full)[0, :count].numpy() - rig.neutral[:count],
        bare.pose(photographed)[0].numpy() - rest,
        atol=1e-5,
    )


def test_the_face_is_the_persons(fitted, person) -> None:
    assert surface_error_mm(fitted.rig.neutral, person) < 0.8


def test_the_shell_follows_no_action_and_turns_with_the_head(head, fitted) -> None:
    rig = fitted.rig
    shell = np.arange(len(rig.neutral)) >= len(head.mean)
    assert set(np.unique(rig.region[shell])) <= {Region.HAIR, Region.CLOTHING}
    assert np.abs(rig.action_basis[:, shell]).max() == 0
    hair = shell & (rig.region == Region.HAIR) & (rig.neutral[:, 1] > 0)
    assert hair.any() and (rig.neck_weight[hair] == 1).all()
    assert (rig.neck_weight[rig.region == Region.CLOTHING] == 0).all()


def test_views_are_the_orbit_and_last_the_reference(views, fitted) -> None:
    names = [v.name for v in views]
    assert names == [view_name(a) for a in orbit_azimuths()] + [REFERENCE]
    assert views[-1].rgba.shape == (256, 256, 4) and views[0].rgba.shape == (160, 160, 4)
    assert views[-1].azimuth_deg == pytest.approx(20, abs=3)
    np.testing.assert_array_equal(views[-1].camera.K, fitted.camera.K)
    for view in views:
        assert view.depth.shape == view.material.shape == view.rgba.shape[:2]
        assert (view.camera.width, view.camera.height) == view.rgba.shape[1::-1]


def test_depth_colour_and_material_belong_to_the_same_surface(views, fitted) -> None:
    view = views[2]
    fragments = rasterize_mesh(fitted.rig.neutral, fitted.rig.faces, view.camera)
    np.testing.assert_allclose(view.depth, fragments.z_depth, atol=1e-6)
    covered = view.depth > 0
    assert (view.material[covered] > 0).all() and (view.material[~covered] == 0).all()
    assert (view.rgba[~covered] == 0).all()
    head_height_px = 0.24 / 1.944 * view.camera.K[0, 0]
    assert covered.sum() > 0.4 * head_height_px**2


def test_the_reference_view_looks_like_the_portrait(views, portrait) -> None:
    view = views[-1]
    inside = (portrait.matte > 250) & (view.rgba[..., 3] > 250)
    assert inside.sum() > 0.8 * (portrait.matte[: view.rgba.shape[0]] > 250)[:190].sum()
    difference = np.abs(view.rgba[..., :3].astype(float) - portrait.image)[inside]
    assert difference.mean() < 16, "of 255; blurred, so without the texture"
    skin = inside & (view.material == Material.SKIN) & (portrait.labels == 1)
    assert np.abs(view.rgba[..., :3].astype(float) - portrait.image)[skin].mean() < 10


def test_the_back_shows_hair_not_skin(views) -> None:
    back = next(v for v in views if v.azimuth_deg == 180)
    rows = np.nonzero(back.material)[0]
    top, level = rows.min(), back.camera.project(np.array([[0.0, 0.0, -0.1]]))[0][0, 1]
    skull = back.material[top : int(level)]
    assert (skull[skull > 0] == Material.HAIR).mean() > 0.97


def test_views_survive_the_files(views, tmp_path) -> None:
    chosen = [views[0], views[-1], replace(views[3], material=None)]
    write_views(tmp_path, chosen)
    assert [c.name for c in read_cameras(tmp_path)] == [v.name for v in chosen]
    for view, again in zip(chosen, read_views(tmp_path), strict=True):
        np.testing.assert_array_equal(again.rgba, view.rgba)
        np.testing.assert_array_equal(again.camera.K, view.camera.K)
        np.testing.assert_array_equal(again.camera.world_to_camera, view.camera.world_to_camera)
        assert again.azimuth_deg == view.azimuth_deg
        assert np.abs(again.depth - view.depth).max() < 5e-5
        assert ((again.depth == 0) == (view.depth == 0)).all()
        if view.material is None:
            assert again.material is None
        else:
            np.testing.assert_array_equal(again.material, view.material)


def test_the_bust_fades_below_the_shoulders_and_hair_does_not() -> None:
    points = np.array(
        [[0, 0.1, 0], [0, FADE_TOP_Y, 0], [0, FADE_BOTTOM_Y, 0], [0.1, -0.3, 0], [0.25, 0.05, 0]]
    )
    np.testing.assert_allclose(presence(points), [1, 1, 0, 0, 1], atol=1e-6)
    line = presence(np.stack([np.zeros(50), np.linspace(-0.3, 0.1, 50), np.zeros(50)], 1))
    assert (np.diff(line) >= 0).all(), "more and more there, upwards"


def test_garbage_landmarks_fail_typed(head, portrait, shape_config) -> None:
    garbage = np.random.default_rng(0).uniform(0, 256, (68, 2))
    with pytest.raises(FitFailed):
        fit_person(
            head, portrait.image, portrait.matte, portrait.labels, garbage,
            replace(shape_config, fit=replace(shape_config.fit, steps=60)),
        )  # fmt: skip


def test_the_view_size_has_limits() -> None:
    with pytest.raises(ConfigError, match="shape.view_size"):
        AnnyShapeConfig(view_size=16)
