from __future__ import annotations

import numpy as np
import pytest

from fc4d_ray.cameras import orbit_azimuths
from fc4d_ray.priors.image.diffusion.waves import ANCHOR_REFERENCE, WavePlan, plan_waves

REF = ANCHOR_REFERENCE


def _check(plan: WavePlan, count: int) -> None:
    """Every view once; each source finished in an earlier wave; the back first and alone."""
    views = [task.view for wave in plan.waves for task in wave]
    assert sorted(views) == list(range(count))
    assert [task.view for task in plan.waves[0]] == [plan.back]
    finished = {REF}
    for wave in plan.waves:
        for task in wave:
            assert set(task.sources) <= finished
            assert len(set(task.sources)) == len(task.sources)
        finished |= {task.view for task in wave}


def test_the_paper_orbit_goes_outwards_from_both_anchors() -> None:
    plan = plan_waves(orbit_azimuths(24))
    assert plan.back == 12
    waves = [{task.view for task in wave} for wave in plan.waves]
    assert waves == [
        {12}, {0, 1, 23, 11, 13}, {2, 22, 10, 14}, {3, 21, 9, 15}, {4, 20, 8, 16}, {5, 19, 7, 17},
        {6, 18},
    ]  # fmt: skip
    sources = {task.view: task.sources for wave in plan.waves for task in wave}
    assert sources[12] == () and sources[0] == (REF,)
    assert sources[1] == (REF,) and sources[2] == (REF, 1) and sources[22] == (REF, 23)
    assert sources[11] == (12,) and sources[10] == (12, 11) and sources[14] == (12, 13)
    assert sources[6] == (REF, 12, 5, 7) and sources[18] == (REF, 12, 19, 17)
    _check(plan, 24)


def test_anchors_only_takes_one_wave_more() -> None:
    plan = plan_waves(orbit_azimuths(24), propagation="anchors")
    assert len(plan.waves) == 2
    assert {task.sources for task in plan.waves[1]} == {(REF, 12)}
    _check(plan, 24)


def test_without_warping_nobody_has_sources() -> None:
    plan = plan_waves(orbit_azimuths(24), warping=False)
    assert {task.sources for wave in plan.waves for task in wave} == {()}
    assert [len(wave) for wave in plan.waves] == [1, 23]
    _check(plan, 24)


@pytest.mark.parametrize("count", [2, 4, 6, 10, 12, 24, 36])
def test_even_counts_are_symmetric(count) -> None:
    azimuths = orbit_azimuths(count)
    plan = plan_waves(azimuths)
    assert azimuths[plan.back] == 180
    mirror = {i: min(range(count), key=lambda j: (azimuths[j] + azimuths[i]) % 360)
              for i in range(count)} | {REF: REF}  # fmt: skip
    for wave in plan.waves:
        tasks = {(task.view, frozenset(task.sources)) for task in wave}
        assert tasks == {
            (mirror[view], frozenset(mirror[s] for s in sources)) for view, sources in tasks
        }
    _check(plan, count)


@pytest.mark.parametrize("count", [1, 3, 5, 7, 23, 25])
def test_odd_counts_have_one_back_and_differ_by_a_wave_at_most(count) -> None:
    plan = plan_waves(orbit_azimuths(count))
    _check(plan, count)
    assert len(plan.waves) <= 2 + (count + 3) // 4


def test_a_turned_reference_moves_the_anchors() -> None:
    azimuths = orbit_azimuths(24)
    plan = plan_waves(azimuths, 31.0)
    assert azimuths[plan.back] == -150
    first = {azimuths[task.view]: task.sources for task in plan.waves[1]}
    assert first == {30: (REF,), 45: (REF,), 15: (REF,), -165: (plan.back,), -135: (plan.back,)}
    _check(plan, 24)


@pytest.mark.parametrize("seed", range(40))
@pytest.mark.parametrize("propagation", ["neighbour", "anchors"])
def test_any_azimuths_are_planned(seed, propagation) -> None:
    generator = np.random.default_rng(seed)
    count = int(generator.integers(1, 30))
    azimuths = generator.choice(np.arange(-179, 181), count, replace=False).tolist()
    reference = int(generator.integers(-180, 180))
    plan = plan_waves(azimuths, reference, propagation)
    _check(plan, len(azimuths))
    turns = [abs((a - reference + 180) % 360 - 180) for a in azimuths]
    assert turns[plan.back] == max(turns)
    if propagation == "neighbour":
        for wave in plan.waves[1:]:
            assert all(task.sources for task in wave)


def test_impossible_view_sets_are_refused() -> None:
    with pytest.raises(ValueError, match="no views"):
        plan_waves([])
    with pytest.raises(ValueError, match="same azimuth"):
        plan_waves([0.0, 90.0, 360.0])
