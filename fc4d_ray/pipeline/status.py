"""Where an output stands, told from storage alone, also while another process works on it."""

from __future__ import annotations

from collections import Counter
from typing import Any

from fc4d_ray.pipeline.inputs import Inputs
from fc4d_ray.store.location import open_output
from fc4d_ray.store.manifest import ManifestCommitter
from fc4d_ray.store.plans import avatar_plan
from fc4d_ray.store.records import RecordBook
from fc4d_ray.store.runs import RunBook


def read_status(output: str) -> dict[str, Any]:
    """Counts, failures by reason, and the newest run with its progress.

    Raises ``StoreError`` where there is no output of ours.
    """
    storage = open_output(output)
    runs = RunBook(storage)
    documents = runs.all()
    manifest = ManifestCommitter(storage).derive()
    statuses = Counter(manifest["status"].to_pylist())
    failures = Counter(
        error
        for status, error in zip(
            manifest["status"].to_pylist(), manifest["error_type"].to_pylist(), strict=True
        )
        if status == "failed"
    )
    status: dict[str, Any] = {
        "output": storage.uri,
        "portraits": manifest.num_rows,
        "succeeded": statuses["succeeded"],
        "failed": statuses["failed"],
        "duplicates": statuses["duplicate"],
        "failures": dict(failures),
        "pending": 0,
        "runs": len(documents),
        "latest_run": None,
    }
    if not documents:
        return status
    latest = documents[-1]
    end = runs.read_end(latest.run_id)
    rows = Inputs(runs.read_inputs(latest.inputs_path)).first_rows()
    standings = RecordBook(storage).standings([str(row.avatar_id) for row in rows])
    status["pending"] = sum(
        standings[str(row.avatar_id)].status(avatar_plan(latest.plan_base, str(row.avatar_id)))
        == "pending"
        for row in rows
    )
    status["latest_run"] = {
        "run_id": latest.run_id,
        "started_at": latest.started_at,
        "rows": latest.rows,
        "runner": latest.runner,
        "stages": list(latest.stages),
        "config_digest": latest.config_digest,
        "state": _state(end),
        "end": end,
        "progress": runs.read_progress(latest.run_id),
    }
    return status


def _state(end: dict[str, Any] | None) -> str:
    if end is None:
        return "running or killed"
    if "error" in end:
        return "failed"
    return "interrupted" if end.get("interrupted") else "ended"


def retry_failed(output: str, *, stage: str | None = None, error: str | None = None) -> int:
    """Open a new attempt generation for the newest run's failed portraits; returns how many.

    ``stage`` and ``error`` limit it to failures in a stage or of an error type.
    """
    storage = open_output(output)
    documents = RunBook(storage).all()
    if not documents:
        return 0
    book = RecordBook(storage)
    latest = documents[-1]
    opened = 0
    for row in Inputs(RunBook(storage).read_inputs(latest.inputs_path)).first_rows():
        avatar_id = str(row.avatar_id)
        plan = avatar_plan(latest.plan_base, avatar_id)
        standing = book.standing(avatar_id)
        if standing.status(plan) != "failed":
            continue
        failure: Any = book.read(avatar_id, standing.latest_record(plan) or "")
        if stage not in (None, failure.stage) or error not in (None, failure.error_type):
            continue
        book.open_retry(avatar_id)
        opened += 1
    return opened
