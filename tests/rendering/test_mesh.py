from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

from fc4d_ray.cameras import Camera, orbit_camera, pixel_centres
from fc4d_ray.rendering.mesh import face_normals, interpolate, rasterize_mesh, vertex_normals


def front_camera(size: int = 64, focal: float = 80.0) -> Camera:
    """At the origin, looking along +z."""
    K = np.array([[focal, 0, size / 2], [0, focal, size / 2], [0, 0, 1]])
    return Camera(K, np.eye(4), size, size)


def sphere(radius: float, n_lat: int, n_lon: int) -> tuple[np.ndarray, np.ndarray]:
    """Closed latitude-longitude sphere, faces counter-clockwise from outside."""
    theta = np.linspace(0, np.pi, n_lat + 1)[:, None]
    phi = np.linspace(0, 2 * np.pi, n_lon, endpoint=False)[None]
    ring = np.round(np.sin(theta), 15)  # exactly 0 at both poles
    x, y = ring * np.sin(phi), np.cos(theta) + 0 * phi
    vertices = radius * np.stack([x, y, ring * np.cos(phi)], -1).reshape(-1, 3)
    row, col = np.meshgrid(np.arange(n_lat), np.arange(n_lon), indexing="ij")
    a, b = row * n_lon + col, row * n_lon + (col + 1) % n_lon
    c, d = a + n_lon, b + n_lon
    faces = np.concatenate([np.stack([a, c, d], -1), np.stack([a, d, b], -1)]).reshape(-1, 3)
    return vertices, faces


def test_tilted_plane_gives_exact_depth_and_world_positions() -> None:
    camera = front_camera()
    corners = np.array([[-3.0, -3.0], [3.0, -3.0], [3.0, 3.0], [-3.0, 3.0]])
    vertices = np.concatenate([corners, 4.0 + 0.5 * corners[:, :1]], axis=1)  # z = 4 + x / 2
    faces = np.array([[0, 1, 2], [0, 2, 3]])
    fragments = rasterize_mesh(vertices, faces, camera)
    assert fragments.covered.all()
    ray_x = (pixel_centres(64, 64)[..., 0] - 32.0) / 80.0
    depth = 4.0 / (1.0 - 0.5 * ray_x)
    np.testing.assert_allclose(fragments.z_depth, depth, rtol=2e-7)
    position = interpolate(torch.from_numpy(vertices), torch.from_numpy(faces), fragments)
    expected = camera.unproject(pixel_centres(64, 64), depth)
    np.testing.assert_allclose(position.numpy(), expected, atol=2e-6)


def test_sphere_depth_and_silhouette_match_the_analytic_ones() -> None:
    camera = orbit_camera(30.0, 10.0, size=128)
    radius = 0.12
    vertices, faces = sphere(radius, 200, 400)
    fragments = rasterize_mesh(vertices, faces, camera)
    near_point = camera.unproject(pixel_centres(128, 128), np.ones((128, 128)))
    direction = near_point - camera.position
    a = (direction**2).sum(-1)
    b = direction @ camera.position
    discriminant = b**2 - a * (camera.position @ camera.position - radius**2)
    depth = (-b - np.sqrt(np.maximum(discriminant, 0))) / a  # direction has camera z of 1
    inside = discriminant > 1e-3 * radius**2
    assert fragments.covered[inside].all()
    assert not fragments.covered[discriminant < 0].any()
    well_inside = discriminant > 0.1 * radius**2 * a
    assert well_inside.sum() > 3000
    np.testing.assert_allclose(fragments.z_depth[well_inside], depth[well_inside], atol=5e-5)


def test_nearer_triangle_wins_whatever_the_order() -> None:
    near = np.array([[-1.0, -1.0, 2.0], [1.0, -1.0, 2.0], [0.0, 1.0, 2.0]])
    far = np.array([[-4.0, -4.0, 4.0], [4.0, -4.0, 4.0], [0.0, 4.0, 4.0]])
    for vertices, near_face in ((np.concatenate([near, far]), 0), (np.concatenate([far, near]), 1)):
        fragments = rasterize_mesh(vertices, np.arange(6).reshape(2, 3), front_camera())
        only_near = rasterize_mesh(near, np.array([[0, 1, 2]]), front_camera())
        np.testing.assert_array_equal(fragments.face == near_face, only_near.covered)
        assert (fragments.z_depth[only_near.covered] == 2.0).all()
        assert (fragments.face == 1 - near_face).any()


@pytest.mark.parametrize("seed", range(4))
def test_pixels_on_shared_edges_belong_to_exactly_one_triangle(seed: int) -> None:
    """A fan around a pixel centre; its edges run through many other pixel centres."""
    rng = np.random.default_rng(seed)
    n = 16 if seed == 0 else int(rng.integers(3, 40))
    angle = np.arange(n) * 2 * np.pi / n if seed == 0 else np.sort(rng.uniform(0, 2 * np.pi, n))
    if np.diff(angle, append=angle[0] + 2 * np.pi).max() > np.pi:
        angle = np.arange(n) * 2 * np.pi / n
    hub = np.array([0.5, 0.5]) / 80.0 + (0 if seed < 2 else rng.normal(0, 0.02, 2))
    rim = hub + 2.0 * np.stack([np.cos(angle), np.sin(angle)], -1)
    vertices = np.concatenate([np.vstack([hub, rim]), np.ones((n + 1, 1))], axis=1)
    faces = np.array([[0, 1 + i, 1 + (i + 1) % n] for i in range(n)])
    faces[::2] = faces[::2, [0, 2, 1]]
    hits = sum(
        rasterize_mesh(vertices, faces[f : f + 1], front_camera()).covered.astype(int)
        for f in range(n)
    )
    np.testing.assert_array_equal(hits, np.ones((64, 64), int))


def test_triangles_crossing_the_near_plane_and_behind_are_dropped() -> None:
    vertices = np.array([[-1, -1, 2], [1, -1, 2], [0, 1, 0.005], [0, 1, -2], [0, np.nan, 2.0]])
    faces = np.array([[0, 1, 2], [0, 1, 3], [0, 1, 4]])
    fragments = rasterize_mesh(vertices, faces, front_camera())
    assert not fragments.covered.any()
    assert (fragments.z_depth == 0).all() and (fragments.barycentric == 0).all()
    assert rasterize_mesh(vertices, faces, front_camera(), near=0.001).covered.any()


def test_culling_keeps_what_an_opaque_closed_mesh_shows() -> None:
    camera = orbit_camera(-45.0, size=64)
    vertices, faces = sphere(0.15, 20, 30)
    whole = rasterize_mesh(vertices, faces, camera)
    culled = rasterize_mesh(vertices, faces, camera, cull_backfaces=True)
    np.testing.assert_array_equal(whole.face, culled.face)
    inside_out = rasterize_mesh(vertices, faces[:, ::-1].copy(), camera, cull_backfaces=True)
    both = inside_out.covered & whole.covered
    assert (inside_out.z_depth[both] > whole.z_depth[both]).all() and both.sum() > 500


def test_interpolation_has_exact_gradients() -> None:
    vertices, faces = sphere(0.15, 6, 8)
    fragments = rasterize_mesh(vertices, faces, orbit_camera(20.0, size=24))
    attributes = torch.randn(len(vertices), 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(
        lambda values: interpolate(values, torch.from_numpy(faces), fragments), (attributes,)
    )


def test_normals_of_a_sphere_point_outwards() -> None:
    vertices, faces = (torch.from_numpy(array) for array in sphere(2.0, 60, 90))
    normals = vertex_normals(vertices, faces)
    off_poles = slice(5 * 90, -5 * 90)
    cosine = (normals * vertices / 2.0).sum(-1)[off_poles]
    assert cosine.min() > np.cos(np.deg2rad(1.0))
    batched = vertex_normals(torch.stack([vertices, 3 * vertices]), faces)
    np.testing.assert_allclose(batched[1], normals, atol=1e-12)
    flat = face_normals(vertices, faces)
    centre = vertices[faces].mean(1)
    regular = flat.norm(dim=-1) > 0.5
    assert (flat[regular] * centre[regular]).sum(-1).min() > 1.9
    assert flat[~regular].norm(dim=-1).max() < 0.01  # the degenerate ones at the poles
    assert (~regular).sum() == 2 * 90


def test_normals_have_exact_gradients() -> None:
    vertices, faces = (torch.from_numpy(array) for array in sphere(1.0, 3, 4))
    faces = faces[face_normals(vertices, faces).norm(dim=-1) > 0.5]
    vertices.requires_grad_(True)
    assert torch.autograd.gradcheck(lambda v: vertex_normals(v, faces), (vertices,))


def test_two_threads_give_what_one_gives() -> None:
    vertices, faces = sphere(0.15, 50, 60)
    cameras = [orbit_camera(15.0 * i, size=96) for i in range(24)]
    serial = [rasterize_mesh(vertices, faces, camera) for camera in cameras]
    with ThreadPoolExecutor(2) as pool:
        parallel = list(pool.map(lambda camera: rasterize_mesh(vertices, faces, camera), cameras))
    for one, other in zip(serial, parallel, strict=True):
        np.testing.assert_array_equal(one.face, other.face)
        np.testing.assert_array_equal(one.barycentric, other.barycentric)


def test_wrong_input_is_named() -> None:
    vertices, faces = sphere(0.1, 4, 4)
    with pytest.raises(ValueError, match="faces: indices"):
        rasterize_mesh(vertices, faces + 5, orbit_camera(0.0))
    with pytest.raises(ValueError, match="vertices: expected shape"):
        rasterize_mesh(vertices[:, :2], faces, orbit_camera(0.0))
    empty = rasterize_mesh(vertices, faces[:0], orbit_camera(0.0, size=16))
    assert not empty.covered.any()
