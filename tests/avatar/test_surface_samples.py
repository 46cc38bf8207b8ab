from __future__ import annotations

import numpy as np
import pytest

from fc4d_ray.avatar.surface_samples import (
    SurfaceSampleConfig,
    colours_from_views,
    interpolate_vertices,
    sample_surface,
    spacing_per_face,
    visible_faces,
)
from fc4d_ray.cameras import Camera, orbit_azimuths, orbit_camera
from fc4d_ray.errors import ConfigError
from fc4d_ray.heads.rig import Region
from fc4d_ray.rendering.mesh import rasterize_mesh


def _grid(n: int = 4, side: float = 0.1) -> tuple[np.ndarray, np.ndarray]:
    """A square in the plane z = 0 that faces +z, of 2 n² triangles."""
    axis = np.linspace(-side / 2, side / 2, n + 1)
    vertices = np.stack([*np.meshgrid(axis, axis, indexing="xy"), np.zeros((n + 1, n + 1))], -1)
    index = np.arange((n + 1) ** 2).reshape(n + 1, n + 1)
    a, b, c, d = index[:-1, :-1], index[:-1, 1:], index[1:, 1:], index[1:, :-1]
    faces = np.stack([a, b, c, a, c, d], -1).reshape(-1, 3)
    return vertices.reshape(-1, 3), faces


def _two_boxes() -> tuple[np.ndarray, np.ndarray]:
    """A cube inside a larger one."""
    corners = np.array([[x, y, z] for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)]) * 1.0
    quads = [[0, 1, 3, 2], [4, 6, 7, 5], [0, 4, 5, 1], [2, 3, 7, 6], [0, 2, 6, 4], [1, 5, 7, 3]]
    faces = np.array([t for a, b, c, d in quads for t in ([a, b, c], [a, c, d])])
    return np.concatenate([0.1 * corners, 0.05 * corners]), np.concatenate([faces, faces + 8])


def _around() -> list[Camera]:
    return [orbit_camera(a, e, size=64) for e in (-50, 0, 50) for a in orbit_azimuths(8)]


@pytest.mark.parametrize("spacing_m", [0.002, 0.004])
def test_density_follows_the_wished_spacing(spacing_m: float) -> None:
    vertices, faces = _grid()
    chosen = np.ones(len(faces), bool)
    samples = sample_surface(vertices, faces, np.full(len(faces), spacing_m), chosen, seed=0)
    # Points spaced evenly in a triangular lattice have an area of 0.866 spacing² each.
    expected = 0.1**2 / (0.866 * spacing_m**2)
    assert len(samples.face_index) == pytest.approx(expected, rel=0.08)
    np.testing.assert_allclose(samples.spacing, spacing_m, rtol=0.1)
    points = samples.points(vertices, faces)
    assert (np.abs(points[:, :2]) <= 0.05 + 1e-6).all() and np.abs(points[:, 2]).max() < 1e-9
    cells, _, _ = np.histogram2d(*points.T[:2], bins=5)
    assert cells.min() > 0.6 * cells.mean(), "evenly spread"


def test_every_chosen_face_gets_one_and_no_other_any() -> None:
    vertices, faces = _grid(8)
    chosen = np.arange(len(faces)) % 3 == 0
    samples = sample_surface(vertices, faces, np.full(len(faces), 0.05), chosen, seed=0)
    assert (
        np.bincount(samples.face_index, minlength=len(faces)).tolist()
        == chosen.astype(int).tolist()
    )
    np.testing.assert_allclose(samples.barycentric, 1 / 3, atol=1e-6)
    none = sample_surface(
        vertices, faces, np.full(len(faces), 0.05), np.zeros(len(faces), bool), seed=0
    )
    assert len(none.face_index) == len(none.barycentric) == len(none.spacing) == 0


def test_samples_lie_inside_their_faces_and_interpolate_linearly() -> None:
    vertices, faces = _grid()
    samples = sample_surface(
        vertices, faces, np.full(len(faces), 0.003), np.ones(len(faces), bool), seed=0
    )
    assert samples.barycentric.min() >= -1e-6
    np.testing.assert_allclose(samples.barycentric.sum(1), 1, atol=1e-5)
    points = samples.points(vertices, faces)
    linear = vertices @ np.array([[2.0], [-3.0], [1.0]]) + 0.5
    np.testing.assert_allclose(
        interpolate_vertices(samples, linear, faces)[:, 0], points @ [2.0, -3.0, 1.0] + 0.5,
        atol=1e-6,
    )  # fmt: skip


def test_equal_seeds_give_equal_points() -> None:
    vertices, faces = _grid()
    wish, chosen = np.full(len(faces), 0.004), np.ones(len(faces), bool)
    one, two, other = (sample_surface(vertices, faces, wish, chosen, seed=s) for s in (1, 1, 2))
    assert one.barycentric.tobytes() == two.barycentric.tobytes()
    assert one.face_index.tobytes() == two.face_index.tobytes()
    assert one.barycentric.tobytes() != other.barycentric.tobytes()


def test_hidden_faces_are_not_visible_until_a_pose_shows_them() -> None:
    vertices, faces = _two_boxes()
    inner = np.arange(len(faces)) >= 12
    seen = visible_faces([(vertices, _around())], faces)
    assert seen[~inner].all() and not seen[inner].any()
    apart = vertices.copy()
    apart[8:, 0] += 0.3
    both = visible_faces([(vertices, _around()), (apart, _around())], faces)
    assert both.all()


def test_a_face_too_small_to_win_a_pixel_counts_through_its_neighbours() -> None:
    vertices, faces = _grid(100)
    seen = visible_faces([(vertices, [orbit_camera(0, size=400)])], faces)
    won = rasterize_mesh(vertices, faces, orbit_camera(0, size=400)).face
    share = len(np.unique(won[won >= 0])) / len(faces)
    assert share < 0.8 and seen.mean() > share + 0.15


def test_spacing_is_finest_at_features_and_coarsest_on_clothing() -> None:
    config = SurfaceSampleConfig(face_mm=2, hair_mm=4, body_mm=6, feature_share=0.5)
    places = np.array([[0, 0, 0.1], [0.045, -0.03, 0.1], [0, 0.1, 0], [0, -0.25, 0], [0, 0, -0.1]])
    kinds = (Region.FACE, Region.FACE, Region.HAIR, Region.CLOTHING, Region.FACE)
    triangle = 0.001 * np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0]])
    vertices = (places[:, None] + triangle).reshape(-1, 3)
    faces = np.arange(15).reshape(5, 3)
    region = np.repeat(np.array(kinds, np.uint8), 3)
    landmarks = np.tile(places[0], (68, 1))
    landmarks[8] = [0, -0.09, 0.08]
    spacing = spacing_per_face(vertices, faces, region, landmarks, config)
    np.testing.assert_allclose(spacing * 1000, [1.0, 2.0, 4.0, 6.0, 4.0], atol=1e-6)


def test_points_take_the_mean_of_the_views_that_see_them() -> None:
    vertices, faces = _grid()
    samples = sample_surface(
        vertices, faces, np.full(len(faces), 0.01), np.ones(len(faces), bool), seed=0
    )
    points = samples.points(vertices, faces)
    points = points[np.abs(points[:, :2]).max(1) < 0.045]
    normals = np.tile([0.0, 0.0, 1.0], (len(points), 1))

    def view(azimuth: float, colour: tuple[int, ...], weight: float, alpha: int = 255):
        camera = orbit_camera(azimuth, size=128)
        depth = rasterize_mesh(vertices, faces, camera).z_depth
        picture = np.full((128, 128, 4), (*colour, alpha), np.uint8)
        return camera, picture, depth, weight

    fallback = np.tile([0.0, 0.0, 1.0], (len(points), 1))
    red, green = view(20, (255, 0, 0), 1.0), view(-20, (0, 255, 0), 3.0)
    mixed = colours_from_views(points, normals, [red, green], fallback)
    assert mixed.dtype == np.float32
    np.testing.assert_allclose(mixed, np.tile([0.25, 0.75, 0], (len(points), 1)), atol=0.03)
    square = colours_from_views(
        points, normals, [view(0, (255, 0, 0), 1.0), view(60, (0, 255, 0), 1.0)], fallback
    )
    assert (square[:, 0] > 0.95).all(), "the squarer view counts for more"
    behind, clear = view(180, (255, 0, 0), 1.0), view(0, (255, 0, 0), 1.0, alpha=0)
    unseen = colours_from_views(points, normals, [behind, clear], fallback)
    np.testing.assert_allclose(unseen, fallback)


def test_occluded_points_keep_their_fallback() -> None:
    vertices, _ = _grid()
    camera = orbit_camera(0, size=64)
    nearer = np.full((64, 64), camera.position[2] - 0.05, np.float32)
    picture = np.full((64, 64, 4), 255, np.uint8)
    points = vertices[:5]
    normals, fallback = np.tile([0.0, 0, 1], (5, 1)), np.zeros((5, 3))
    hidden = colours_from_views(points, normals, [(camera, picture, nearer, 1.0)], fallback)
    np.testing.assert_array_equal(hidden, 0)


def test_the_configuration_names_its_options() -> None:
    with pytest.raises(ConfigError, match="train.surface.hair_mm"):
        SurfaceSampleConfig(hair_mm=0.01)
