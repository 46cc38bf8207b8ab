"""A run's metrics for Prometheus, exported by Ray as ``ray_fc4d_*``.

The driver makes all of them from the workers' reports, so that a series has one source. Tags are
stages, states and error types, never ids. Without a Ray cluster in this process nothing happens.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

STAGE_SECONDS_BOUNDARIES = (1, 5, 15, 60, 180, 600, 1800, 3600, 7200, 14400)


class RunMetrics:
    """Counters, gauges and histograms of one run."""

    def __init__(self) -> None:
        self._series: _Series | None = None
        self._gpu_hours: dict[str, float] = {}

    def stage_event(self, stage: str, event: str, number: float) -> None:
        """Count a stage's end: ``done``, ``reused`` or ``failed``."""
        series = self._ready()
        if series is None or event not in ("done", "reused", "failed"):
            return
        series.stage_ends.inc(tags={"stage": stage, "status": event})
        if event == "done":
            series.stage_seconds.observe(max(number, 1e-6), tags={"stage": stage})

    def portrait_ended(self, status: str, error_type: str | None) -> None:
        """Count a portrait's end."""
        series = self._ready()
        if series is not None:
            tags = {"status": status, "error_type": error_type or ""}
            series.portrait_ends.inc(tags=tags)

    def refresh(self, snapshot: Mapping[str, Any]) -> None:
        """Set the gauges from a progress snapshot."""
        series = self._ready()
        if series is None:
            return
        for state in ("total", "ended", "succeeded", "failed"):
            series.portraits.set(snapshot[state], tags={"state": state})
        for name, stage in snapshot["stages"].items():
            series.in_flight.set(stage["in_flight"], tags={"stage": name})
            spent = stage["gpu_hours"] - self._gpu_hours.get(name, 0.0)
            if spent > 0:
                series.gpu_seconds.inc(3600 * spent, tags={"stage": name})
                self._gpu_hours[name] = stage["gpu_hours"]
        series.rate.set(snapshot["recent_portraits_per_hour"])
        if snapshot["remaining_s"] is not None:
            series.remaining.set(snapshot["remaining_s"])
        if snapshot["achieved_of_ideal"] is not None:
            series.efficiency.set(snapshot["achieved_of_ideal"])

    def _ready(self) -> _Series | None:
        ray = sys.modules.get("ray")
        if self._series is None and ray is not None and ray.is_initialized():
            self._series = _Series()
        return self._series


class _Series:
    """The series themselves; can be made in a process of a Ray cluster only."""

    def __init__(self) -> None:
        from ray.util.metrics import Counter, Gauge, Histogram

        self.stage_ends = Counter(
            "fc4d_stage_ends", "Stages that came to an end.", tag_keys=("stage", "status")
        )
        self.stage_seconds = Histogram(
            "fc4d_stage_seconds",
            "Time of one stage on one portrait.",
            boundaries=list(STAGE_SECONDS_BOUNDARIES),
            tag_keys=("stage",),
        )
        self.gpu_seconds = Counter(
            "fc4d_gpu_seconds", "GPU share times time, of finished stages.", tag_keys=("stage",)
        )
        self.portrait_ends = Counter(
            "fc4d_portrait_ends", "Portraits that ended.", tag_keys=("status", "error_type")
        )
        self.portraits = Gauge("fc4d_portraits", "Portraits of the run.", tag_keys=("state",))
        self.in_flight = Gauge(
            "fc4d_stage_in_flight", "Portraits a stage is at work on.", tag_keys=("stage",)
        )
        self.rate = Gauge("fc4d_portraits_per_hour", "Ended lately, per hour.")
        self.remaining = Gauge("fc4d_remaining_seconds", "Expected until the end of the run.")
        self.efficiency = Gauge(
            "fc4d_achieved_of_ideal", "Throughput, of what the slowest workers could do."
        )
