"""The tracker on filmed heads with truth: both models, flaws, bad input, reproducibility."""

from __future__ import annotations

import importlib.util
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from fc4d_ray.cameras import Camera, orbit_camera
from fc4d_ray.errors import ConfigError, ModelFileError, TrackingFailed
from fc4d_ray.evaluation.synthetic import make_person
from fc4d_ray.evaluation.synthetic_clips import Flaws, film, filmed_flame, filmed_person
from fc4d_ray.heads.anny import load_anny_head
from fc4d_ray.heads.flame import FlameModel
from fc4d_ray.heads.flame_files import FlameFiles
from fc4d_ray.heads.flame_landmarks import LandmarkEmbedding
from fc4d_ray.heads.flame_teeth import FlameArrays
from fc4d_ray.heads.trackable import trackable_anny, trackable_flame
from fc4d_ray.priors.video.motion import action_vector
from fc4d_ray.tracking.initial_pose import initial_poses, triangulate
from fc4d_ray.tracking.multiview import track_multiview
from fc4d_ray.tracking.multiview_config import MultiviewConfig

SHARED = Path(__file__).resolve().parents[2].parent / "shared"
KIT = SHARED / "parity" / "flame"
CAMERAS = [orbit_camera(a, size=96, fov_deg=9.0) for a in (0.0, 35.0, -35.0, 70.0)]
CONFIG = MultiviewConfig(
    landmark_iterations=6, divisors=(1,), iterations=2, photometric_points=400,
    silhouette_points=200,
)  # fmt: skip


@pytest.fixture(scope="module")
def head():
    return load_anny_head()


@pytest.fixture(scope="module")
def filmed(head):
    actions = np.stack(
        [action_vector(w) for w in ({}, {"jawOpen": 0.7}, {"mouthSmileLeft": 0.9, "jawOpen": 0.2})]
    )
    motion = np.zeros((3, 6))
    motion[:, 1], motion[:, 3] = (0.0, 0.06, 0.1), (0.0, 0.002, 0.005)
    return filmed_person(make_person(2, head), actions, motion)


@pytest.fixture(scope="module")
def shot(filmed):
    return film(filmed, CAMERAS)


def _found(head, track) -> np.ndarray:
    parameters = {n: torch.from_numpy(v) for n, v in track.parameters.items()}
    return head.vertices(torch.from_numpy(track.identity), parameters).double().numpy()


def _error_mm(head, track, filmed) -> float:
    gap = np.linalg.norm(_found(head, track) - filmed.true_vertices, axis=-1)
    return float(gap[:, filmed.face].mean() * 1000)


def test_a_person_is_recovered_and_twice_alike(head, filmed, shot) -> None:
    frames = shot.told(Flaws(), 1)
    trackable = trackable_anny(head)
    track = track_multiview(trackable, frames, CONFIG)
    assert _error_mm(trackable, track, filmed) < 1.5
    jaw = track.parameters["actions"][:, head.action_names.index("jawOpen")]
    assert jaw[1] == jaw.max() > 0.35
    assert track.parameters["actions"].min() >= 0 and track.parameters["actions"].max() <= 1
    assert np.nanmean(track.landmark_error_px) < 1.0 and track.photometric_error < 0.05
    assert track.albedo.shape == (len(track.colour_vertices), 3)
    turned = Rotation.from_rotvec(track.parameters["rotation"]).as_rotvec()
    turned = turned + track.parameters["neck"]
    assert turned[2, 1] - turned[0, 1] == pytest.approx(0.1, abs=0.03)
    again = track_multiview(trackable, frames, CONFIG)
    assert again.identity.tobytes() == track.identity.tobytes()
    for name, values in track.parameters.items():
        assert again.parameters[name].tobytes() == values.tobytes(), name


def test_bent_views_and_blind_ones_cost_little(head, filmed, shot) -> None:
    trackable = trackable_anny(head)
    flaws = Flaws(view_bend_m=0.0012, view_tint=0.04, blind_views=(3,))
    frames = shot.told(flaws, 1)
    assert not frames.confidence[:, 3].any()
    track = track_multiview(trackable, frames, CONFIG)
    assert _error_mm(trackable, track, filmed) < 2.5
    assert np.isnan(track.landmark_error_px[:, 3]).all()


def test_an_unknown_unit_is_found(head, filmed, shot) -> None:
    frames = shot.told(Flaws(), 1)
    doubled = []
    for camera in frames.cameras:
        pose = camera.world_to_camera.copy()
        pose[:3, 3] *= 2
        doubled.append(Camera(camera.K, pose, camera.width, camera.height))
    config = replace(CONFIG, estimate_scale=True, divisors=())
    track = track_multiview(trackable_anny(head), replace(frames, cameras=doubled), config)
    assert track.scale == pytest.approx(2.0, rel=0.12)
    size = np.linalg.norm(track.cameras[0].position)
    assert size == pytest.approx(np.linalg.norm(doubled[0].position) / track.scale)


def test_a_known_person_stays_the_same(head, shot) -> None:
    identity = np.zeros(len(head.identity_basis) + 1, np.float32)
    identity[0] = 0.5
    config = replace(CONFIG, divisors=(), landmark_iterations=4)
    track = track_multiview(trackable_anny(head), shot.told(Flaws(), 1), config, identity=identity)
    np.testing.assert_array_equal(track.identity, identity)
    assert track.parameters["actions"].any()


@pytest.fixture(scope="module")
def flame() -> FlameFiles:
    if not KIT.is_dir():
        pytest.skip("the flame parity kit is not beside the repository")
    spec = importlib.util.spec_from_file_location("flame_synthetic", KIT / "synthetic.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    model = module.build(0)
    arrays = FlameArrays(
        model["v_template"], model["f"].astype(np.int64), model["shapedirs"], model["posedirs"],
        model["J_regressor"], model["weights"],
    )  # fmt: skip
    landmarks = LandmarkEmbedding.from_file_arrays(module.landmark_embedding(0), 9976)
    return FlameFiles(arrays, "synthetic", landmarks)


def test_flame_is_recovered(flame) -> None:
    random = np.random.default_rng(0)
    parameters = {
        "expr": 0.5 * random.standard_normal((2, 20)),
        "rotation": np.array([[0, 0, 0], [0, 0.1, 0]]),
        "neck": np.zeros((2, 3)), "jaw": np.array([[0.0, 0, 0], [0.25, 0, 0]]),
        "eyes": np.zeros((2, 6)), "translation": np.array([[0, 0, 0], [0.004, 0, 0]]),
    }  # fmt: skip
    model = FlameModel.from_arrays(flame.arrays, 300, 20)
    filmed = filmed_flame(model, flame.landmarks, 0.7 * random.standard_normal(300), parameters, 1)
    frames = film(filmed, CAMERAS).told(Flaws(), 1)
    trackable = trackable_flame(flame, 60, 20)
    track = track_multiview(trackable, frames, CONFIG)
    assert set(track.parameters) == {"expr", "rotation", "neck", "jaw", "eyes", "translation"}
    assert _error_mm(trackable, track, filmed) < 1.8
    with pytest.raises(ModelFileError, match="landmark embedding"):
        trackable_flame(replace(flame, landmarks=None))


def test_poses_start_where_the_head_is(head, shot) -> None:
    frames = shot.told(Flaws(camera_deg=0, camera_m=0, landmark_m=0), 1)
    trackable = trackable_anny(head)
    rotation, translation, scale = initial_poses(trackable, frames)
    assert scale == pytest.approx(1.0, abs=0.15)
    assert rotation[2, 1] - rotation[0, 1] == pytest.approx(0.1, abs=0.03)
    assert np.linalg.norm(translation, axis=1).max() < 0.02
    alone = replace(
        frames.only(np.arange(3)), cameras=frames.cameras[:1], images=frames.images[:, :1],
        landmarks=frames.landmarks[:, :1], confidence=frames.confidence[:, :1], mattes=None,
    )  # fmt: skip
    rotation, translation, scale = initial_poses(trackable, alone)
    assert scale == 1.0 and np.abs(rotation[0]).max() < 0.3
    assert np.abs(translation[:, :2]).max() < 0.03
    missing = alone.confidence.copy()
    missing[1] = 0
    filled, _, _ = initial_poses(trackable, replace(alone, confidence=missing))
    np.testing.assert_array_equal(filled[1], filled[0])
    few = np.zeros_like(missing)
    few[0, 0, 20:23] = 1
    with pytest.raises(TrackingFailed, match="enough landmarks"):
        initial_poses(trackable, replace(alone, confidence=few))


def test_triangulation_is_exact_without_noise() -> None:
    points = np.random.default_rng(0).uniform(-0.1, 0.1, (5, 3))
    pixels = np.stack([camera.project(points)[0] for camera in CAMERAS])
    confidence = np.ones((4, 5))
    confidence[1:, 4] = 0
    found, seen = triangulate(CAMERAS, pixels, confidence)
    assert seen.tolist() == [True] * 4 + [False]
    np.testing.assert_allclose(found[:4], points[:4], atol=1e-9)


def test_options_are_checked_by_name() -> None:
    for option, value in (("iterations", 0), ("divisors", (0,)), ("photometric_deviation", 0.0),
                          ("jaw_share", -1.0)):  # fmt: skip
        with pytest.raises(ConfigError, match=f"track.{option}"):
            MultiviewConfig(**{option: value})
