"""Documents of the runs made into one output: their rows, plan, progress and end."""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from fc4d_ray.store import layout
from fc4d_ray.store.digests import digest_bytes, readable_json
from fc4d_ray.store.filesystem import Storage
from fc4d_ray.store.parquet import table_from_bytes, table_to_bytes

if TYPE_CHECKING:
    import pyarrow as pa

OWN_PREFIX = "fc4d:"
"""Columns of a stored table of rows that are ours and not the user's."""


def utc_now() -> str:
    """Now, ISO 8601 in UTC with milliseconds."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def new_run_id() -> str:
    """Unique, and sorting by the time of its start."""
    return f"{datetime.now(UTC):%Y%m%dT%H%M%S%f}-{secrets.token_hex(3)}"


@dataclass(frozen=True)
class RunDocument:
    """What a run set out to do; written before it starts."""

    run_id: str
    started_at: str
    plan_base: str
    """Digest of config sections, weights and stage versions; see ``pipeline.plan``."""
    stages: tuple[str, ...]
    """Names of the stages, in order."""
    config_digest: str
    inputs_path: str
    """Table of the rows, relative to the output location."""
    rows: int
    runner: str
    host: str
    pid: int
    arguments: tuple[str, ...] = ()
    software: Mapping[str, str] = field(default_factory=dict)


class RunBook:
    """Reads and writes the runs' documents."""

    def __init__(self, storage: Storage) -> None:
        self.storage = storage

    def write_inputs(self, table: pa.Table) -> str:
        """Store the table of rows under its content's digest; returns its path."""
        data = table_to_bytes(table)
        path = layout.inputs(digest_bytes(data))
        self.storage.create(path, data)
        return path

    def read_inputs(self, path: str) -> pa.Table:
        """The table of rows stored at ``path``."""
        return table_from_bytes(self.storage.read(path))

    def earlier_inputs(self) -> Iterator[pa.Table]:
        """The different tables of rows stored so far, the newest run's first."""
        for path in dict.fromkeys(run.inputs_path for run in reversed(self.all())):
            yield self.read_inputs(path)

    def start(self, document: RunDocument) -> None:
        """Record that a run begins."""
        path = layout.run_file(document.run_id, "run.json")
        self.storage.create(path, readable_json(asdict(document)))

    def progress(self, run_id: str, state: Mapping[str, Any]) -> None:
        """Overwrite the run's progress document."""
        document = dict(state) | {"updated_at": utc_now()}
        self.storage.replace(layout.run_file(run_id, "progress.json"), readable_json(document))

    def end(self, run_id: str, summary: Mapping[str, Any]) -> None:
        """Record how a run ended."""
        document = dict(summary) | {"ended_at": utc_now()}
        self.storage.replace(layout.run_file(run_id, "end.json"), readable_json(document))

    def all(self) -> list[RunDocument]:
        """Every run started here, oldest first."""
        documents = (self._read(run_id, "run.json") for run_id in self.storage.names(layout.RUNS))
        return [
            RunDocument(**{**d, "stages": tuple(d["stages"]), "arguments": tuple(d["arguments"])})
            for d in documents
            if d is not None
        ]

    def read_progress(self, run_id: str) -> dict[str, Any] | None:
        """Latest progress document, None where none was written."""
        return self._read(run_id, "progress.json")

    def read_end(self, run_id: str) -> dict[str, Any] | None:
        """How the run ended, None while it runs or after its driver was killed."""
        return self._read(run_id, "end.json")

    def _read(self, run_id: str, name: str) -> dict[str, Any] | None:
        try:
            return self.storage.read_json(layout.run_file(run_id, name))
        except FileNotFoundError:
            return None
