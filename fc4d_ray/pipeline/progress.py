"""How far a run is: counts for documents and displays, a bar per stage or plain lines."""

from __future__ import annotations

import sys
import threading
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TextIO

_CHATTY_PORTRAITS = 20
"""Up to this many portraits every finished stage gets a line of its own."""
_SUMMARY_SECONDS = 30.0
_ID_CHARACTERS = 8


@dataclass
class RunProgress:
    """Counts of one run. Thread-safe."""

    total: int
    """Portraits to be worked on in this run."""
    stages: Sequence[str]
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
    _lock: Any = field(default_factory=threading.Lock, repr=False)

    def stage_event(self, avatar_id: str, stage: str, event: str, number: float, text: str) -> None:
        """Take in a worker's report; see ``pipeline.worker.Report``."""
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
            if error_type:
                self.failures[error_type] += 1
            for key in [key for key in self.running if key[0] == avatar_id]:
                self.running.pop(key)
                self.started.pop(key, None)

    def running_since(self, avatar_id: str) -> float | None:
        """When the portrait's stage at work began (seconds since the epoch), None if none is."""
        with self._lock:
            return next((t for (owner, _), t in self.started.items() if owner == avatar_id), None)

    def count(self, status: str) -> int:
        """Portraits that ended with ``status``."""
        return sum(1 for ended in self.ended.values() if ended == status)

    def snapshot(self) -> dict[str, Any]:
        """Plain values for the progress document."""
        with self._lock:
            elapsed = time.time() - self.began
            rate = len(self.ended) / elapsed if elapsed > 0 else 0.0
            left = self.total - len(self.ended)
            in_flight = Counter(stage for _, stage in self.running)
            return {
                "total": self.total,
                "ended": len(self.ended),
                "succeeded": self.count("succeeded"),
                "failed": self.count("failed"),
                "failures": dict(self.failures),
                "elapsed_s": round(elapsed, 1),
                "portraits_per_hour": round(rate * 3600, 2),
                "remaining_s": round(left / rate, 1) if rate > 0 else None,
                "stages": {
                    stage: {
                        "done": self.done[stage],
                        "in_flight": in_flight[stage],
                        "seconds_mean": round(self.seconds[stage] / self.worked[stage], 3)
                        if self.worked[stage]
                        else None,
                    }
                    for stage in self.stages
                },
            }


class Display(Protocol):
    """Something that shows progress to a person."""

    def stage_event(self, avatar_id: str, stage: str, event: str, number: float, text: str) -> None:
        """A worker's report."""

    def portrait_ended(self, avatar_id: str, status: str, text: str) -> None:
        """A portrait's end."""

    def tick(self) -> None:
        """Called several times a second."""

    def close(self) -> None:
        """The run is over."""


class LineDisplay:
    """Plain lines, for logs."""

    def __init__(self, progress: RunProgress, stream: TextIO | None = None) -> None:
        self._progress = progress
        self._stream = stream or sys.stderr
        self._chatty = progress.total <= _CHATTY_PORTRAITS
        self._last_summary = time.monotonic()

    def stage_event(self, avatar_id: str, stage: str, event: str, number: float, text: str) -> None:
        if not self._chatty or event in ("progress", "failed"):
            return
        seconds = f" in {number:.1f} s" if event == "done" else ""
        self._line(f"{avatar_id[:_ID_CHARACTERS]} {stage} {event}{seconds}")

    def portrait_ended(self, avatar_id: str, status: str, text: str) -> None:
        ended = len(self._progress.ended)
        reason = f": {text}" if text else ""
        self._line(
            f"{avatar_id[:_ID_CHARACTERS]} {status} ({ended} of {self._progress.total}){reason}"
        )

    def tick(self) -> None:
        if time.monotonic() - self._last_summary < _SUMMARY_SECONDS:
            return
        self._last_summary = time.monotonic()
        state = self._progress.snapshot()
        stages = ", ".join(
            f"{name} {s['done']}" + (f"+{s['in_flight']}" if s["in_flight"] else "")
            for name, s in state["stages"].items()
        )
        self._line(f"{state['ended']} of {state['total']} portraits ended; {stages}")

    def close(self) -> None:
        """Nothing to tidy up."""

    def _line(self, text: str) -> None:
        self._stream.write(f"{time.strftime('%H:%M:%S')} {text}\n")
        self._stream.flush()


class BarDisplay:
    """A bar per stage, on a terminal."""

    def __init__(self, progress: RunProgress) -> None:
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            TextColumn,
            TimeElapsedColumn,
        )

        self._state = progress
        self._console = Console(stderr=True)
        self._bars = Progress(
            TextColumn("{task.description:>8}"),
            BarColumn(bar_width=32),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("[dim]{task.fields[note]}"),
            console=self._console,
        )
        self._tasks = {
            stage: self._bars.add_task(stage, total=progress.total, note="", start=False)
            for stage in progress.stages
        }
        self._bars.start()

    def stage_event(self, avatar_id: str, stage: str, event: str, number: float, text: str) -> None:
        if event == "started" and stage in self._tasks:
            self._bars.start_task(self._tasks[stage])

    def portrait_ended(self, avatar_id: str, status: str, text: str) -> None:
        if status == "failed":
            from rich.markup import escape

            self._bars.console.print(
                f"[red]{avatar_id[:_ID_CHARACTERS]} failed[/]: {escape(text)}", highlight=False
            )

    def tick(self) -> None:
        with self._state._lock:
            running = dict(self._state.running)
        for stage, task in self._tasks.items():
            here = [value for (_, name), value in running.items() if name == stage]
            done = self._state.done[stage]
            note = here[0][1] if len(here) == 1 else (f"{len(here)} at work" if here else "")
            self._bars.update(
                task, completed=done + sum(fraction for fraction, _ in here), note=note[:40]
            )
            if done >= self._state.total:
                self._bars.stop_task(task)

    def close(self) -> None:
        """Leave the bars as they are and give the terminal back."""
        self.tick()
        self._bars.stop()


def make_display(progress: RunProgress) -> Display:
    """Bars on a terminal, lines elsewhere."""
    return BarDisplay(progress) if sys.stderr.isatty() else LineDisplay(progress)
