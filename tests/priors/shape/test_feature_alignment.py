"""Lids and lips on the portrait's own."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fc4d_ray.cameras import orbit_camera
from fc4d_ray.heads.rig import HeadRig, Region
from fc4d_ray.priors.shape.feature_alignment import align_features

SHUT = {"eyeBlinkLeft": 1.0, "eyeBlinkRight": 1.0}
UPPER_LOWER = ((37, 41), (38, 40), (43, 47), (44, 46))


@pytest.fixture(scope="module")
def rig(head) -> HeadRig:
    return head.rig(np.zeros(len(head.identity_basis)))


@pytest.fixture(scope="module")
def camera():
    return orbit_camera(12, size=512)


def landmarks(rig: HeadRig, actions=None) -> np.ndarray:
    vertices = rig.pose(rig.parameters_from_actions(actions or {}))[0]
    return rig.landmarks(vertices).numpy().astype(np.float64)


@pytest.fixture(scope="module")
def marked(rig, camera) -> np.ndarray:
    """A portrait's landmarks: both eyes open 2 px wider above, the mouth 1.5 px to a side."""
    pixels, _ = camera.project(landmarks(rig))
    pixels[[37, 38, 43, 44], 1] -= 2.0
    pixels[48:, 0] += 1.5
    return pixels


def test_lids_and_lips_come_to_lie_on_the_landmarks(rig, camera, marked) -> None:
    aligned = align_features(rig, camera, marked)
    before, _ = camera.project(landmarks(rig))
    after, _ = camera.project(landmarks(aligned))
    features = slice(36, 68)
    assert np.linalg.norm(before - marked, axis=1)[features].mean() > 1.0
    assert np.linalg.norm(after - marked, axis=1)[features].mean() < 0.35
    elsewhere = np.linalg.norm(after - before, axis=1)[:17]
    assert elsewhere.max() < 0.3, "the jaw line stays"
    still = rig.region == Region.EYE
    np.testing.assert_array_equal(aligned.neutral[still], rig.neutral[still])


def test_eyes_that_were_opened_wider_shut_and_lids_hardly_overlap(rig, camera, marked) -> None:
    now = landmarks(align_features(rig, camera, marked), SHUT)
    gaps = [now[upper, 1] - now[lower, 1] for upper, lower in UPPER_LOWER]
    assert max(gaps) < -0.0003, "shut"
    assert min(gaps) > -0.0022


def test_one_eye_shuts_without_the_other(rig, camera, marked) -> None:
    aligned = align_features(rig, camera, marked)
    rest, winked = landmarks(aligned), landmarks(aligned, {"eyeBlinkLeft": 1.0})
    assert np.abs(winked[36:42] - rest[36:42]).max() < 3e-4
    assert (rest[43:45, 1] - winked[43:45, 1]).min() > 0.004


def test_other_actions_are_untouched(rig, camera, marked) -> None:
    aligned = align_features(rig, camera, marked)
    others = [i for i, name in enumerate(rig.action_names) if not name.startswith("eyeBlink")]
    np.testing.assert_array_equal(aligned.action_basis[others], rig.action_basis[others])


def test_a_misdetection_moves_the_face_by_a_few_millimetres_at_most(rig, camera, marked) -> None:
    wild = marked.copy()
    wild[36:48] += 60.0
    moved = align_features(rig, camera, wild).neutral - rig.neutral
    assert torch.from_numpy(moved).norm(dim=1).max() < 0.01
