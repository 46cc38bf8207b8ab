from __future__ import annotations

import numpy as np
import pytest
import skimage.data
import skimage.transform

from fc4d_ray.cameras import orbit_camera
from fc4d_ray.publishing.quality import (
    describe,
    identity_figures,
    silhouette_iou,
    view_direction_deg,
)


@pytest.fixture(scope="module")
def portrait() -> np.ndarray:
    return skimage.data.astronaut()


def test_identity_figures_follow_the_face_that_is_shown(portrait: np.ndarray) -> None:
    """A 'head' that shows the portrait up to 30 degrees, darker from the right, and a wall else."""
    asked = []

    def render_at(azimuth: float, elevation: float) -> np.ndarray:
        asked.append((azimuth, elevation))
        if abs(azimuth) > 31:
            return np.full((512, 512, 3), 255, np.uint8)
        return (portrait * (0.5 if azimuth < 0 else 1.0)).astype(np.uint8)

    figures = identity_figures(portrait, orbit_camera(12, 5), render_at)
    assert figures["id_distance_0"] == 0.0 and figures["id_distance_reference"] == 0.0
    sides = figures["id_distances"]
    assert sides["+30"] == 0.0 and sides["-30"] > 0.02
    assert figures["id_distance_30"] == sides["-30"], "the worse side counts"
    assert figures["id_distance_45"] is None and figures["id_distance_60"] is None
    assert figures["face_at_back"] is False
    assert figures["reference_azimuth_deg"] == 12.0
    assert any(view == pytest.approx((12, 5)) for view in asked)


def test_portrait_without_a_detectable_face_has_no_distances(portrait: np.ndarray) -> None:
    wall = np.full((512, 512, 3), 128, np.uint8)
    figures = identity_figures(wall, orbit_camera(0), lambda azimuth, elevation: portrait)
    assert all(figures[f"id_distance_{key}"] is None for key in ("0", "30", "45", "reference"))
    assert figures["face_at_back"] is True, "a face seen from behind is reported"


def test_silhouette_counts_only_above_the_chin() -> None:
    landmarks = np.zeros((68, 2))
    landmarks[8] = (50, 60)
    matte = np.zeros((100, 100), np.uint8)
    matte[20:, 30:70] = 255
    alpha = np.zeros_like(matte)
    alpha[20:60, 30:70] = 200
    assert silhouette_iou(alpha, matte, landmarks) == 1.0, "what lies below the chin is ignored"
    alpha[20:60, 50:70] = 100
    assert silhouette_iou(alpha, matte, landmarks) == 0.5
    assert silhouette_iou(alpha * 0, matte * 0, landmarks) is None
    with pytest.raises(ValueError, match="shape"):
        silhouette_iou(alpha[:50], matte, landmarks)


@pytest.mark.parametrize("direction", [(0, 0), (30, 0), (-45, 10), (170, -20)])
def test_view_direction_inverts_the_orbit(direction: tuple[float, float]) -> None:
    assert view_direction_deg(orbit_camera(*direction)) == pytest.approx(direction)


def test_caption_leaves_out_what_was_not_measured() -> None:
    text = describe({"id_distance_0": 0.2149, "id_distance_30": None, "silhouette_iou": 0.95})
    assert text == "identity distance 0°: 0.21   silhouette IoU: 0.95"
    assert describe({}) == ""
