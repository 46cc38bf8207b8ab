"""Warping in scenes whose answer is known: a plane and a sphere, seen by perspective cameras."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fc4d_ray.cameras import Camera, orbit_camera, pixel_centres
from fc4d_ray.warping import (
    closest_depth,
    cosine_to,
    depth_spread,
    facing,
    lift,
    project,
    resize_depth,
    sample,
    surface_normals,
    warp_to_view,
)

SIZE = 128
RADIUS = 0.1
WIDE = {"size": SIZE, "radius_m": 0.5, "fov_deg": 40.0}
"""Near and wide: along the ray and along the axis differ by up to 10 % at the corners."""


def _rays(camera: Camera) -> np.ndarray:
    """Ray directions (H, W, 3) in the world with unit z in the camera: z-depth times ray."""
    ones = np.ones((camera.height, camera.width))
    return camera.unproject(pixel_centres(camera.width, camera.height), ones) - camera.position


def _sphere_depth(camera: Camera) -> np.ndarray:
    """z-depth (H, W) of the sphere of ``RADIUS`` round the origin, 0 beside it."""
    rays, centre = _rays(camera), camera.position
    a = (rays**2).sum(-1)
    b = rays @ centre
    discriminant = b**2 - a * (centre @ centre - RADIUS**2)
    depth = (-b - np.sqrt(discriminant.clip(0))) / a
    return np.where(discriminant > 0, depth, 0.0)


def _plane_depth(camera: Camera, z: float = 0.0) -> np.ndarray:
    """z-depth (H, W) of the world's plane at height ``z``."""
    return (z - camera.position[2]) / _rays(camera)[..., 2]


def _tensor(array: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(array).double()


def _position_image(camera: Camera, depth: np.ndarray) -> torch.Tensor:
    """A picture whose colour is the world position, (3, H, W)."""
    points = camera.unproject(pixel_centres(camera.width, camera.height), depth)
    return _tensor(points * (depth > 0)[..., None]).permute(2, 0, 1)


def _directions(camera: Camera, depth: np.ndarray) -> np.ndarray:
    """Where each pixel's ray hits, as unit direction from the sphere's centre."""
    points = camera.unproject(pixel_centres(camera.width, camera.height), depth)
    return points / RADIUS


@pytest.mark.parametrize(("azimuth", "elevation"), [(0, 0), (40, 10), (-70, -20)])
def test_lifted_depth_lies_on_the_sphere(azimuth, elevation) -> None:
    camera = orbit_camera(azimuth, elevation, **WIDE)
    depth = _sphere_depth(camera)
    points = lift(_tensor(depth), camera).numpy()[depth > 0]
    np.testing.assert_allclose(np.linalg.norm(points, axis=1), RADIUS, atol=1e-9)
    pixels, z = project(_tensor(points), camera)
    np.testing.assert_allclose(pixels.numpy(), pixel_centres(SIZE, SIZE)[depth > 0], atol=1e-7)
    np.testing.assert_allclose(z.numpy(), depth[depth > 0], atol=1e-9)


def test_distance_along_the_ray_taken_for_depth_is_noticed() -> None:
    camera = orbit_camera(0, **WIDE)
    depth = _sphere_depth(camera)
    ray_distance = depth * np.linalg.norm(_rays(camera), axis=-1)
    points = lift(_tensor(ray_distance), camera).numpy()[depth > 0]
    assert np.abs(np.linalg.norm(points, axis=1) - RADIUS).max() > 0.003


def test_a_plane_warps_by_its_homography() -> None:
    source, target = orbit_camera(20, 5, **WIDE), orbit_camera(-15, 0, **WIDE)
    source_depth, target_depth = _plane_depth(source), _plane_depth(target)
    warped = warp_to_view(
        _position_image(source, source_depth), _tensor(source_depth), source,
        _tensor(target_depth), target, mode="bilinear",
    )  # fmt: skip

    def plane_to_pixel(camera: Camera) -> np.ndarray:
        return camera.K @ camera.world_to_camera[:3][:, [0, 1, 3]]

    homography = plane_to_pixel(source) @ np.linalg.inv(plane_to_pixel(target))
    centres = np.concatenate([pixel_centres(SIZE, SIZE), np.ones((SIZE, SIZE, 1))], -1)
    expected = centres @ homography.T
    expected = expected[..., :2] / expected[..., 2:]
    np.testing.assert_allclose(warped.source_pixels.numpy(), expected, atol=1e-6)
    inside = ((expected >= 0) & (expected <= SIZE)).all(-1)
    np.testing.assert_array_equal(warped.visible.numpy(), inside)
    truth = _position_image(target, target_depth).numpy()
    interior = ((expected >= 1) & (expected <= SIZE - 1)).all(-1)
    error = np.abs(warped.image.numpy() - truth)[:, interior]
    assert error.max() < 2e-4, "positions are nearly linear between pixels"
    assert (warped.image.numpy()[:, ~inside] == 0).all()


@pytest.mark.parametrize("angle", [0, 30, 60])
def test_a_sphere_is_visible_exactly_where_both_cameras_see_it(angle) -> None:
    source, target = orbit_camera(angle, **WIDE), orbit_camera(0, **WIDE)
    source_depth, target_depth = _sphere_depth(source), _sphere_depth(target)
    warped = warp_to_view(
        _position_image(source, source_depth), _tensor(source_depth), source,
        _tensor(target_depth), target, mode="bilinear",
    )  # fmt: skip
    hit = target_depth > 0
    normals = _directions(target, target_depth)
    points = normals * RADIUS
    to_source = source.position - points
    cosine = (normals * to_source).sum(-1) / np.linalg.norm(to_source, axis=-1).clip(1e-9)
    visible = warped.visible.numpy()
    assert not visible[~hit].any()
    assert visible[hit & (cosine > 0.25)].all()
    assert not visible[hit & (cosine < -0.12)].any(), "the far side is hidden by the near one"
    sure = hit & (cosine > 0.35)
    error = np.linalg.norm(warped.image.numpy() - points.transpose(2, 0, 1), axis=0)[sure]
    assert error.max() < 1e-3 and error.mean() < 2e-4, "metres"


def test_warping_with_ray_distance_fails_to_see_the_corners() -> None:
    """The mix-up that depth maps of tri-plane generators invite."""
    source, target = orbit_camera(25, **WIDE), orbit_camera(0, **WIDE)
    source_depth, target_depth = _plane_depth(source), _plane_depth(target)
    wrong = target_depth * np.linalg.norm(_rays(target), axis=-1)
    image = _position_image(source, source_depth)

    def warp(depth: np.ndarray):
        return warp_to_view(
            image, _tensor(source_depth), source, _tensor(depth), target, depth_tolerance_m=0.003
        )

    right, mixed = warp(target_depth), warp(wrong)
    assert mixed.visible.sum() < 0.5 * right.visible.sum()


def test_an_occluder_hides_what_lies_behind_it() -> None:
    """A square floats before a plane; beside its own footprint it shadows another part of it."""
    source, target = orbit_camera(30, **WIDE), orbit_camera(0, **WIDE)
    floating = 0.08

    def scene(camera: Camera) -> np.ndarray:
        near = _plane_depth(camera, floating)
        points = camera.unproject(pixel_centres(SIZE, SIZE), near)
        inside = (np.abs(points[..., :2]) < 0.03).all(-1)
        return np.where(inside, near, _plane_depth(camera))

    warped = warp_to_view(
        torch.ones(1, SIZE, SIZE).double(), _tensor(scene(source)), source,
        _tensor(scene(target)), target, depth_tolerance_m=0.01,
    )  # fmt: skip
    points = target.unproject(pixel_centres(SIZE, SIZE), scene(target))
    on_plane = points[..., 2] < 0.01
    # The sight line from the source crosses the floating square's plane here.
    share = floating / source.position[2]
    crossing = points[..., :2] + (source.position[:2] - points[..., :2]) * share
    distance = np.abs(crossing).max(-1)
    pixels, _ = source.project(points)
    inside = ((pixels > 1) & (pixels < SIZE - 1)).all(-1)
    visible = warped.visible.numpy()
    shadowed = on_plane & inside & (distance < 0.025)
    assert shadowed.sum() > 50 and not visible[shadowed].any()
    assert visible[on_plane & inside & (distance > 0.035)].all()


def test_facing_is_the_cosine_on_sphere_and_plane() -> None:
    camera = orbit_camera(35, 10, **WIDE)
    depth = _sphere_depth(camera)
    hit = depth > 0
    normals = _directions(camera, depth)
    ray = camera.position - normals * RADIUS
    cosine = (normals * ray).sum(-1) / np.linalg.norm(ray, axis=-1)
    found = facing(_tensor(depth), camera).numpy()
    assert (found[~hit] == 0).all()
    sure = hit & (cosine > 0.3)
    assert np.abs(found - cosine)[sure].max() < 0.06
    assert np.abs(found - cosine)[sure].mean() < 0.015

    plane = facing(_tensor(_plane_depth(camera)), camera).numpy()
    rays = _rays(camera)
    expected = np.abs(rays[..., 2]) / np.linalg.norm(rays, axis=-1)
    np.testing.assert_allclose(plane[1:-1, 1:-1], expected[1:-1, 1:-1], atol=1e-6)


def test_the_identity_warp_returns_the_picture() -> None:
    camera = orbit_camera(10, **WIDE)
    depth = _tensor(_sphere_depth(camera))
    image = torch.rand(3, SIZE, SIZE, dtype=torch.float64)
    for mode in ("bilinear", "bicubic"):
        warped = warp_to_view(image, depth, camera, depth, camera, mode=mode)
        assert torch.equal(warped.visible, depth > 0)
        torch.testing.assert_close(warped.image, image * (depth > 0), atol=1e-8, rtol=0)


def test_cameras_of_unequal_size_fit_together() -> None:
    source, target = orbit_camera(10, **WIDE).resized(160, 128), orbit_camera(0, **WIDE)
    target = target.cropped(20, 30, 50, 40)
    source_depth, target_depth = _plane_depth(source), _plane_depth(target)
    warped = warp_to_view(
        _position_image(source, source_depth), _tensor(source_depth), source,
        _tensor(target_depth), target, mode="bilinear",
    )  # fmt: skip
    assert warped.image.shape == (3, 40, 50) and warped.visible.all()
    truth = _position_image(target, target_depth)
    assert (warped.image - truth).abs().max() < 2e-4


def test_sampling_at_pixel_centres_gives_the_pixels() -> None:
    image = torch.arange(12.0).reshape(1, 3, 4)
    centres = torch.from_numpy(pixel_centres(4, 3)).float()
    torch.testing.assert_close(sample(image, centres), image)
    between = sample(image, torch.tensor([[[1.0, 0.5], [-9.0, 0.5]]]))
    torch.testing.assert_close(between, torch.tensor([[[0.5, 0.0]]]))


def test_the_closest_of_four_depths_is_taken_and_empty_ones_never() -> None:
    depth = torch.tensor([[1.0, 2.0], [0.0, 3.0]])
    middle = torch.tensor([[[1.0, 1.0]]])
    for wanted, expected in ((0.1, 1.0), (1.4, 1.0), (1.6, 2.0), (9.0, 3.0)):
        assert closest_depth(depth, middle, torch.tensor([[wanted]])).item() == expected
    assert closest_depth(torch.zeros(2, 2), middle, torch.tensor([[1.0]])).item() == 0


def test_normals_look_out_of_the_sphere_and_tell_who_sees_it() -> None:
    camera, other = orbit_camera(20, 5, **WIDE), orbit_camera(100, **WIDE)
    depth = _sphere_depth(camera)
    normals = surface_normals(_tensor(depth), camera).numpy()
    truth = _directions(camera, depth)
    sure = (depth > 0) & (facing(_tensor(depth), camera).numpy() > 0.3)
    assert ((normals * truth).sum(-1)[sure] > 0.99).all()
    points = torch.from_numpy(truth * RADIUS)
    cosine = cosine_to(other, points, torch.from_numpy(truth)).numpy()
    away = truth @ other.position < RADIUS  # beyond the horizon of the other camera
    assert (cosine[sure & away] < 0).all() and (cosine[sure & ~away] >= 0).all()


def test_spread_tells_edges_and_empty_neighbours() -> None:
    depth = torch.tensor([[1.0, 1.5], [1.2, 1.1]])
    middle = torch.tensor([[[1.0, 1.0]]])
    assert depth_spread(depth, middle).item() == pytest.approx(0.5)
    depth[0, 0] = 0
    assert torch.isinf(depth_spread(depth, middle)).all()


def test_resized_depth_is_smooth_on_surfaces_and_makes_nothing_between_them() -> None:
    small, large = orbit_camera(0, **WIDE).resized(64, 64), orbit_camera(0, **WIDE)
    coarse, fine = _sphere_depth(small), _sphere_depth(large)
    found = resize_depth(_tensor(coarse), (SIZE, SIZE), 0.02).numpy()
    inner = (fine > 0) & (facing(_tensor(fine), large).numpy() > 0.4)
    assert np.abs(found - fine)[inner].max() < 0.002
    assert ((found == 0) | (found > 0.39)).all()
    step = torch.zeros(8, 8)
    step[:, :4], step[:, 4:] = 1.0, 2.0
    assert set(resize_depth(step, (20, 20), 0.1).unique().tolist()) == {1.0, 2.0}
    same = _tensor(coarse)
    assert resize_depth(same, (64, 64), 0.02) is same
