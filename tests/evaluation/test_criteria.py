from __future__ import annotations

import pytest

from fc4d_ray.evaluation.criteria import CRITERIA, missed, verdicts

GOOD = {
    "portrait_has_face": True, "azimuth_deg": 5.0, "id_0": 0.2, "id_30": 0.4, "id_45": 0.5,
    "id_60": None, "id_own": 0.2, "faces_behind": 0, "silhouette_iou": 0.95, "whole": 0.999,
    "whole_azimuth_deg": 90.0, "lips": 0.2, "blink": 0.5, "smile": 0.3, "focal": 0.02,
    "peak_memory_gib": 1.5,
}  # fmt: skip


def test_a_good_frontal_portrait_misses_nothing() -> None:
    assert missed(GOOD) == []
    assert verdicts(GOOD)["id_own"] is None


@pytest.mark.parametrize(
    ("figure", "value"),
    [
        ("id_0", 0.31), ("id_30", 0.51), ("id_45", 0.61), ("faces_behind", 1),
        ("silhouette_iou", 0.92), ("whole", 0.994), ("lips", 0.14), ("blink", 0.39),
        ("smile", 0.46), ("focal", 0.051), ("peak_memory_gib", 4.1),
    ],
)  # fmt: skip
def test_each_bound_is_checked(figure: str, value: float) -> None:
    summary = GOOD | {figure: value}
    assert [c.figure for c in CRITERIA if c.verdict(summary) is False] == [figure]
    assert len(missed(summary)) == 1


def test_bounds_themselves_are_within() -> None:
    for azimuth in (5.0, 40.0):
        posed = GOOD | {"azimuth_deg": azimuth}
        at_bounds = {c.figure: c.bound for c in CRITERIA if c.concerns(posed)}
        assert missed(posed | at_bounds) == []


def test_a_turned_portrait_answers_for_its_own_angle_instead() -> None:
    turned = GOOD | {"azimuth_deg": -43.0, "id_30": 0.9, "id_45": None, "id_own": 0.5}
    assert verdicts(turned)["id_30"] is None
    assert missed(turned) == ["identity, own angle"]
    assert verdicts(turned | {"id_0": 0.45})["id_0"] is True, "as far off as ±30° for others"
    assert verdicts(turned | {"id_0": 0.51})["id_0"] is False


def test_what_could_not_be_measured_is_missed() -> None:
    assert missed(GOOD | {"blink": None}) == ["eyes shut, 0 and ±30°"]


def test_without_a_face_in_the_portrait_identity_has_no_verdict() -> None:
    cartoon = GOOD | {"portrait_has_face": False} | dict.fromkeys(
        ("id_0", "id_30", "id_45", "id_own", "smile", "focal")
    )  # fmt: skip
    assert missed(cartoon) == []
    assert verdicts(cartoon)["whole"] is True
