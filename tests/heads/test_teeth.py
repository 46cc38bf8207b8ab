from __future__ import annotations

import numpy as np
import pytest

from fc4d_ray.heads.teeth import COLUMNS, TEETH_PER_ROW, make_mouth_bag, make_teeth, tooth_row_shade

MOUTH_WIDTH = 0.05


@pytest.fixture
def landmarks() -> np.ndarray:
    marks = np.zeros((68, 3))
    marks[48], marks[54] = [-MOUTH_WIDTH / 2, -0.05, 0.08], [MOUTH_WIDTH / 2, -0.05, 0.08]
    marks[62], marks[66] = [0, -0.049, 0.09], [0, -0.051, 0.09]
    return marks


def test_two_arches_lie_behind_the_lips_within_the_mouth(landmarks: np.ndarray) -> None:
    teeth = make_teeth(landmarks)
    assert teeth.vertices.shape == (len(teeth.is_lower), 3)
    assert teeth.is_lower.sum() * 2 == len(teeth.is_lower)
    assert teeth.vertices[:, 2].max() < 0.09
    widest = np.abs(teeth.vertices[:, 0]).max()
    assert 0.95 * MOUTH_WIDTH / 2 < widest <= MOUTH_WIDTH / 2 + 1e-6, "a smile bares molars"
    upper, lower = teeth.vertices[~teeth.is_lower], teeth.vertices[teeth.is_lower]
    assert upper[:, 1].max() > lower[:, 1].max() and lower[:, 1].min() < upper[:, 1].min()
    assert 0.007 < np.ptp(upper[:, 1]) < 0.013, "a crown is about a centimetre high"
    behind = upper[np.abs(upper[:, 0]).argmin(), 2] - upper[:, 2]
    canine, last = (np.abs(np.abs(upper[:, 0]) - share * widest).argmin() for share in (0.7, 1))
    assert 0.006 < behind[canine] < 0.016, "canines stand about a centimetre behind the incisors"
    assert behind[last] > 2 * behind[canine]


def test_rows_are_symmetric_and_their_faces_stay_within_a_row(landmarks: np.ndarray) -> None:
    teeth = make_teeth(landmarks)
    mirrored = teeth.vertices[teeth.mirror] * np.float32([-1, 1, 1])
    np.testing.assert_allclose(mirrored, teeth.vertices, atol=1e-6)
    sides = teeth.is_lower[teeth.faces]
    assert (sides.all(1) | ~sides.any(1)).all()
    assert len(np.unique(teeth.faces)) == len(teeth.vertices)


def test_front_walls_face_forward(landmarks: np.ndarray) -> None:
    teeth = make_teeth(landmarks)
    corners = teeth.vertices[teeth.faces]
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    middle = np.abs(corners[..., 0]).max(1) < 0.008
    for lower in (False, True):
        row = middle & (teeth.is_lower[teeth.faces[:, 0]] == lower)
        centres = corners[row].mean(1)
        front = centres[:, 2] > np.median(centres[:, 2])
        assert normals[row][front][:, 2].mean() > 0


def test_shade_is_brightest_in_front_and_shows_every_gap(landmarks: np.ndarray) -> None:
    shade = tooth_row_shade()
    teeth = make_teeth(landmarks)
    assert shade.shape == teeth.is_lower.shape
    assert shade.min() > 0 and shade.max() <= 1
    central = np.abs(teeth.vertices[:, 0]) < 0.3 * np.abs(teeth.vertices[:, 0]).max()
    assert shade[central].mean() > 1.1 * shade[~central].mean()
    assert TEETH_PER_ROW % 2 == 0
    edge = shade[: len(shade) // 2].reshape(-1, COLUMNS)[2]
    middle = COLUMNS // 2
    assert edge[middle] < min(edge[middle - 1], edge[middle + 1]), "a gap on the mid-line"


def test_the_mouth_bag_encloses_the_teeth_and_opens_with_the_jaw(landmarks: np.ndarray) -> None:
    bag, teeth = make_mouth_bag(landmarks), make_teeth(landmarks)
    mirrored = bag.vertices[bag.mirror] * [-1, 1, 1]
    np.testing.assert_allclose(mirrored, bag.vertices, atol=1e-6, err_msg="symmetric")
    np.testing.assert_allclose(bag.jaw_share[bag.mirror], bag.jaw_share, atol=1e-6)
    upper, lower = bag.vertices[bag.jaw_share < 0.01], bag.vertices[bag.jaw_share > 0.99]
    assert upper[:, 1].mean() > lower[:, 1].mean() + 0.005
    assert np.ptp(bag.vertices[:, 0]) > np.ptp(teeth.vertices[:, 0])
    assert bag.vertices[:, 2].max() < teeth.vertices[:, 2].max(), "it must not hide the incisors"
    corners = bag.vertices[bag.faces].astype(float)
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    to_axis = np.array([0.0, -0.05, 0.0]) - corners.mean(1) * [1, 1, 0]
    assert ((to_axis * normals).sum(1) > -1e-12).mean() > 0.9, "faces look into the mouth"
