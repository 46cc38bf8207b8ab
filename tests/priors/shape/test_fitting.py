"""Fitting the head model to people whose identity, expression and camera are known."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fc4d_ray.cameras import Camera
from fc4d_ray.errors import ConfigError, FitFailed
from fc4d_ray.evaluation.synthetic import make_person, surface_error_mm
from fc4d_ray.heads.anny import AnnyHead
from fc4d_ray.heads.rig import Region
from fc4d_ray.portraits.landmarks import MIRRORED_LANDMARK
from fc4d_ray.priors.shape.fitting import FitConfig, HeadFit, fit_head

SIZE = 512
CONFIG = FitConfig(steps=300)


def _vertices(head: AnnyHead, fit: HeadFit) -> np.ndarray:
    rig = head.rig(fit.identity)
    parameters = rig.neutral_parameters()
    parameters["actions"] = torch.from_numpy(fit.actions)[None]
    return rig.pose(parameters)[0].numpy().astype(np.float64)


def _turn(points: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """The rotation (3, 3) that brings ``points`` closest to ``targets`` (Kabsch)."""
    a, b = points - points.mean(0), targets - targets.mean(0)
    u, _, vt = np.linalg.svd(b.T @ a)
    return u @ np.diag([1, 1, np.sign(np.linalg.det(u @ vt))]) @ vt


def _pose_error_deg(head: AnnyHead, fit: HeadFit, truth: np.ndarray, camera: Camera) -> float:
    """Angle between found and true camera, as seen from the face itself."""
    front = (head.region == Region.FACE) & (head.mean[:, 2] > 0.02)
    frame = _turn(_vertices(head, fit)[front], truth[front].astype(np.float64))
    found = fit.camera.world_to_camera[:3, :3] @ frame.T
    difference = found @ camera.world_to_camera[:3, :3].T
    return float(np.rad2deg(np.arccos(np.clip((np.trace(difference) - 1) / 2, -1, 1))))


@pytest.mark.parametrize(
    ("seed", "azimuth_deg", "fov_deg"),
    [(5, 0, 20), (1, 35, 24), (4, 35, 17), (5, -35, 20), (3, -20, 26)],
)
def test_pose_and_face_are_recovered(head: AnnyHead, seed, azimuth_deg, fov_deg) -> None:
    person = make_person(seed, head)
    camera = person.portrait_camera(azimuth_deg, SIZE, fov_deg)
    fit = fit_head(head, person.landmarks(camera), SIZE, CONFIG)
    assert fit.error < 0.012, "outer eye distances"
    assert _pose_error_deg(head, fit, person.head_rig.neutral, camera) < 3.0
    assert abs(fit.azimuth_deg - azimuth_deg) < 3.5
    assert (fit.camera.width, fit.camera.height) == (SIZE, SIZE)
    assert ((fit.actions >= 0) & (fit.actions <= 1)).all()
    found = surface_error_mm(_vertices(head, fit), person)
    assert found < 0.9
    assert found < 0.9 * surface_error_mm(head.mean, person), "better than the mean face"


def test_the_fitted_mesh_lands_on_the_landmarks(head: AnnyHead) -> None:
    person = make_person(6, head)
    camera = person.portrait_camera(0, SIZE, 20)
    target = person.landmarks(camera)
    fit = fit_head(head, target, SIZE, CONFIG)
    corners = _vertices(head, fit)[head.faces[head.landmark_faces]]
    points = (corners * head.landmark_barycentric[..., None]).sum(1)
    distance = np.linalg.norm(fit.camera.project(points)[0] - target, axis=1)
    eye_distance = np.linalg.norm(target[36] - target[45])
    assert distance[17:].mean() / eye_distance < 0.012
    assert distance.max() / eye_distance < 0.12


def test_a_smile_is_found_as_a_smile(head: AnnyHead) -> None:
    rig = head.rig(np.zeros(len(head.identity_basis)))
    camera = make_person(0, head).portrait_camera(0, SIZE, 20)
    smile = {"mouthSmileLeft": 0.8, "mouthSmileRight": 0.8, "jawOpen": 0.3}
    points = rig.landmarks(rig.pose(rig.parameters_from_actions(smile))[0])
    fit = fit_head(head, camera.project(points.numpy().astype(float))[0], SIZE, CONFIG)
    found = dict(zip(head.action_names, fit.actions, strict=True))
    assert min(found["mouthSmileLeft"], found["mouthSmileRight"]) > 0.3
    assert found["jawOpen"] > 0.12
    assert max(found["mouthFrownLeft"], found["mouthPucker"], found["eyeLookUpLeft"]) < 0.1


def test_mirrored_landmarks_give_the_mirrored_pose(head: AnnyHead) -> None:
    person = make_person(4, head)
    landmarks = person.landmarks(person.portrait_camera(25, SIZE, 20))
    mirrored = landmarks[list(MIRRORED_LANDMARK)] * [-1, 1] + [SIZE, 0]
    fit, other = (fit_head(head, marks, SIZE, CONFIG) for marks in (landmarks, mirrored))
    assert other.azimuth_deg == pytest.approx(-fit.azimuth_deg, abs=2.0)
    assert other.elevation_deg == pytest.approx(fit.elevation_deg, abs=2.0)
    assert other.error == pytest.approx(fit.error, rel=0.3)


def test_equal_landmarks_give_equal_bytes(head: AnnyHead) -> None:
    person = make_person(5, head)
    landmarks = person.landmarks(person.portrait_camera(20, SIZE, 20))
    one, two = (fit_head(head, landmarks, SIZE, FitConfig(steps=60)) for _ in range(2))
    assert one.identity.tobytes() == two.identity.tobytes()
    assert one.actions.tobytes() == two.actions.tobytes()
    assert one.camera.world_to_camera.tobytes() == two.camera.world_to_camera.tobytes()


def _garbage() -> dict[str, np.ndarray]:
    generator = np.random.default_rng(0)
    circle = np.linspace(0, 2 * np.pi, 68)
    return {
        "noise": generator.uniform(0, SIZE, (68, 2)),
        "circle": 256 + 100 * np.stack([np.cos(circle), np.sin(circle)], 1),
        "a point": np.full((68, 2), 256.0),
        "not finite": np.full((68, 2), np.nan),
    }


@pytest.mark.parametrize("kind", list(_garbage()))
def test_garbage_fails_typed(head: AnnyHead, kind: str) -> None:
    with pytest.raises(FitFailed, match="landmarks"):
        fit_head(head, _garbage()[kind], SIZE, FitConfig(steps=120))


def test_the_configuration_names_its_options() -> None:
    with pytest.raises(ConfigError, match="shape.fit.fov_deg"):
        FitConfig(fov_deg=90)
    with pytest.raises(ConfigError, match="shape.fit.steps"):
        FitConfig(steps=1)
