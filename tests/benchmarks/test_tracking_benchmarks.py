"""The tracking benchmarks run, small, and measure what they say."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.fixture(scope="module")
def recovery():
    sys.path.insert(0, str(BENCHMARKS))
    try:
        import tracking_recovery
    finally:
        sys.path.remove(str(BENCHMARKS))
    return tracking_recovery


def test_a_small_film_is_tracked_and_measured(recovery) -> None:
    from fc4d_ray.evaluation.synthetic_clips import film
    from fc4d_ray.tracking.multiview_config import MultiviewConfig

    scene = recovery.anny_scene(1, 2)
    shot = film(scene.filmed, recovery.clip_cameras(64)[3:10:3])
    config = MultiviewConfig(divisors=(), landmark_iterations=5)
    row, track = recovery.measure(scene, shot, "clean", 1, config)
    assert asdict(row)["condition"] == "clean" and row.head == "anny"
    assert 0 < row.vertex_mm < 2.5 and row.vertex_mm < row.vertex_p95_mm
    assert row.expression_mm < row.vertex_mm and 0 < row.reprojection_percent < 3
    assert row.seconds_per_frame_view == pytest.approx(row.seconds / (2 * 3))

    found = recovery.vertices_of(scene.trackable, track)
    marks = recovery.landmarks_of(scene.trackable, scene.filmed.true_vertices)
    np.testing.assert_allclose(marks, scene.filmed.landmarks, atol=1e-6)
    assert found.shape == scene.filmed.true_vertices.shape
    assert recovery._reprojection(scene, shot, scene.filmed.true_vertices) < 1e-3


def test_the_conditions_are_the_three_promised(recovery) -> None:
    assert set(recovery.CONDITIONS) == set(recovery.GOALS)
    views = len(recovery.clip_cameras(64))
    assert len(recovery.CONDITIONS["third_blind"].blind_views) * 3 == views == 12
    assert recovery.CONDITIONS["inconsistent"].view_bend_m > 0
