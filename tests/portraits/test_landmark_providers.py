from __future__ import annotations

import numpy as np
import pytest

from fc4d_ray.errors import InvalidAnnotation, WeightsMissing
from fc4d_ray.portraits.dlib_models import ScoredBox
from fc4d_ray.portraits.landmark_providers import (
    MAP_106_TO_68,
    DlibLandmarks,
    InsightFaceLandmarks,
    PrecomputedLandmarks,
    from_106,
    locate_all,
)

PICTURE = np.zeros((64, 64, 3), np.uint8)


def test_every_landmark_has_a_point_of_its_own_among_the_106() -> None:
    assert len(MAP_106_TO_68) == 68 == len(set(MAP_106_TO_68))
    assert min(MAP_106_TO_68) >= 0 and max(MAP_106_TO_68) <= 105
    assert max(MAP_106_TO_68[:17]) <= 32, "the jaw comes from the 33 contour points"
    points = np.stack([np.arange(106.0), np.arange(106.0) + 200], 1)
    found = from_106(points, 0.8)
    assert found.points[8, 0] == 0, "the chin"
    assert found.confidence[30] == 0.8 and found.confidence[3] == 0.4
    with pytest.raises(InvalidAnnotation, match="106"):
        from_106(points[:68], 1.0)


def test_without_its_models_insightface_says_where_they_come_from(tmp_path) -> None:
    with pytest.raises(WeightsMissing, match="insightface"):
        InsightFaceLandmarks(tmp_path).locate(PICTURE, 0)


def test_precomputed_rows_are_given_back(tmp_path) -> None:
    points = np.random.default_rng(0).uniform(0, 64, (3, 68, 2))
    points[1] = np.nan
    provider = PrecomputedLandmarks(points)
    assert provider.locate(PICTURE, 1) is None
    np.testing.assert_array_equal(provider.locate(PICTURE, 2).points, points[2])
    with pytest.raises(InvalidAnnotation, match="frame 3"):
        provider.locate(PICTURE, 3)
    found, confidence = locate_all(provider, [PICTURE] * 3)
    assert confidence.max(1).tolist() == [1, 0, 1] and np.isfinite(found).all()

    np.savez(tmp_path / "own.npz", points=points)
    own = PrecomputedLandmarks.read(tmp_path / "own.npz", 64, 64)
    np.testing.assert_array_equal(own.locate(PICTURE, 0).points, points[0])
    stored = np.concatenate([points / 64, np.ones((3, 68, 1))], -1)
    stored[1] = -1
    np.savez(tmp_path / "vhap.npz", face_landmark_2d=stored)
    vhap = PrecomputedLandmarks.read(tmp_path / "vhap.npz", 64, 64)
    np.testing.assert_allclose(vhap.locate(PICTURE, 0).points, points[0])
    assert vhap.locate(PICTURE, 1) is None


def test_bad_landmark_files_are_refused(tmp_path) -> None:
    with pytest.raises(InvalidAnnotation, match=r"\(T, 68, 2\)"):
        PrecomputedLandmarks(np.zeros((2, 5, 2)))
    np.savez(tmp_path / "other.npz", a=np.zeros(3))
    with pytest.raises(InvalidAnnotation, match="neither points"):
        PrecomputedLandmarks.read(tmp_path / "other.npz", 64, 64)
    (tmp_path / "text.npz").write_text("no")
    with pytest.raises(InvalidAnnotation, match="no landmark file"):
        PrecomputedLandmarks.read(tmp_path / "text.npz", 64, 64)


class _Models:
    """A detector that sees the face in the first picture only."""

    def __init__(self) -> None:
        self.calls = 0

    def find_hog(self, image, *, upsample, threshold):
        self.calls += 1
        return [ScoredBox(np.array([10.0, 10, 50, 50]), 1.0)] if self.calls == 1 else []

    def find_cnn(self, image, *, threshold):
        return []

    def landmarks(self, image, box):
        angle = np.linspace(0, 2 * np.pi, 68, endpoint=False)
        centre, side = (box[:2] + box[2:]) / 2, box[2] - box[0]
        return centre + 0.4 * side * np.stack([np.cos(angle), np.sin(angle)], 1)


def test_a_face_lost_for_a_frame_is_looked_for_where_it_was() -> None:
    provider = DlibLandmarks(_Models(), thorough=False)
    first, second = provider.locate(PICTURE, 0), provider.locate(PICTURE, 1)
    assert first.confidence[0] == 1.0 and 0 < second.confidence[0] < 1
    assert np.abs(first.points.mean(0) - second.points.mean(0)).max() < 15
    provider.forget()
    assert provider.locate(PICTURE, 2) is None
