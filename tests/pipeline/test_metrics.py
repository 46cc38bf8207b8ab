"""The series a run exports; that they arrive is part of tests/jobs/test_generate.py."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from fc4d_ray.pipeline.metrics import RunMetrics
from fc4d_ray.pipeline.progress import Crew, RunProgress

DASHBOARD = Path(__file__).resolve().parents[2] / "cluster" / "grafana_dashboard.json"


def report(metrics: RunMetrics) -> None:
    """A small run: one portrait done, one failed in training."""
    progress = RunProgress(total=3, stages=("shape", "train"), crews=(Crew(("train",), 1, 0.5),))
    for avatar_id, event in (("a", "done"), ("b", "failed")):
        for stage, what in (("shape", "done"), ("train", event)):
            progress.stage_event(avatar_id, stage, "started", 0.0, "")
            progress.stage_event(avatar_id, stage, what, 7.0, "")
            metrics.stage_event(stage, what, 7.0)
    progress.portrait_ended("a", "succeeded", None)
    metrics.portrait_ended("succeeded", None)
    progress.portrait_ended("b", "failed", "TrainingDiverged")
    metrics.portrait_ended("failed", "TrainingDiverged")
    metrics.refresh(progress.snapshot())
    metrics.refresh(progress.snapshot())


def test_without_a_cluster_nothing_happens(monkeypatch: pytest.MonkeyPatch) -> None:
    import ray

    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    metrics = RunMetrics()
    report(metrics)
    assert metrics._series is None


def test_the_dashboard_shows_series_that_exist() -> None:
    source = Path("fc4d_ray/pipeline/metrics.py")
    text = (DASHBOARD.parents[1] / source).read_text()
    exported = {f"ray_{name}" for name in re.findall(r'"(fc4d_\w+)"', text)}
    dashboard = json.loads(DASHBOARD.read_text())
    queries = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    used = {name for query in queries for name in re.findall(r"ray_fc4d_\w+", query)}
    suffixes = ("_total", "_bucket", "_sum", "_count")
    base = {next((n.removesuffix(s) for s in suffixes if n.endswith(s)), n) for n in used}
    assert base == exported
    titles = [panel["title"] for panel in dashboard["panels"]]
    assert len(titles) == len(set(titles)) and all(titles)
