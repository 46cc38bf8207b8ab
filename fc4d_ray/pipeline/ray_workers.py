"""What runs inside Ray's processes: the front actor, the training task, the progress board."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from fc4d_ray.errors import DevicePoisoned, FC4DError, StoreError
from fc4d_ray.logs import configure_from_environment
from fc4d_ray.pipeline.deadline import leave_process
from fc4d_ray.pipeline.other_runs import other_runs
from fc4d_ray.pipeline.plan import Plan
from fc4d_ray.pipeline.portrait import Outcome, Portrait, Report
from fc4d_ray.pipeline.resources import limit_threads
from fc4d_ray.pipeline.worker import StageWorker
from fc4d_ray.store.filesystem import Storage
from fc4d_ray.store.ledger import ProcessIdentity, Witness
from fc4d_ray.store.transient import is_transient

ROW = "outcome"
"""The one column of the front's rows: an ``Outcome`` as JSON."""

_PROGRESS_SECONDS = 1.0


@dataclass(frozen=True)
class WorkerSpec:
    """What a worker process needs to start; travels to it once."""

    run_id: str
    storage: Storage
    plan: Plan
    stage_names: tuple[str, ...]
    threads: int
    board: Any
    """Handle of the run's ``ProgressBoard``."""

    def make(self) -> StageWorker:
        """The worker, in the process it will work in."""
        import ray

        limit_threads(self.threads)
        configure_from_environment()
        node_id = ray.get_runtime_context().get_node_id()
        identity = ProcessIdentity(run_id=self.run_id, node_id=node_id, pid=os.getpid())
        witness = Witness(identity, _node_is_alive, other_runs(self.storage))
        return StageWorker(
            self.storage, self.plan, self.stage_names, witness, _reporter(self.board)
        )


def _node_is_alive(node_id: str) -> bool:
    import ray

    return any(node["NodeID"] == node_id and node["Alive"] for node in ray.nodes())


def _reporter(board: Any) -> Report:
    """Sends events to the board, of mere progress one per second."""
    last_progress = 0.0

    def report(avatar_id: str, stage: str, event: str, number: float, text: str) -> None:
        nonlocal last_progress
        if event == "progress":
            now = time.monotonic()
            if now - last_progress < _PROGRESS_SECONDS:
                return
            last_progress = now
        board.report.remote(avatar_id, stage, event, number, text)

    return report


class ProgressBoard:
    """Actor that collects the workers' reports for the driver, and tells them to come to an end."""

    def __init__(self) -> None:
        self._events: list[tuple[str, str, str, float, str]] = []
        self._draining: set[int] = set()

    def report(self, *event: Any) -> None:
        """Take in one event; see ``pipeline.portrait.Report``."""
        self._events.append(event)  # type: ignore[arg-type]

    def collect(self) -> Sequence[tuple[str, str, str, float, str]]:
        """Events since the last call."""
        events, self._events = self._events, []
        return events

    def drain(self, job: int) -> None:
        """Let a front job begin no further portraits."""
        self._draining.add(job)

    def is_draining(self, job: int) -> bool:
        """Whether the job may begin no further portraits."""
        return job in self._draining


class FrontActor:
    """Class for ``Dataset.map``: one row in, one row out; only rows under way are worked on.

    ``drains``: number of the front job, for its first group only, which asks before it begins.
    """

    def __init__(self, spec: WorkerSpec, drains: int | None = None) -> None:
        self._worker = spec.make()
        self._board = spec.board
        self._drains = drains
        self._start_cpu_s = time.process_time()

    def __call__(self, row: dict[str, str]) -> dict[str, str]:
        outcome = Outcome.from_text(row[ROW])
        if outcome.status != "running":
            return row
        if self._is_draining():
            return {ROW: replace(outcome, status="returned").to_text()}
        done = work_or_abort(self._worker, outcome.portrait)
        start, self._start_cpu_s = self._start_cpu_s, 0.0
        done = replace(
            done,
            own_cpu_s=done.own_cpu_s + outcome.own_cpu_s,
            start_cpu_s=start + outcome.start_cpu_s,
        )
        return {ROW: done.to_text()}

    def _is_draining(self) -> bool:
        import ray

        if self._drains is None:
            return False
        try:
            return ray.get(self._board.is_draining.remote(self._drains), timeout=10)
        except ray.exceptions.RayError:
            return False  # the board is only a convenience


def train(spec: WorkerSpec, portrait: Portrait) -> Outcome:
    """Remote function of one training, which starts with nothing in memory."""
    start_cpu_s = time.process_time()
    worker = spec.make()
    try:
        return replace(work_or_abort(worker, portrait), start_cpu_s=start_cpu_s)
    finally:
        worker.close()


def work_or_abort(worker: StageWorker, portrait: Portrait) -> Outcome:
    """Errors that concern more than the portrait travel as an outcome and keep their type.

    A process whose device is poisoned ends itself; whoever started it starts another one.
    """
    try:
        return worker.work(portrait)
    except DevicePoisoned:
        leave_process()
        raise
    except Exception as error:
        ours = isinstance(error, FC4DError)
        passes = isinstance(error, StoreError) and is_transient(error)
        return Outcome(
            portrait,
            "postponed" if passes else "aborted",
            error_type=type(error).__name__ if ours else "RunError",
            error_message=str(error) if ours else f"{type(error).__name__}: {error}",
        )
