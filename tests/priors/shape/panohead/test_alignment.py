"""From a face to PanoHead's crop and label, and back to the head frame."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fc4d_ray.cameras import Camera, orbit_camera
from fc4d_ray.errors import FitFailed
from fc4d_ray.heads.anny import AnnyHead, load_anny_head
from fc4d_ray.priors.shape.panohead.alignment import (
    HEAD_CENTRE,
    UNIT_M,
    Placement,
    align,
    focal_for_panohead,
)
from fc4d_ray.priors.shape.panohead.framing import (
    FRAME_SIZE,
    FaceSquare,
    check_refinement,
    framed_matte,
    framed_picture,
    landmark_square,
)
from fc4d_ray.priors.shape.panohead.labels import (
    FOCAL,
    RADIUS,
    orbit_label,
    pose_angles_deg,
    pose_label,
)


@pytest.fixture(scope="module")
def geometry(kit: Path) -> dict[str, np.ndarray]:
    with np.load(kit / "geometry_seed0.npz") as arrays:
        return {name: arrays[name] for name in arrays.files}


@pytest.fixture(scope="module")
def head() -> AnnyHead:
    return load_anny_head()


def landmarks_3d(head: AnnyHead) -> np.ndarray:
    corners = head.mean[head.faces[head.landmark_faces]]
    return (corners * head.landmark_barycentric[..., None]).sum(1).astype(np.float64)


def test_first_square_of_landmarks(geometry) -> None:
    for index, landmarks in enumerate(geometry["landmarks68"]):
        square = landmark_square(landmarks)
        np.testing.assert_allclose(square.centre, geometry["crop_c"][index], atol=1e-9)
        np.testing.assert_allclose(square.x, geometry["crop_x"][index], atol=1e-9)
        np.testing.assert_allclose(square.y, geometry["crop_y"][index], atol=1e-9)
        np.testing.assert_allclose(square.corners, geometry["crop_quad"][index], atol=1e-3)


def test_final_crop_with_blurred_reflection(geometry) -> None:
    height, width = geometry["crop_image_shape"]
    y, x = np.mgrid[0:height, 0:width]
    picture = np.stack(
        [
            127
            + 100 * np.sin(x / 23 + 0.3 * k) * np.cos(y / 31 - 0.2 * k)
            + 20 * ((x // 40 + y // 40 + k) % 2)
            for k in range(3)
        ],
        -1,
    )
    picture = picture.clip(0, 255).astype(np.uint8)
    for quad, expected, mean in zip(
        geometry["final_quad"], geometry["final_crop_sub8"], geometry["final_mean"], strict=True
    ):
        centre = quad.mean(0).astype(np.float64)
        square = FaceSquare(centre, (quad[3] - quad[0]) / 2.0, (quad[1] - quad[0]) / 2.0)
        frame = framed_picture(picture, square)
        assert frame.shape == (563, 563, 3) == tuple(geometry["final_shape"])
        difference = np.abs(frame[::8, ::8].astype(int) - expected.astype(int)).max(-1)
        assert (difference <= 2).mean() >= 0.99
        np.testing.assert_allclose(frame.mean((0, 1)), mean, atol=0.5)


def test_labels_of_face_poses(geometry) -> None:
    for rotation, label, angles, radians in zip(
        *(geometry[n] for n in ("label_R", "label_25", "label_pose_angles_deg")),
        geometry["matrix2angle_rad"],
        strict=True,
    ):
        np.testing.assert_allclose(pose_label(rotation[:3, :3]), label, atol=1e-5)
        found = pose_angles_deg(rotation[:3, :3])
        np.testing.assert_allclose(found, angles, atol=1e-3)
        np.testing.assert_allclose(np.deg2rad(found), radians, atol=1e-5)


@pytest.mark.parametrize(
    ("shift", "scale", "angles", "named"),
    [
        ((0, 0), 0.69, (0, 0, 0), "times as large"),
        ((0, 0), 1.31, (0, 0, 0), "times as large"),
        ((0.8, 0.7), 1, (0, 0, 0), "half sides off"),
        ((0, 0), 1, (91, 0, 0), "yaw"),
        ((0, 0), 1, (0, -81, 0), "pitch"),
        ((0, 0), 1, (0, 0, 51), "roll"),
    ],
)
def test_crops_beyond_the_training_datas_are_refused(shift, scale, angles, named: str) -> None:
    check_refinement(np.array([0.7, 0.7]), 1.29, np.array([90, 80, 50]))
    with pytest.raises(FitFailed, match=named):
        check_refinement(np.array(shift), scale, np.array(angles))


def test_landmarks_in_one_point_are_refused() -> None:
    with pytest.raises(FitFailed):
        landmark_square(np.full((68, 2), 7.0))


@pytest.mark.parametrize(("azimuth", "elevation"), [(0, 0), (25, 8), (-40, -12)])
def test_alignment_of_a_known_view(head: AnnyHead, azimuth: float, elevation: float) -> None:
    """The label looks from where the camera is; the reference shows the head where it was."""
    distance = RADIUS * UNIT_M
    camera = orbit_camera(azimuth, elevation, size=600, radius_m=distance, fov_deg=23)
    points = landmarks_3d(head)
    landmarks, _ = camera.project(points)
    assert focal_for_panohead(camera) == pytest.approx(camera.K[0, 0], rel=0.02)
    aligned = align(camera, landmarks)
    position = aligned.label[[3, 7, 11]]
    assert np.linalg.norm(position) == pytest.approx(RADIUS, rel=1e-6)
    expected = orbit_label(azimuth, elevation)[[3, 7, 11]]
    assert np.degrees(np.arccos(position @ expected / RADIUS**2)) < 2
    reprojected, _ = aligned.reference.project(points)
    assert np.abs(reprojected - landmarks).max() < 0.3
    placement = aligned.placement(aligned.label)
    assert placement.scale_m == UNIT_M == pytest.approx(0.417, abs=1e-3)
    # The head's middle lies near PanoHead's origin, and its frame shows a good quarter metre.
    assert np.abs(placement.offset_m - HEAD_CENTRE).max() < 0.03
    assert 2 * aligned.square.half_side * distance / camera.K[0, 0] == pytest.approx(0.24, rel=0.03)


def test_a_fit_from_another_distance_keeps_the_heads_size(head: AnnyHead) -> None:
    camera = orbit_camera(10, size=600, radius_m=1.6, fov_deg=17)
    landmarks, _ = camera.project(landmarks_3d(head))
    aligned = align(camera, landmarks)
    distance = np.linalg.norm(aligned.reference.position - HEAD_CENTRE)
    assert distance == pytest.approx(RADIUS * UNIT_M, rel=0.03)
    reprojected, _ = aligned.reference.project(landmarks_3d(head))
    assert np.abs(reprojected - landmarks)[17:].max() < 8, "only the perspective differs"


def test_rolled_faces_get_a_rolled_square_and_an_upright_label(head: AnnyHead) -> None:
    camera = orbit_camera(0, size=600, radius_m=RADIUS * UNIT_M, fov_deg=23)
    turn = np.deg2rad(20)
    roll = np.eye(4)
    roll[:2, :2] = [[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]]
    rolled = Camera(camera.K, roll @ camera.world_to_camera, 600, 600)
    landmarks, _ = rolled.project(landmarks_3d(head))
    aligned = align(rolled, landmarks)
    assert np.rad2deg(np.arctan2(*aligned.square.x[::-1])) == pytest.approx(20, abs=0.5)
    np.testing.assert_allclose(aligned.label, orbit_label(0), atol=0.06)
    assert abs(aligned.angles_deg[2]) < 1
    reprojected, _ = aligned.reference.project(landmarks_3d(head))
    assert np.abs(reprojected - landmarks).max() < 0.3


def test_the_frame_shows_what_the_labels_camera_sees(head: AnnyHead) -> None:
    """A dot drawn at a head point in the portrait lies in the frame where the label projects it."""
    camera = orbit_camera(-20, 5, size=600, radius_m=RADIUS * UNIT_M, fov_deg=23)
    points = landmarks_3d(head)
    landmarks, _ = camera.project(points)
    aligned = align(camera, landmarks)
    frame_camera = aligned.placement(aligned.label).camera(aligned.label, FRAME_SIZE)
    for point in (points[30], points[36], points[8]):
        pixel, _ = camera.project(point)
        picture = np.zeros((600, 600), np.uint8)
        column, row = (int(v) for v in np.round(pixel - 0.5))
        picture[row - 3 : row + 4, column - 3 : column + 4] = 255
        frame = framed_matte(picture, aligned.square).astype(float)
        y, x = (np.mgrid[0:FRAME_SIZE, 0:FRAME_SIZE] + 0.5) * frame / frame.sum()
        shown = np.array([x.sum(), y.sum()])
        expected, _ = frame_camera.project(point)
        np.testing.assert_allclose(shown, expected, atol=1.5)


def test_placement_round_trip_and_scaling_about_a_camera() -> None:
    placement = Placement(0.4, np.array([0.01, -0.02, 0.03]))
    label = orbit_label(35, 10)
    camera = placement.camera(label, 512)
    np.testing.assert_allclose(placement.label(camera), label, atol=1e-6)
    assert camera.K[0, 0] == pytest.approx(FOCAL * 512)
    scaled = placement.about(label, 0.44)
    np.testing.assert_allclose(scaled.camera(label, 512).position, camera.position, atol=1e-9)
    point = np.array([0.1, 0.2, -0.1])
    before, near = camera.project(placement.scale_m * point + placement.offset_m)
    after, far = camera.project(scaled.scale_m * point + scaled.offset_m)
    np.testing.assert_allclose(after, before, atol=1e-6)
    assert far / near == pytest.approx(1.1)
