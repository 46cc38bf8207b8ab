"""What runs inside Ray's processes: the front actor, the training task, the progress board."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from fc4d_ray.errors import FC4DError
from fc4d_ray.pipeline.plan import Plan
from fc4d_ray.pipeline.resources import limit_threads
from fc4d_ray.pipeline.worker import Outcome, Portrait, Report, StageWorker
from fc4d_ray.store.filesystem import Storage
from fc4d_ray.store.ledger import ProcessIdentity, Witness

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
        node_id = ray.get_runtime_context().get_node_id()
        identity = ProcessIdentity(run_id=self.run_id, node_id=node_id, pid=os.getpid())
        witness = Witness(identity, node_is_alive=_node_is_alive)
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
    """Actor that collects the workers' reports for the driver."""

    def __init__(self) -> None:
        self._events: list[tuple[str, str, str, float, str]] = []

    def report(self, *event: Any) -> None:
        """Take in one event; see ``pipeline.worker.Report``."""
        self._events.append(event)  # type: ignore[arg-type]

    def drain(self) -> Sequence[tuple[str, str, str, float, str]]:
        """Events since the last call."""
        events, self._events = self._events, []
        return events


class FrontActor:
    """Class for ``Dataset.map``: one row in, one row out, failed rows untouched."""

    def __init__(self, spec: WorkerSpec) -> None:
        self._worker = spec.make()

    def __call__(self, row: dict[str, str]) -> dict[str, str]:
        outcome = Outcome.from_text(row[ROW])
        if outcome.status == "running":
            outcome = work_or_abort(self._worker, outcome.portrait)
        return {ROW: outcome.to_text()}


def train(spec: WorkerSpec, portrait: Portrait) -> Outcome:
    """Remote function of one training, which starts with nothing in memory."""
    worker = spec.make()
    try:
        return work_or_abort(worker, portrait)
    finally:
        worker.close()


def work_or_abort(worker: StageWorker, portrait: Portrait) -> Outcome:
    """Errors that concern the whole run travel as an outcome, so that they keep their type."""
    try:
        return worker.work(portrait)
    except FC4DError as error:
        return Outcome(
            portrait, "aborted", error_type=type(error).__name__, error_message=str(error)
        )
