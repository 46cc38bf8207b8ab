"""How far a run is: counts, rates and use of the GPUs, for documents, metrics and displays."""

from __future__ import annotations

import threading
import time
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

_RECENT_SECONDS = 1800.0
_RECENT_ENDS = 8
"""A rate is told from the last half hour once so many portraits have ended in it."""
_ENDS_REMEMBERED = 4096


@dataclass(frozen=True)
class Crew:
    """Workers of one kind, for comparing what was achieved with what they could do."""

    stages: tuple[str, ...]
    size: int
    gpus: float
    """Share of one GPU each of them holds."""


@dataclass
class RunProgress:
    """Counts of one run. Thread-safe."""

    total: int
    """Portraits to be worked on in this run."""
    stages: Sequence[str]
    interval_s: float = 0.0
    """How often the progress document is written; a reader tells a dead run by it."""
    crews: tuple[Crew, ...] = ()
    """Workers as planned; empty where nobody has said."""
    done: Counter[str] = field(default_factory=Counter)
    """Portraits through each stage."""
    seconds: Counter[str] = field(default_factory=Counter)
    """Seconds spent in each stage, by this run only."""
    worked: Counter[str] = field(default_factory=Counter)
    """Portraits each stage was really done for, not reused."""
    running: dict[tuple[str, str], tuple[float, str]] = field(default_factory=dict)
    """By (avatar, stage): fraction done and text."""
    started: dict[tuple[str, str], float] = field(default_factory=dict)
    """By (avatar, stage): seconds since the epoch."""
    ended: dict[str, str] = field(default_factory=dict)
    """Status by avatar."""
    failures: Counter[str] = field(default_factory=Counter)
    began: float = field(default_factory=time.time)
    _ends: deque[float] = field(default_factory=lambda: deque(maxlen=_ENDS_REMEMBERED), repr=False)
    _lock: Any = field(default_factory=threading.Lock, repr=False)

    def stage_event(self, avatar_id: str, stage: str, event: str, number: float, text: str) -> None:
        """Take in a worker's report; see ``pipeline.portrait.Report``."""
        key = (avatar_id, stage)
        with self._lock:
            if event == "started":
                self.running[key] = (0.0, text)
                self.started[key] = time.time()
            elif event == "progress":
                if key in self.running:
                    self.running[key] = (number, text)
            else:
                self.running.pop(key, None)
                self.started.pop(key, None)
                if event == "done":
                    self.seconds[stage] += number
                    self.worked[stage] += 1
                if event in ("done", "reused"):
                    self.done[stage] += 1

    def portrait_ended(self, avatar_id: str, status: str, error_type: str | None) -> None:
        """Note a portrait's end, once."""
        with self._lock:
            if avatar_id in self.ended:
                return
            self.ended[avatar_id] = status
            self._ends.append(time.time())
            if error_type:
                self.failures[error_type] += 1
            for key in [key for key in self.running if key[0] == avatar_id]:
                self.running.pop(key)
                self.started.pop(key, None)

    def running_since(self, avatar_id: str) -> float | None:
        """When the portrait's stage at work began (seconds since the epoch), None if none is."""
        with self._lock:
            return next((t for (owner, _), t in self.started.items() if owner == avatar_id), None)

    def at_work(self) -> dict[tuple[str, str], tuple[float, str]]:
        """By (avatar, stage) under way: fraction done and text."""
        with self._lock:
            return dict(self.running)

    def count(self, status: str) -> int:
        """Portraits that ended with ``status``."""
        return sum(1 for ended in self.ended.values() if ended == status)

    def snapshot(self) -> dict[str, Any]:
        """Plain values for the progress document."""
        with self._lock:
            now = time.time()
            elapsed = now - self.began
            rate = len(self.ended) / elapsed if elapsed > 0 else 0.0
            recent = self._recent_rate(now) or rate
            left = self.total - len(self.ended)
            in_flight = Counter(stage for _, stage in self.running)
            ideal = self._ideal_rate()
            return {
                "total": self.total,
                "ended": len(self.ended),
                "succeeded": self.count("succeeded"),
                "failed": self.count("failed"),
                "failures": dict(self.failures),
                "elapsed_s": round(elapsed, 1),
                "interval_s": self.interval_s,
                "portraits_per_hour": round(rate * 3600, 2),
                "recent_portraits_per_hour": round(recent * 3600, 2),
                "ideal_portraits_per_hour": round(ideal * 3600, 2) if ideal else None,
                "achieved_of_ideal": round(rate / ideal, 3) if ideal else None,
                "remaining_s": round(left / recent, 1) if recent > 0 else None,
                "gpu_hours": round(sum(self._gpu_hours(s) for s in self.stages), 4),
                "stages": {
                    stage: {
                        "done": self.done[stage],
                        "in_flight": in_flight[stage],
                        "seconds_mean": round(self._mean(stage), 3) if self.worked[stage] else None,
                        "gpu_hours": round(self._gpu_hours(stage), 4),
                    }
                    for stage in self.stages
                },
            }

    def _mean(self, stage: str) -> float:
        return self.seconds[stage] / self.worked[stage]

    def _recent_rate(self, now: float) -> float | None:
        """Ends per second lately, None where there were too few to tell."""
        recent = [moment for moment in self._ends if now - moment < _RECENT_SECONDS]
        if len(recent) < _RECENT_ENDS:
            return None
        return (len(recent) - 1) / max(now - recent[0], 1e-9)

    def _gpu_hours(self, stage: str) -> float:
        """GPU share times time, of finished work only."""
        share = next((crew.gpus for crew in self.crews if stage in crew.stages), 0.0)
        return share * self.seconds[stage] / 3600

    def _ideal_rate(self) -> float | None:
        """Portraits per second if no worker of the slowest crew ever waited."""
        rates = []
        for crew in self.crews:
            if not all(self.worked[stage] for stage in crew.stages):
                return None
            seconds = sum(self._mean(stage) for stage in crew.stages)
            if seconds > 0:
                rates.append(crew.size / seconds)
        return min(rates, default=None)
