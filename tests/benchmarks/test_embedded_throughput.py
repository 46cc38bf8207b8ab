"""The sums behind the throughput table, and one small run."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
if str(BENCHMARKS) not in sys.path:
    sys.path.append(str(BENCHMARKS))

from embedded_throughput import (  # noqa: E402
    RunFigures,
    StageWork,
    measure,
    most_at_once,
    table,
)


def test_work_that_touches_does_not_overlap() -> None:
    work = [StageWork(0.0, 10.0, 9.0), StageWork(10.0, 5.0, 5.0), StageWork(2.0, 4.0, 4.0)]
    assert most_at_once(work) == 2
    assert most_at_once(work[:2]) == 1


def figures(runner: str, seconds: float, workers: int) -> RunFigures:
    return RunFigures(
        runner=runner,
        portraits=10,
        succeeded=10,
        seconds=seconds,
        cpu_seconds=1100,
        stage_seconds=1000,
        stage_cpu_seconds=1000,
        workers=workers,
        start_seconds=5,
        peak_memory_gb=1.5,
    )


def test_what_is_lost_is_what_the_workers_did_not_do() -> None:
    alone, together = figures("local", 1050, 1), figures("ray", 540, 2)
    assert alone.lost_seconds == 50 and together.lost_seconds == 40
    assert together.own_cpu_per_portrait == 10
    assert "1.94 times" in table([alone, together])


def test_a_run_is_measured_by_its_records(
    portraits: Callable[..., Path], fake_config: Path, tmp_path: Path
) -> None:
    paths = [str(path) for path in portraits(ann="ann", eve="eve fail:train").iterdir()]
    found = measure("local", paths, tmp_path, str(fake_config), ["train.seconds=1.5"])
    assert (found.portraits, found.succeeded, found.workers) == (2, 1, 1)
    assert 1.5 <= found.stage_seconds < found.seconds
    assert 0 < found.start_seconds < found.seconds and found.lost_seconds > 0
    assert found.peak_memory_gb == pytest.approx(0.1, abs=0.09)
