from __future__ import annotations

import numpy as np
import pytest

from fc4d_ray.portraits.crop import (
    face_height,
    frame_crop,
    inside_source,
    invert_transform,
    map_box,
    map_points,
    roll_rad,
    warp,
)


@pytest.fixture
def landmarks() -> np.ndarray:
    """A symmetric face of height 100: brows at y 100, chin at 200, middle at x 150."""
    points = np.full((68, 2), 150.0)
    angles = np.linspace(np.pi, 0, 17)
    points[:17] = np.stack([150 + 60 * np.cos(angles), 130 + 70 * np.sin(angles)], -1)
    points[17:27] = np.stack([np.linspace(105, 195, 10), np.full(10, 100.0)], -1)
    points[27:36, 1] = np.linspace(115, 155, 9)
    points[36:42] = [125, 118]
    points[42:48] = [175, 118]
    points[48:68, 1] = 170
    return points


def rotated(points: np.ndarray, angle: float, scale: float) -> np.ndarray:
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    return scale * points @ turn.T + np.array([40.0, -13.0])


def test_levels_the_eyes_and_keeps_the_frame(landmarks: np.ndarray) -> None:
    frame = frame_crop(landmarks, size=400, face_fraction=0.265, face_centre_y=0.53)
    upright = map_points(frame.source_to_crop, landmarks)
    assert 0.24 < face_height(upright) / 400 < 0.29
    assert upright[27, 0] == pytest.approx(200, abs=1)
    turned = rotated(landmarks, np.deg2rad(27), 3.3)
    frame = frame_crop(turned, size=400, face_fraction=0.265, face_centre_y=0.53)
    levelled = map_points(frame.source_to_crop, turned)
    assert roll_rad(levelled) == pytest.approx(0, abs=1e-9)
    np.testing.assert_allclose(levelled, upright, atol=1e-6)


def test_inverse_maps_points_and_boxes_back() -> None:
    transform = np.array([[0.8, 0.3, 5.0], [-0.3, 0.8, -2.0]])
    points = np.array([[3.0, 4.0], [100.0, -7.0]])
    back = map_points(invert_transform(transform), map_points(transform, points))
    np.testing.assert_allclose(back, points)
    box = np.array([10.0, 20.0, 40.0, 70.0])
    np.testing.assert_allclose(map_box(invert_transform(transform), map_box(transform, box)), box)


@pytest.mark.parametrize("scale", [0.11, 0.5, 1.0, 2.5])
def test_warp_puts_a_spot_where_map_points_says(scale: float) -> None:
    y, x = np.mgrid[0:200, 0:200] + 0.5
    spot = np.array([121.3, 76.8])
    image = 255 * np.exp(-((x - spot[0]) ** 2 + (y - spot[1]) ** 2) / (2 * 12.0**2))
    transform = np.array([[scale, 0.0, 3.0], [0.0, scale, -2.0]])
    side = int(200 * scale) + 8
    warped = warp(image.astype(np.float32), transform, (side, side)).astype(np.float64)
    grid = np.stack(np.meshgrid(np.arange(side) + 0.5, np.arange(side) + 0.5), -1)
    centroid = (grid * warped[..., None]).sum((0, 1)) / warped.sum()
    np.testing.assert_allclose(centroid, map_points(transform, spot), atol=0.06)


def test_inside_source_marks_the_replicated_border(landmarks: np.ndarray) -> None:
    frame = frame_crop(landmarks, size=200, face_fraction=0.265, face_centre_y=0.53)
    inside = inside_source(frame, (300, 260))
    corner = map_points(frame.source_to_crop, np.array([150.0, 130.0])).astype(int)
    assert inside[corner[1], corner[0]]
    share = (300 * 260) * frame.scale**2 / 200**2
    assert inside.mean() <= min(share, 1.0) + 0.02
    assert not inside.all()
