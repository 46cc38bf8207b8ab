"""Where an output stands, told from storage alone, also while another process works on it."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from typing import TYPE_CHECKING, Any

from fc4d_ray.errors import ConfigError
from fc4d_ray.pipeline.backlog import find_backlog
from fc4d_ray.pipeline.inputs import Inputs
from fc4d_ray.store.filesystem import Storage
from fc4d_ray.store.location import open_output
from fc4d_ray.store.manifest import ManifestCommitter
from fc4d_ray.store.records import FailureRecord, RecordBook
from fc4d_ray.store.runs import RunBook, RunDocument, utc_now

if TYPE_CHECKING:
    import pyarrow as pa

_SILENT_AFTER = 6.0
"""A run without a sign of life for this many update intervals is taken for dead."""
_SILENT_AT_LEAST_S = 60.0
_PARALLEL_RETRIES = 16


def read_status(output: str) -> dict[str, Any]:
    """Counts, failures by reason, and the newest run with its progress.

    Raises ``StoreError`` where there is no output of ours.
    """
    storage = open_output(output)
    runs = RunBook(storage)
    documents = runs.all()
    manifest = ManifestCommitter(storage).derive()
    statuses = _counts(manifest["status"])
    status: dict[str, Any] = {
        "output": storage.uri,
        "portraits": manifest.num_rows,
        "succeeded": statuses.get("succeeded", 0),
        "failed": statuses.get("failed", 0),
        "duplicates": statuses.get("duplicate", 0),
        "failures": _counts(manifest["error_type"].drop_null()),
        "pending": 0,
        "runs": len(documents),
        "latest_run": None,
    }
    if not documents:
        return status
    latest = documents[-1]
    inputs = Inputs(runs.read_inputs(latest.inputs_path))
    status["pending"] = len(find_backlog(storage, inputs, latest.plan_base).left)
    end = runs.read_end(latest.run_id)
    progress = runs.read_progress(latest.run_id)
    status["latest_run"] = {
        "run_id": latest.run_id,
        "started_at": latest.started_at,
        "rows": latest.rows,
        "runner": latest.runner,
        "host": latest.host,
        "stages": list(latest.stages),
        "config_digest": latest.config_digest,
        "state": run_state(latest, progress, end),
        "silent_s": None if end else round(_age_s(_last_sign(latest, progress)), 1),
        "end": end,
        "progress": progress,
    }
    return status


def _counts(values: pa.ChunkedArray) -> dict[str, int]:
    return {entry["values"]: entry["counts"] for entry in values.value_counts().to_pylist()}


def run_state(run: RunDocument, progress: dict[str, Any] | None, end: dict[str, Any] | None) -> str:
    """``running``, ``silent`` (dead without a word), ``failed``, ``interrupted`` or ``ended``.

    Clocks of different machines are compared here; they should agree to some seconds.
    """
    if end is not None:
        if "error" in end:
            return "failed"
        return "interrupted" if end.get("interrupted") else "ended"
    interval = float((progress or {}).get("interval_s") or 0.0)
    patience = max(_SILENT_AT_LEAST_S, _SILENT_AFTER * interval)
    return "running" if _age_s(_last_sign(run, progress)) < patience else "silent"


def _last_sign(run: RunDocument, progress: dict[str, Any] | None) -> str:
    return str((progress or {}).get("updated_at") or run.started_at)


def _age_s(moment: str) -> float:
    return (datetime.fromisoformat(utc_now()) - datetime.fromisoformat(moment)).total_seconds()


def running_runs(storage: Storage) -> list[str]:
    """Ids of the runs that seem to be at work on an output."""
    book = RunBook(storage)
    return [
        run.run_id
        for run in book.all()
        if run_state(run, book.read_progress(run.run_id), book.read_end(run.run_id)) == "running"
    ]


def retry_failed(output: str, *, stage: str | None = None, error: str | None = None) -> int:
    """Open a new attempt generation for the newest run's failed portraits; returns how many.

    ``stage`` and ``error`` limit it to failures in a stage or of an error type. Raises
    ``ConfigError`` where that run has no such stage.
    """
    storage = open_output(output)
    documents = RunBook(storage).all()
    if not documents:
        return 0
    latest = documents[-1]
    if stage is not None and stage not in latest.stages:
        raise ConfigError(f"--stage must be one of {', '.join(latest.stages)}, found {stage!r}")
    inputs = Inputs(RunBook(storage).read_inputs(latest.inputs_path))
    failed = find_backlog(storage, inputs, latest.plan_base).chosen("failed")
    book = RecordBook(storage)

    def open_again(which: tuple[str, str]) -> bool:
        avatar_id, plan = which
        if stage is not None or error is not None:
            name = book.standing(avatar_id).latest_record(plan) or ""
            failure = book.read(avatar_id, name)
            if not isinstance(failure, FailureRecord):
                return False
            if stage not in (None, failure.stage) or error not in (None, failure.error_type):
                return False
        book.open_retry(avatar_id)
        return True

    return sum(_side_by_side(open_again, failed))


def _side_by_side(work: Any, items: list[tuple[str, str]]) -> Iterator[bool]:
    with ThreadPoolExecutor(_PARALLEL_RETRIES) as pool:
        yield from pool.map(work, items)
