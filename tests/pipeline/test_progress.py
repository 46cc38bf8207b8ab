"""Counts, rates and displays of a run, without a run."""

from __future__ import annotations

import io
import json
import logging

import pytest

from fc4d_ray.logs import configure_logging
from fc4d_ray.pipeline import progress as module
from fc4d_ray.pipeline.display import EventDisplay, LineDisplay, make_display
from fc4d_ray.pipeline.progress import Crew, RunProgress


class Clock:
    """Stands in for ``time`` in the module under test."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1_000_000.0
        monkeypatch.setattr(module.time, "time", lambda: self.now)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


def make(clock: Clock, total: int = 100) -> RunProgress:
    crews = (Crew(("shape", "image"), 2, 0.1), Crew(("train",), 4, 0.5))
    stages = ("shape", "image", "train")
    return RunProgress(total=total, stages=stages, crews=crews, began=clock.now)


def work(progress: RunProgress, number: int, **seconds: float) -> None:
    for stage, duration in seconds.items():
        progress.stage_event(f"id{number}", stage, "started", 0.0, "")
        progress.stage_event(f"id{number}", stage, "done", duration, "")
    progress.portrait_ended(f"id{number}", "succeeded", None)


def test_the_expected_end_follows_the_recent_rate(clock: Clock) -> None:
    progress = make(clock)
    for number in range(10):
        clock.now += 600
        work(progress, number, shape=10, image=20, train=100)
    slow = progress.snapshot()
    assert slow["portraits_per_hour"] == 6 and slow["remaining_s"] == pytest.approx(54_000)
    for number in range(10, 40):
        clock.now += 60
        work(progress, number, shape=10, image=20, train=100)
    fast = progress.snapshot()
    assert fast["recent_portraits_per_hour"] == pytest.approx(60, rel=0.1)
    assert fast["remaining_s"] == pytest.approx(3600, rel=0.1)
    assert fast["portraits_per_hour"] < 20


def test_gpu_hours_and_the_ideal_follow_from_the_crews(clock: Clock) -> None:
    progress = make(clock)
    clock.now += 3600
    for number in range(36):
        work(progress, number, shape=10, image=20, train=200)
    state = progress.snapshot()
    assert state["stages"]["train"]["gpu_hours"] == pytest.approx(36 * 200 * 0.5 / 3600)
    assert state["gpu_hours"] == pytest.approx(36 * (200 * 0.5 + 30 * 0.1) / 3600)
    # 2 workers of 30 s give 240 an hour, 4 of 200 s give 72: the trainings decide.
    assert state["ideal_portraits_per_hour"] == pytest.approx(72)
    assert state["achieved_of_ideal"] == pytest.approx(0.5)


def test_reused_work_is_progress_but_no_time(clock: Clock) -> None:
    progress = make(clock, total=1)
    progress.stage_event("a", "shape", "reused", 50.0, "")
    state = progress.snapshot()
    assert state["stages"]["shape"] == {
        "done": 1,
        "in_flight": 0,
        "seconds_mean": None,
        "gpu_hours": 0.0,
    }
    assert state["ideal_portraits_per_hour"] is None and state["remaining_s"] is None


def test_an_end_counts_once_and_clears_what_was_under_way(clock: Clock) -> None:
    progress = make(clock)
    progress.stage_event("a", "train", "started", 0.0, "")
    assert progress.at_work() == {("a", "train"): (0.0, "")}
    for _ in range(2):
        progress.portrait_ended("a", "failed", "PoisonInput")
    state = progress.snapshot()
    assert (state["failed"], state["failures"], state["ended"]) == (1, {"PoisonInput": 1}, 1)
    assert progress.at_work() == {} and progress.running_since("a") is None


@pytest.fixture
def structured() -> io.StringIO:
    configure_logging(form="json")
    stream = io.StringIO()
    logging.getLogger("fc4d_ray").handlers[0].setStream(stream)  # type: ignore[attr-defined]
    return stream


def test_structured_logs_name_avatar_and_stage(clock: Clock, structured: io.StringIO) -> None:
    progress = make(clock)
    display = make_display(progress)
    assert isinstance(display, EventDisplay)
    display.stage_event("id1", "train", "started", 0.0, "")
    display.stage_event("id1", "train", "progress", 0.5, "")
    display.stage_event("id1", "train", "done", 12.5, "")
    display.portrait_ended("id1", "failed", 'a "quoted"\nreason')
    display.close()
    records = [json.loads(line) for line in structured.getvalue().splitlines()]
    keys = ("event", "avatar_id", "stage", "seconds", "level")
    assert [tuple(record.get(key) for key in keys) for record in records] == [
        ("started", "id1", "train", None, "info"),
        ("done", "id1", "train", 12.5, "info"),
        ("ended", "id1", None, None, "warning"),
        ("progress", None, None, None, "info"),
    ]
    assert records[2]["message"].endswith('a "quoted"\nreason')
    assert records[3]["progress"]["total"] == 100


def test_lines_for_people_where_logs_are_plain(clock: Clock) -> None:
    stream = io.StringIO()
    progress = make(clock, total=2)
    display = LineDisplay(progress, stream)
    display.stage_event("abcdefghij", "train", "done", 2.0, "")
    progress.portrait_ended("abcdefghij", "failed", "NoFaceFound")
    display.portrait_ended("abcdefghij", "failed", "NoFaceFound in ingest: none")
    text = stream.getvalue()
    assert "abcdefgh train done in 2.0 s" in text and "failed (1 of 2): NoFaceFound" in text
