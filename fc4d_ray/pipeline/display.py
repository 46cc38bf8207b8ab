"""Showing a run's progress: bars on a terminal, plain lines or structured events in a log."""

from __future__ import annotations

import logging
import sys
import time
from typing import Protocol, TextIO

from fc4d_ray.logs import is_structured
from fc4d_ray.pipeline.progress import RunProgress

_CHATTY_PORTRAITS = 20
"""Up to this many portraits every finished stage gets a line of its own."""
_SUMMARY_SECONDS = 30.0
_ID_CHARACTERS = 8
_log = logging.getLogger(__name__)


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
        running = self._state.at_work()
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


class EventDisplay:
    """Structured log records, for machines that read logs."""

    def __init__(self, progress: RunProgress) -> None:
        self._progress = progress
        self._last_summary = time.monotonic()

    def stage_event(self, avatar_id: str, stage: str, event: str, number: float, text: str) -> None:
        if event == "progress":
            return
        extra = {"avatar_id": avatar_id, "stage": stage, "event": event}
        if event in ("done", "reused"):
            extra |= {"seconds": round(number, 3)}  # type: ignore[dict-item]
        _log.info("stage %s", event, extra=extra)

    def portrait_ended(self, avatar_id: str, status: str, text: str) -> None:
        level = logging.WARNING if status == "failed" else logging.INFO
        extra = {"avatar_id": avatar_id, "event": "ended", "status": status}
        _log.log(level, "portrait %s%s", status, f": {text}" if text else "", extra=extra)

    def tick(self) -> None:
        if time.monotonic() - self._last_summary >= _SUMMARY_SECONDS:
            self._last_summary = time.monotonic()
            self._tell()

    def close(self) -> None:
        """A last summary."""
        self._tell()

    def _tell(self) -> None:
        extra = {"event": "progress", "progress": self._progress.snapshot()}
        _log.info("progress", extra=extra)


def make_display(progress: RunProgress) -> Display:
    """Events where logs are structured, bars on a terminal, lines elsewhere."""
    if is_structured():
        return EventDisplay(progress)
    return BarDisplay(progress) if sys.stderr.isatty() else LineDisplay(progress)
