"""Which pixels of finished views are warped into an unfinished one, on a sphere."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from _sphere import RADIUS, sphere_depth, sphere_view

from fc4d_ray.cameras import Camera, look_at, pixel_centres
from fc4d_ray.priors.image.diffusion.compositing import SourceView, composite_view
from fc4d_ray.priors.image.diffusion.config import WarpConfig
from fc4d_ray.priors.image.diffusion.views import Source
from fc4d_ray.warping import facing

SIZE = 128
CONFIG = WarpConfig()


def _reference(azimuth_deg: float = 0.0, **options) -> SourceView:
    return SourceView(sphere_view(azimuth_deg, SIZE, **options), Source.REFERENCE)


def test_a_step_of_15_degrees_shows_the_true_pattern() -> None:
    target = sphere_view(15.0, SIZE)
    blank = replace(target, image=torch.zeros_like(target.image))
    made = composite_view(blank, [_reference()], CONFIG)
    assert made.coverage > 0.7
    error = (made.image - target.image)[:, made.trusted].abs()
    assert error.mean() < 0.005 and error.max() < 0.05
    assert (made.image[:, ~made.trusted] == 0).all()
    assert set(made.source[made.trusted].tolist()) == {int(Source.REFERENCE)}
    assert set(made.source[target.depth == 0].tolist()) == {int(Source.NOTHING)}


def test_coverage_falls_with_the_angle_and_nothing_is_seen_from_behind() -> None:
    shares = [
        composite_view(sphere_view(angle, SIZE), [_reference()], CONFIG).coverage
        for angle in (15.0, 45.0, 90.0, 180.0)
    ]
    assert shares == sorted(shares, reverse=True)
    assert shares[0] > 0.75 and shares[2] < 0.45 and shares[3] == 0


def test_ray_distance_for_depth_is_noticed() -> None:
    """Near and wide: a source whose depth is distance along the ray loses the outer parts."""

    def view(azimuth: float):
        base = sphere_view(azimuth, SIZE)
        position = base.camera.position / np.linalg.norm(base.camera.position) * 0.3
        K = np.array([[150.0, 0, 64], [0, 150.0, 64], [0, 0, 1]])
        camera = Camera(K, look_at(position, np.zeros(3)), SIZE, SIZE)
        depth = torch.from_numpy(sphere_depth(camera)).float()
        return replace(base, camera=camera, depth=depth, alpha=(depth > 0).float())

    target, source = view(20.0), view(0.0)
    config = WarpConfig(depth_tolerance=0.0125)
    rays = source.camera.unproject(pixel_centres(SIZE, SIZE), np.ones((SIZE, SIZE)))
    stretch = np.linalg.norm(rays - source.camera.position, axis=-1)
    mixed_up = replace(source, depth=source.depth * torch.from_numpy(stretch).float())
    right = composite_view(target, [SourceView(source, Source.REFERENCE)], config)
    wrong = composite_view(target, [SourceView(mixed_up, Source.REFERENCE)], config)
    assert wrong.coverage < 0.6 * right.coverage


def test_the_squarest_source_wins_and_ties_go_to_the_first() -> None:
    target = sphere_view(45.0, SIZE)
    front, side = _reference(), SourceView(sphere_view(90.0, SIZE), Source.NEIGHBOUR)
    made = composite_view(target, [front, side], replace(CONFIG, tie_cosine=0.0))
    label = made.source.numpy()
    # The subject's left is on the picture's right: there the view from 90 degrees sees better.
    right, left = slice(70, 128), slice(0, 58)
    wanted = made.trusted.numpy()
    assert (label[:, right][wanted[:, right]] == Source.NEIGHBOUR).mean() > 0.9
    assert (label[:, left][wanted[:, left]] == Source.REFERENCE).mean() > 0.9
    tied = composite_view(target, [front, side], replace(CONFIG, tie_cosine=1.0))
    both = facing(target.depth, target.camera) > 0
    assert (tied.source == int(Source.REFERENCE)).sum() > (
        made.source == int(Source.REFERENCE)
    ).sum()
    assert both.any() and abs(tied.coverage - made.coverage) < 1e-6


def test_sources_fade_into_each_other() -> None:
    """Two sources of different brightness leave no step larger than the feather allows."""
    target = sphere_view(45.0, SIZE)
    bright = replace(_reference().view, image=torch.ones(3, SIZE, SIZE))
    dark = replace(sphere_view(90.0, SIZE), image=torch.zeros(3, SIZE, SIZE))
    made = composite_view(
        target, [SourceView(bright, Source.REFERENCE), SourceView(dark, Source.NEIGHBOUR)], CONFIG
    )
    inner = made.trusted[64]
    steps = made.image[0, 64].diff().abs()[inner[1:] & inner[:-1]]
    assert made.image[0, 64][inner].min() == 0 and made.image[0, 64][inner].max() > 0.99
    assert 0.05 < steps.max() < 0.3


def test_rims_edges_and_islands_are_not_trusted() -> None:
    target = sphere_view(0.0, SIZE)
    made = composite_view(target, [_reference()], CONFIG)
    cosine = facing(target.depth, target.camera)
    assert cosine[made.trusted].min() > CONFIG.min_cosine
    seen = composite_view(target, [_reference()], replace(CONFIG, erosion_px=0.0)).trusted
    assert made.trusted.sum() < seen.sum() and not (made.trusted & ~seen).any()
    # One true pixel in a source that is wrong everywhere else is an island.
    lone = _reference().view
    depth = lone.depth + 0.1 * (lone.depth > 0)
    depth[60:63, 60:63] = lone.depth[60:63, 60:63]
    source = SourceView(replace(lone, depth=depth), Source.REFERENCE)
    options = replace(CONFIG, erosion_px=0.0, smallest_island_px=200)
    assert composite_view(target, [source], options).coverage == 0


def test_the_rim_of_a_source_is_not_read() -> None:
    """White that has crept over a source's silhouette never reaches another view."""
    source, target = _reference().view, sphere_view(40.0, SIZE)
    inside = source.depth > 0
    crept = inside.clone()
    crept[1:-1, 1:-1] = (
        inside[2:, 1:-1] & inside[:-2, 1:-1] & inside[1:-1, 2:] & inside[1:-1, :-2]
    )[:]
    image = torch.where(inside & ~crept, 9.0, source.image)
    dyed = SourceView(replace(source, image=image), Source.REFERENCE)
    options = replace(CONFIG, min_cosine=0.0, erosion_px=0.0)
    kept = composite_view(target, [dyed], replace(options, source_rim_px=12.0))
    assert kept.coverage > 0.3 and kept.image[:, kept.trusted].max() < 0.99
    read = composite_view(target, [dyed], replace(options, source_rim_px=0.0))
    assert read.coverage > kept.coverage


def test_an_occluder_in_the_source_hides_what_is_behind_it() -> None:
    """A small sphere floats between the source and the large one."""

    def scene(azimuth: float):
        view = sphere_view(azimuth, SIZE)
        centre = np.array([0.0, 0.0, 0.2])
        moved = view.camera.world_to_camera.copy()
        moved[:3, 3] += moved[:3, :3] @ centre
        near = sphere_depth(Camera(view.camera.K, moved, SIZE, SIZE), 0.02)
        depth = np.where(near > 0, near, view.depth.numpy())
        image = np.where(near > 0, 0.0, view.image.numpy())
        return replace(
            view, depth=torch.from_numpy(depth).float(), image=torch.from_numpy(image).float(),
            alpha=torch.from_numpy(depth > 0).float(),
        )  # fmt: skip

    target, source = scene(30.0), scene(0.0)
    made = composite_view(target, [SourceView(source, Source.REFERENCE)], CONFIG)
    points = target.camera.unproject(pixel_centres(SIZE, SIZE), target.depth.numpy())
    on_large = (np.abs(np.linalg.norm(points, axis=-1) - RADIUS) < 1e-3) & (
        target.depth > 0
    ).numpy()
    toward = source.camera.position - points
    along = ((np.array([0, 0, 0.2]) - points) * toward).sum(-1) / (toward**2).sum(-1)
    passing = np.linalg.norm(points + along[..., None] * toward - np.array([0, 0, 0.2]), axis=-1)
    shadowed = on_large & (passing < 0.018)
    assert shadowed.sum() > 30
    assert not made.trusted.numpy()[shadowed].any()


def test_without_sources_the_coarse_view_stays() -> None:
    target = sphere_view(30.0, SIZE)
    made = composite_view(target, [], CONFIG)
    assert made.image is target.image and made.coverage == 0 and not made.trusted.any()


@pytest.mark.parametrize("empty", ["target", "source"])
def test_views_without_any_surface_are_borne(empty) -> None:
    target, source = sphere_view(0.0, SIZE), _reference().view
    nothing = {"depth": torch.zeros(SIZE, SIZE), "alpha": torch.zeros(SIZE, SIZE)}
    if empty == "target":
        target = replace(target, **nothing)
    else:
        source = replace(source, **nothing)
    made = composite_view(target, [SourceView(source, Source.REFERENCE)], CONFIG)
    assert made.coverage == 0 and torch.isfinite(made.image).all()
