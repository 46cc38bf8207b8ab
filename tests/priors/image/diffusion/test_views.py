from __future__ import annotations

import numpy as np
import pytest
import torch

from fc4d_ray.cameras import orbit_camera, view_name
from fc4d_ray.errors import InputError
from fc4d_ray.priors.image.diffusion.views import make_portrait, straight_rgba
from fc4d_ray.priors.shape.views import REFERENCE, ShapeView

SIDE = 48


def _view(name: str, azimuth: float, side: int = SIDE) -> ShapeView:
    camera = orbit_camera(azimuth, size=side)
    alpha = np.zeros((side, side), np.uint8)
    alpha[10:30, 12:40] = 255
    rgba = np.dstack([np.full((side, side, 3), 40, np.uint8), alpha])
    rgba[alpha == 0, :3] = (255, 0, 0)  # what empty pixels hold must not matter
    return ShapeView(name, azimuth, camera, rgba, np.where(alpha > 0, 1.9, 0).astype(np.float32))


def _portrait(size: int, **options):
    views = [_view(view_name(a), a) for a in (0.0, 180.0)] + [_view(REFERENCE, 12.0, 64)]
    rgba = _view(REFERENCE, 12.0, 64).rgba
    return make_portrait("ann", views, rgba, "a head", 1, size=size, background=1.0, **options)


@pytest.mark.parametrize("size", [32, SIDE, 96])
def test_views_come_to_the_working_grid_on_the_background(size) -> None:
    portrait = _portrait(size)
    assert [view.name for view in portrait.views] == [view_name(0.0), view_name(180.0)]
    for view in (*portrait.views, portrait.reference):
        assert view.image.shape == (3, size, size) and view.depth.shape == (size, size)
        assert view.camera.width == view.camera.height == size
        solid = view.alpha > 0.999
        empty = view.alpha < 0.001
        torch.testing.assert_close(
            view.image[:, empty], torch.ones_like(view.image[:, empty]), atol=0.002, rtol=0
        )
        inner = view.image[:, solid]
        torch.testing.assert_close(inner, torch.full_like(inner, 40 / 255), atol=0.01, rtol=0)
        assert set(np.unique(view.depth.numpy().round(4))) == {0.0, np.float32(1.9)}


def test_cameras_look_the_same_way_at_every_size() -> None:
    portrait, original = _portrait(96), orbit_camera(180.0, size=SIDE)
    pixels, _ = portrait.views[1].camera.project(np.array([[0.02, 0.03, 0.01]]))
    expected, _ = original.project(np.array([[0.02, 0.03, 0.01]]))
    np.testing.assert_allclose(pixels, 2 * expected)


@pytest.mark.parametrize("names", [[], [REFERENCE], ["az+000_el+00"]])
def test_view_sets_without_views_or_reference_are_refused(names) -> None:
    views = [_view(name, 0.0) for name in names]
    with pytest.raises(InputError, match="no usable views"):
        make_portrait("a", views, _view("x", 0).rgba, "", 0, size=64, background=1.0)


def test_views_must_be_square() -> None:
    view = _view("az+000_el+00", 0.0)
    wide = ShapeView(view.name, 0.0, view.camera.resized(64, 32), view.rgba, view.depth)
    with pytest.raises(InputError, match="not square"):
        make_portrait("a", [wide, _view(REFERENCE, 0)], view.rgba, "", 0, size=64, background=1.0)


def test_colour_at_the_edge_comes_from_the_inside_and_alpha_stays() -> None:
    alpha = np.zeros((SIDE, SIDE), np.uint8)
    alpha[10:30, 12:40] = 255
    alpha[10, 12:40] = 100
    alpha[29, 12:40] = 240
    image = torch.ones(3, SIDE, SIDE)
    image[:, 10:30, 12:40] = 0.2
    image[:, 10] = 0.7  # mixed with the background, and not as alpha says
    image[:, 29] = 0.2 * 240 / 255 + 15 / 255
    rgba = straight_rgba(image, alpha)
    np.testing.assert_array_equal(rgba[..., 3], alpha)
    assert (np.abs(rgba[alpha > 0][:, :3].astype(int) - 51) <= 1).all()
    empty = straight_rgba(image, np.zeros((SIDE, SIDE), np.uint8))
    assert empty.shape == (SIDE, SIDE, 4) and (empty[..., 3] == 0).all()
    doubled = straight_rgba(torch.full((3, 96, 96), 0.2), alpha)
    assert doubled.shape == (SIDE, SIDE, 4) and (doubled[20, 20, :3] == 51).all()
