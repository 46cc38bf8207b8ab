"""Eyeballs are moved until both irises of a synthetic person look one way."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from fc4d_ray.evaluation.synthetic import make_person
from fc4d_ray.heads.rig import HeadRig, Region
from fc4d_ray.priors.shape.gaze import _EYES, _eyeball, look_together

SIZE = 768


@pytest.fixture(scope="module")
def photographed(head):
    """A light face turned by 20 degrees, with blue eyes."""
    person = make_person(4, head)
    return person, person.portrait(person.portrait_camera(20, SIZE, 20))


def _balls(rig: HeadRig) -> list[np.ndarray]:
    eyes = rig.region == Region.EYE
    return [np.flatnonzero(eyes & (rig.neutral[:, 0] * side > 0)) for side in (-1, 1)]


def _shifted(rig: HeadRig, right_m: float, left_m: float) -> HeadRig:
    neutral = rig.neutral.copy()
    for rows, shift in zip(_balls(rig), (right_m, left_m), strict=True):
        neutral[rows, 0] += shift
    return replace(rig, neutral=neutral)


def _difference(rig: HeadRig, shot) -> float:
    yaws = [
        _eyeball(rig, shot.camera, shot.image, shot.landmarks, marks).yaw(shot.camera, np.zeros(3))
        for marks in _EYES
    ]
    return yaws[0] - yaws[1]


def test_misplaced_eyeballs_squint_and_are_put_right(photographed) -> None:
    person, shot = photographed
    rig = _shifted(person.head_rig, -0.0012, 0.0008)
    assert abs(_difference(rig, shot)) > 6
    aligned = look_together(rig, shot.camera, shot.image, shot.landmarks)
    assert abs(_difference(aligned, shot)) < 1
    moved = np.linalg.norm(aligned.neutral - rig.neutral, axis=1)
    assert moved.max() < 0.0021
    assert (moved[rig.region != Region.EYE] == 0).all()
    for rows in _balls(rig):
        assert np.ptp(aligned.neutral[rows] - rig.neutral[rows], axis=0).max() < 1e-6, "as one"


def test_far_off_eyeballs_move_no_farther_than_two_millimetres(photographed) -> None:
    person, shot = photographed
    rig = _shifted(person.head_rig, 0.005, -0.005)
    aligned = look_together(rig, shot.camera, shot.image, shot.landmarks)
    assert np.linalg.norm(aligned.neutral - rig.neutral, axis=1).max() < 0.0021


def test_without_irises_everything_stays(photographed) -> None:
    person, shot = photographed
    stone = np.full_like(shot.image, 150)
    assert look_together(person.head_rig, shot.camera, stone, shot.landmarks) is person.head_rig
    tiny = shot.landmarks.copy()
    tiny[36:42] = tiny[36:42].mean(0)
    assert look_together(person.head_rig, shot.camera, shot.image, tiny) is person.head_rig
