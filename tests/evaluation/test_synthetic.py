from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from fc4d_ray.cameras import orbit_camera, pixel_centres
from fc4d_ray.evaluation.synthetic import (
    SyntheticPerson,
    make_person,
    similarity,
    surface_error_mm,
)
from fc4d_ray.evaluation.synthetic_texture import value_noise
from fc4d_ray.heads.anny import AnnyHead, load_anny_head
from fc4d_ray.portraits.regions import CLOTHING, HAIR, SKIN
from fc4d_ray.priors.video.motion import action_vector

SIZE = 128


@pytest.fixture(scope="module")
def head() -> AnnyHead:
    return load_anny_head()


@pytest.fixture(scope="module")
def person(head: AnnyHead) -> SyntheticPerson:
    return make_person(1, head)


def test_a_seed_is_a_person(head, person) -> None:
    twin, other = make_person(1, head), make_person(2, head)
    one, two = (p.portrait(size=SIZE) for p in (person, twin))
    for name in ("image", "matte", "labels", "landmarks", "depth"):
        assert getattr(one, name).tobytes() == getattr(two, name).tobytes(), name
    assert person.rest.tobytes() == twin.rest.tobytes()
    assert np.abs(person.rest - other.rest).max() > 0.003
    assert not np.array_equal(one.image, other.portrait(size=SIZE).image)


def test_the_mesh_is_not_the_models(head, person) -> None:
    assert len(person.rest) > 3 * len(head.mean)
    underneath = person.resampling @ person.head_rig.neutral.astype(np.float64)
    distance = np.linalg.norm(person.rest - underneath, axis=1)
    face = (person.region == 0) & (person.hairline < 0)
    assert 0.0001 < distance[face].mean() < 0.002, "relief"
    assert distance.max() > 0.8 * person.hair_thickness_m, "hair"


def test_matte_labels_depth_and_landmarks_belong_to_one_picture(person) -> None:
    portrait = person.portrait(size=SIZE)
    covered = portrait.depth > 0
    assert (portrait.matte[covered] > 60).all() and (portrait.matte[~covered] < 200).all()
    np.testing.assert_array_equal(portrait.labels > 0, covered)
    for label in (SKIN, HAIR, CLOTHING):
        assert (portrait.labels == label).mean() > 0.02
    columns, rows = portrait.landmarks[27:].astype(int).T
    assert (portrait.labels[rows, columns] == SKIN).all()
    points = portrait.camera.unproject(pixel_centres(SIZE, SIZE)[covered], portrait.depth[covered])
    assert np.abs(points).max() < 0.4


@pytest.mark.parametrize("azimuth", [0, 35, -35])
def test_portraits_are_framed_as_ingest_frames_them(person, azimuth) -> None:
    camera = person.portrait_camera(azimuth, SIZE)
    marks, _ = camera.project(person.landmark_points())
    height = marks[8, 1] - marks[17:27, 1].mean()
    assert height == pytest.approx(0.265 * SIZE, rel=0.02)
    x, _, z = camera.position
    assert np.rad2deg(np.arctan2(x, z)) == pytest.approx(azimuth, abs=1e-6)
    seen = person.landmarks(camera)
    np.testing.assert_allclose(seen[17:], marks[17:], atol=1e-9)
    moved = np.flatnonzero(np.abs(seen - marks).max(1) > 1e-9)
    far = {0: set(), 35: set(range(8)), -35: set(range(9, 17))}[azimuth]
    assert set(moved.tolist()) <= far and bool(moved.size) == bool(far)


def test_actions_move_the_finer_mesh_as_the_model(person) -> None:
    np.testing.assert_array_equal(person.vertices(), person.rest)
    opened = person.vertices(action_vector({"jawOpen": 1.0}))
    chin = person.landmark_points()[8] - person.landmark_points(action_vector({"jawOpen": 1.0}))[8]
    nearest = np.linalg.norm(person.rest - person.landmark_points()[8], axis=1).argmin()
    moved = person.rest[nearest] - opened[nearest]
    np.testing.assert_allclose(moved, chin, atol=0.004)


def test_colour_sticks_to_the_surface_in_every_view(person) -> None:
    """The light is fixed to the head: a point seen from two sides has one colour."""
    left, right = (orbit_camera(a, size=512, fov_deg=9) for a in (-15, 15))
    points = person.rest[(person.region == 0) & (person.canonical[:, 2] > 0.06)][::7]
    colours = []
    for camera in (left, right):
        rgba, depth = person.render(camera)
        pixels, z = camera.project(points)
        columns, rows = pixels.astype(int).T
        shown = np.abs(depth[rows, columns] - z) < 0.002
        colours.append(np.where(shown[:, None], rgba[rows, columns, :3] / 255, np.nan))
    difference = np.abs(colours[0] - colours[1]).max(1)
    difference = difference[np.isfinite(difference)]
    assert len(difference) > 100 and np.median(difference) < 0.03


def test_surface_error_ignores_place_turn_and_size(head, person) -> None:
    truth = person.head_rig.neutral.astype(np.float64)
    base = surface_error_mm(truth, person)
    assert base < 0.3, "only the relief the model cannot express"
    moved = 1.07 * Rotation.from_rotvec([0.2, -0.3, 0.1]).apply(truth) + [0.1, 0, -0.2]
    assert surface_error_mm(moved, person) == pytest.approx(base, abs=0.01)
    with_shell = np.concatenate([truth, np.ones((50, 3))])
    assert surface_error_mm(with_shell, person) == base


def test_surface_error_measures_dents_and_tells_people_apart(head, person) -> None:
    truth = person.head_rig.neutral.astype(np.float64)
    base = surface_error_mm(truth, person)
    noise = 0.002 * value_noise(head.mean / 0.015, 3)[:, None] * [0, 0, 1]
    dented = surface_error_mm(truth + noise, person)
    assert 1.5 * base < dented < 1.5
    other = make_person(2, head).head_rig.neutral
    assert surface_error_mm(other, person) > 2 * base


def test_similarity_is_exact_on_moved_points_and_never_mirrors() -> None:
    generator = np.random.default_rng(0)
    points = generator.standard_normal((30, 3))
    targets = 2.5 * Rotation.from_rotvec([1, 2, -0.5]).apply(points) + [1, 2, 3]
    np.testing.assert_allclose(similarity(points, targets), targets, atol=1e-9)
    mirrored = similarity(points, points * [-1, 1, 1])
    assert np.linalg.norm(mirrored - points * [-1, 1, 1], axis=1).mean() > 0.1


def test_noise_is_smooth_bounded_and_seeded() -> None:
    points = np.random.default_rng(0).uniform(-5, 5, (500, 3))
    noise = value_noise(points, 1)
    assert -1 <= noise.min() < -0.4 and 0.4 < noise.max() <= 1
    assert np.abs(value_noise(points + 1e-4, 1) - noise).max() < 2e-3
    assert np.abs(np.corrcoef(noise, value_noise(points, 2))[0, 1]) < 0.2
