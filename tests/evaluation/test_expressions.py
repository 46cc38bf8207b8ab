from __future__ import annotations

import numpy as np
import pytest

from fc4d_ray.evaluation import expressions
from fc4d_ray.evaluation.expressions import MEASURED_EXPRESSIONS, blink_fall, lip_opening_growth
from fc4d_ray.priors.video.motion import action_vector


def _landmarks(lip_gap: float, right_eye: float, left_eye: float) -> np.ndarray:
    """Outer eye corners 100 apart; eyes 20 wide with given openings; lips ``lip_gap`` apart."""
    marks = np.zeros((68, 2))
    for first, x, opening in ((36, 0, right_eye), (42, 80, left_eye)):
        half = opening / 2
        marks[first : first + 6] = [
            [x, 0], [x + 7, -half], [x + 13, -half], [x + 20, 0], [x + 13, half], [x + 7, half],
        ]  # fmt: skip
    marks[45] = [100, 0]
    marks[61:64] = [[45, 60], [50, 60], [55, 60]]
    marks[65:68] = [[55, 60 + lip_gap], [50, 60 + lip_gap], [45, 60 + lip_gap]]
    return marks


@pytest.fixture
def detector(monkeypatch):
    """Stands in for the landmark detector: an image's first value chooses the answer."""

    def use(*answers) -> list[np.ndarray]:
        monkeypatch.setattr(
            expressions, "render_landmarks", lambda image: answers[int(image[0, 0, 0])]
        )
        return [np.full((2, 2, 3), i, np.uint8) for i in range(len(answers))]

    return use


def test_growth_is_in_eye_distances(detector) -> None:
    rest, opened = detector(_landmarks(2, 6, 6), _landmarks(22, 6, 6))
    assert lip_opening_growth(rest, opened) == pytest.approx(0.2)
    assert lip_opening_growth(opened, rest) == pytest.approx(-0.2)


def test_growth_does_not_depend_on_the_picture_s_scale(detector) -> None:
    rest, larger = detector(_landmarks(2, 6, 6), 3 * _landmarks(2, 6, 6))
    assert lip_opening_growth(rest, larger) == pytest.approx(0)


def test_blink_eye_by_eye(detector) -> None:
    rest, shut = detector(_landmarks(2, 8, 4), _landmarks(2, 2, 2))
    fall = blink_fall(rest, shut)
    assert fall is not None
    assert fall.right == pytest.approx(0.75)
    assert fall.left == pytest.approx(0.5)
    assert fall.mean == pytest.approx(1 - 4 / 12)


def test_no_face_no_figure(detector) -> None:
    rest, nothing = detector(_landmarks(2, 6, 6), None)
    for one, other in ((rest, nothing), (nothing, rest)):
        assert lip_opening_growth(one, other) is None
        assert blink_fall(one, other) is None


def test_measured_expressions_are_known_actions() -> None:
    for actions in MEASURED_EXPRESSIONS.values():
        assert action_vector(actions).max() == 1
