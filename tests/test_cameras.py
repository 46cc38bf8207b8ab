from __future__ import annotations

import numpy as np
import pytest

from fc4d_ray.cameras import (
    ORBIT_RADIUS_M,
    Camera,
    look_at,
    orbit_azimuths,
    orbit_camera,
    pixel_centres,
    view_name,
)

SUBJECTS_LEFT_EAR = np.array([0.08, 0.0, 0.0])
NOSE = np.array([0.0, 0.0, 0.1])
CROWN = np.array([0.0, 0.13, 0.0])


def test_the_front_camera_sees_the_subjects_left_on_the_pictures_right() -> None:
    camera = orbit_camera(0, size=200)
    ear, ear_depth = camera.project(SUBJECTS_LEFT_EAR)
    crown, _ = camera.project(CROWN)
    _, nose_depth = camera.project(NOSE)
    assert ear[0] > 100 and ear[1] == pytest.approx(100)
    assert crown[1] < 100 and crown[0] == pytest.approx(100)
    assert ear_depth == pytest.approx(ORBIT_RADIUS_M)
    assert nose_depth == pytest.approx(ORBIT_RADIUS_M - 0.1)


@pytest.mark.parametrize(
    ("azimuth", "elevation", "nearest"),
    [
        (90, 0, SUBJECTS_LEFT_EAR),
        (-90, 0, -SUBJECTS_LEFT_EAR),
        (0, 0, NOSE),
        (180, 0, -NOSE),
        (0, 80, CROWN),
    ],
)
def test_each_azimuth_and_elevation_is_nearest_to_its_side(azimuth, elevation, nearest) -> None:
    camera = orbit_camera(azimuth, elevation)
    sides = np.stack([SUBJECTS_LEFT_EAR, -SUBJECTS_LEFT_EAR, NOSE, -NOSE, CROWN])
    sides = sides / np.linalg.norm(sides, axis=1, keepdims=True) * 0.1
    depth = camera.project(sides)[1]
    expected = nearest / np.linalg.norm(nearest) * 0.1
    np.testing.assert_allclose(sides[depth.argmin()], expected)


def test_from_the_subjects_left_the_nose_points_left_in_the_picture() -> None:
    nose, _ = orbit_camera(90, size=200).project(NOSE)
    assert nose[0] < 100


@pytest.mark.parametrize(("azimuth", "elevation"), [(0, 0), (37, 12), (-120, -40), (180, 75)])
def test_orbit_cameras_are_rigid_upright_and_look_at_the_origin(azimuth, elevation) -> None:
    camera = orbit_camera(azimuth, elevation, size=64, radius_m=1.3)
    rotation = camera.world_to_camera[:3, :3]
    np.testing.assert_allclose(rotation @ rotation.T, np.eye(3), atol=1e-12)
    assert np.linalg.det(rotation) == pytest.approx(1)
    assert np.linalg.norm(camera.position) == pytest.approx(1.3)
    centre, depth = camera.project(np.zeros(3))
    np.testing.assert_allclose(centre, [32, 32], atol=1e-9)
    assert depth == pytest.approx(1.3)
    above, _ = camera.project(np.array([0, 1e-4, 0]))
    assert above[0] == pytest.approx(32) and above[1] < 32, "up stays up"


def test_the_field_of_view_spans_the_picture() -> None:
    camera = orbit_camera(0, size=100, radius_m=2.0, fov_deg=30.0)
    half = 2.0 * np.tan(np.deg2rad(15))
    pixels, _ = camera.project(np.array([[half, 0, 0], [-half, 0, 0], [0, half, 0]]))
    np.testing.assert_allclose(pixels, [[100, 50], [0, 50], [50, 0]], atol=1e-9)


def _odd_camera() -> Camera:
    """Unequal focal lengths, an off-centre principal point, a rolled pose."""
    K = np.array([[310.0, 0, 71.5], [0, 290.0, 44.25], [0, 0, 1]])
    pose = look_at(np.array([0.5, 0.3, 1.4]), np.array([0.02, -0.01, 0.0]), np.array([0.2, 1, 0.1]))
    return Camera(K, pose, 120, 90)


def test_unprojecting_undoes_projecting() -> None:
    camera = _odd_camera()
    points = np.random.default_rng(0).uniform(-0.2, 0.2, (3, 50, 3))
    pixels, depth = camera.project(points)
    np.testing.assert_allclose(camera.unproject(pixels, depth), points, atol=1e-12)


def test_projection_follows_the_matrices() -> None:
    camera = _odd_camera()
    point = np.array([0.1, -0.05, 0.07])
    homogeneous = camera.K @ (camera.world_to_camera @ [*point, 1.0])[:3]
    pixels, depth = camera.project(point)
    np.testing.assert_allclose(pixels, homogeneous[:2] / homogeneous[2])
    assert depth == pytest.approx(homogeneous[2])


def test_resizing_and_cropping_move_pixels_with_the_grid() -> None:
    camera = _odd_camera()
    points = np.random.default_rng(1).uniform(-0.1, 0.1, (40, 3))
    pixels, depth = camera.project(points)
    resized = camera.resized(240, 45)
    np.testing.assert_allclose(resized.project(points)[0], pixels * [2, 0.5])
    assert (resized.width, resized.height) == (240, 45)
    cropped = camera.cropped(10, 7.5, 32, 24)
    np.testing.assert_allclose(cropped.project(points)[0], pixels - [10, 7.5])
    np.testing.assert_allclose(cropped.project(points)[1], depth)
    # A window of the double-size grid is the same however it is made.
    one = camera.resized(240, 180).cropped(20, 30, 60, 40)
    other = camera.cropped(10, 15, 30, 20).resized(60, 40)
    np.testing.assert_allclose(one.K, other.K)
    assert (one.width, one.height) == (other.width, other.height)
    assert camera.K[0, 2] == 71.5, "the original stays as it was"


def test_pixel_centres_lie_at_half() -> None:
    centres = pixel_centres(3, 2)
    assert centres.shape == (2, 3, 2)
    np.testing.assert_array_equal(centres[0, 0], [0.5, 0.5])
    np.testing.assert_array_equal(centres[1, 2], [2.5, 1.5])


def test_cameras_survive_json() -> None:
    import json

    camera = _odd_camera()
    again = Camera.from_json(json.loads(json.dumps(camera.to_json())))
    np.testing.assert_array_equal(again.K, camera.K)
    np.testing.assert_array_equal(again.world_to_camera, camera.world_to_camera)
    assert (again.width, again.height) == (120, 90)


def test_the_orbit_has_24_named_views_15_degrees_apart() -> None:
    azimuths = orbit_azimuths()
    assert len(azimuths) == 24 and azimuths[0] == 0 and 180 in azimuths
    assert all(-180 < a <= 180 for a in azimuths)
    np.testing.assert_allclose(np.diff(sorted(azimuths)), 15)
    names = [view_name(a) for a in azimuths]
    assert len(set(names)) == 24 and names[0] == "az+000_el+00"
    assert view_name(-45) == "az-045_el+00" and view_name(30, -7) == "az+030_el-07"
