"""The manifest: one row per portrait, derived from the records and rebuildable at any time.

``part-00000.parquet`` is replaced as a whole when a run ends, so a plain reader of the folder
always sees every portrait exactly once. While a run goes on, ``_current.parquet`` holds what is
known so far; plain readers skip it, ``read_manifest`` prefers it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any

from fc4d_ray.store import layout
from fc4d_ray.store.filesystem import Storage
from fc4d_ray.store.location import open_output
from fc4d_ray.store.parquet import table_from_bytes, table_to_bytes
from fc4d_ray.store.plans import avatar_plan
from fc4d_ray.store.records import AvatarRecord, FailureRecord, RecordBook
from fc4d_ray.store.runs import RunBook, RunDocument

if TYPE_CHECKING:
    import pyarrow as pa

MANIFEST_SCHEMA_VERSION = 1
OWN_PREFIX = "fc4d:"
RENAMED_PREFIX = "input_"
"""A user's column that is named like one of ours is kept under this prefix."""
STAGES = ("ingest", "shape", "image", "video", "track", "train", "publish")
QUALITY_COLUMNS = (
    "id_distance_0",
    "id_distance_30",
    "id_distance_45",
    "silhouette_iou",
    "tracking_error",
)

_PARALLEL_READS = 16


def manifest_schema(stages: Sequence[str] = STAGES) -> pa.Schema:
    """Columns that every manifest has; the input tables' own follow them."""
    import pyarrow as pa

    text, number = pa.string(), pa.float64()
    fields = [
        pa.field("avatar_id", text),
        pa.field("source_uri", text, nullable=False),
        pa.field("status", text, nullable=False),
        pa.field("failed_stage", text),
        pa.field("error_type", text),
        pa.field("error_message", text),
        pa.field("trace_uri", text),
        pa.field("avatar_uri", text),
        pa.field("duplicate_of", text),
        pa.field("config_digest", text),
        pa.field("plan_digest", text),
        pa.field("n_splats", pa.int64()),
        *(pa.field(name, number) for name in QUALITY_COLUMNS),
        pa.field("seconds_total", number),
        *(pa.field(f"seconds_{stage}", number) for stage in stages),
        pa.field("warnings", pa.list_(text)),
        pa.field("created_at", pa.timestamp("ms", tz="UTC")),
    ]
    return pa.schema(fields, {b"fc4d.manifest_schema": str(MANIFEST_SCHEMA_VERSION).encode()})


def read_manifest(output: str | Storage) -> pa.Table:
    """The manifest of an output location, also while a run is writing it.

    Raises ``StoreError`` where there is no output of ours.
    """
    storage = output if isinstance(output, Storage) else open_output(output)
    for path in (layout.CURRENT_MANIFEST_FILE, layout.MANIFEST_FILE):
        try:
            return table_from_bytes(storage.read(path))
        except FileNotFoundError:
            continue
    return manifest_schema().empty_table()


@dataclass
class _Row:
    """A portrait of some run, with the newest outcome known."""

    inputs_path: str
    position: int
    """Row number in the table of inputs."""
    avatar_id: str | None
    source_uri: str
    outcome: Mapping[str, Any]


@dataclass
class ManifestCommitter:
    """Derives and publishes the manifest; one per output at a time."""

    storage: Storage
    _outcomes: dict[tuple[str, str], tuple[str, dict[str, Any]]] = field(default_factory=dict)
    """By (avatar, plan): name of the newest record seen, and the columns it gives."""
    _tables: dict[str, pa.Table] = field(default_factory=dict)

    def update(self, only: Collection[str] | None = None) -> pa.Table:
        """Publish what is known while a run goes on; ``only`` these avatars have news."""
        table = self.derive(only)
        self.storage.replace(layout.CURRENT_MANIFEST_FILE, table_to_bytes(table))
        return table

    def finish(self) -> pa.Table:
        """Publish the manifest for good."""
        table = self.derive()
        self.storage.replace(layout.MANIFEST_FILE, table_to_bytes(table))
        self.storage.remove(layout.CURRENT_MANIFEST_FILE)
        return table

    def derive(self, only: Collection[str] | None = None) -> pa.Table:
        """The manifest as the runs' documents and the avatars' records tell it.

        ``only`` limits the look at the storage to these avatars. A row that the newest run has not
        finished shows its last known end, so that an interrupted run with another configuration
        hides nothing.
        """
        rows: dict[tuple[str, int], _Row] = {}
        stages: dict[str, None] = {}
        for run in RunBook(self.storage).all():
            stages.update(dict.fromkeys(run.stages))
            self._overlay(rows, run, only)
        stage_names = tuple(stages) or STAGES
        schema = manifest_schema(stage_names)
        return self._table(list(rows.values()), schema)

    def _overlay(
        self,
        rows: dict[tuple[str, int], _Row],
        run: RunDocument,
        only: Collection[str] | None,
    ) -> None:
        """Put a run's outcomes over those of earlier runs."""
        inputs = self._inputs(run.inputs_path)
        columns = {name: inputs[OWN_PREFIX + name].to_pylist() for name in _INPUT_FIELDS}
        plans = {
            avatar_id: avatar_plan(run.plan_base, avatar_id)
            for avatar_id in columns["avatar_id"]
            if avatar_id is not None
        }
        self._learn(plans, only)
        occurrences: dict[str, int] = {}
        for position, source_uri in enumerate(columns["source_uri"]):
            occurrence = occurrences.get(source_uri, 0)
            occurrences[source_uri] = occurrence + 1
            avatar_id = columns["avatar_id"][position]
            if avatar_id is None:
                outcome = _unreadable(columns, position, run)
            else:
                _, outcome = self._known(avatar_id, plans[avatar_id])
            if outcome is not None:
                key = (source_uri, occurrence)
                rows[key] = _Row(run.inputs_path, position, avatar_id, source_uri, outcome)

    def _inputs(self, path: str) -> pa.Table:
        if path not in self._tables:
            self._tables[path] = RunBook(self.storage).read_inputs(path)
        return self._tables[path]

    def _learn(self, plans: Mapping[str, str], only: Collection[str] | None) -> None:
        """Read the records that have appeared since the last look."""
        book = RecordBook(self.storage)
        open_ids = [
            avatar_id
            for avatar_id, plan in plans.items()
            if (only is None or avatar_id in only)
            and self._known(avatar_id, plan)[0] != layout.record_name(plan)
        ]
        standings = book.standings(open_ids, parallel=_PARALLEL_READS)

        def read(avatar_id: str) -> None:
            plan = plans[avatar_id]
            name = standings[avatar_id].latest_record(plan)
            if name is None or name == self._known(avatar_id, plan)[0]:
                return
            record = book.read(avatar_id, name)
            if record is not None:
                outcome = _outcome(record, self.storage)
                self._outcomes[avatar_id, plan] = (name, outcome)

        with ThreadPoolExecutor(_PARALLEL_READS) as pool:
            list(pool.map(read, open_ids))

    def _known(self, avatar_id: str, plan: str) -> tuple[str | None, dict[str, Any] | None]:
        return self._outcomes.get((avatar_id, plan), (None, None))

    def _table(self, rows: list[_Row], schema: pa.Schema) -> pa.Table:
        import pyarrow as pa

        own = pa.Table.from_pylist(_with_duplicates(rows), schema)
        return _append_user_columns(own, self._user_table(rows))

    def _user_table(self, rows: list[_Row]) -> pa.Table:
        """The users' own columns of the rows, in the rows' order."""
        import pyarrow as pa

        places: dict[str, list[int]] = {}
        for number, row in enumerate(rows):
            places.setdefault(row.inputs_path, []).append(number)
        pieces = []
        for path, numbers in places.items():
            table = self._inputs(path)
            piece = table.take([rows[number].position for number in numbers])
            piece = piece.append_column(_NUMBER, pa.array(numbers, pa.int64()))
            pieces.append(piece.select([_NUMBER, *_users_names(piece)]))
        if not pieces:
            return pa.table({})
        table = _concatenate(pieces)
        numbers = table[_NUMBER].to_pylist()
        table = table.take(sorted(range(len(numbers)), key=numbers.__getitem__))
        return table.select(_users_names(table))


_NUMBER = OWN_PREFIX + "number"
_INPUT_FIELDS = ("source_uri", "avatar_id", "error_type", "error_message")


def _users_names(table: pa.Table) -> list[str]:
    return [name for name in table.column_names if not name.startswith(OWN_PREFIX)]


def _unreadable(
    columns: Mapping[str, list[Any]], position: int, run: RunDocument
) -> dict[str, Any]:
    return {
        "status": "failed",
        "failed_stage": run.stages[0],
        "error_type": columns["error_type"][position],
        "error_message": columns["error_message"][position],
        "config_digest": run.config_digest,
        "created_at": datetime.fromisoformat(run.started_at),
    }


def _outcome(record: AvatarRecord | FailureRecord, storage: Storage) -> dict[str, Any]:
    if isinstance(record, AvatarRecord):
        return _common(record) | {
            "status": "succeeded",
            "avatar_uri": storage.uri_of(record.avatar_path),
        }
    trace_uri = storage.uri_of(record.trace_path) if record.trace_path else None
    return _common(record) | {
        "status": "failed",
        "failed_stage": record.stage,
        "error_type": record.error_type,
        "error_message": record.error_message,
        "trace_uri": trace_uri,
    }


def _common(record: AvatarRecord | FailureRecord) -> dict[str, Any]:
    """Columns that finished and failed portraits share; later stages' facts win."""
    found: dict[str, Any] = {}
    warnings: list[str] = []
    for facts in record.facts.values():
        found.update({k: facts[k] for k in ("n_splats", *QUALITY_COLUMNS) if k in facts})
        warnings.extend(str(w) for w in facts.get("warnings") or [] if str(w) not in warnings)
    return found | {
        "config_digest": record.config_digest,
        "plan_digest": record.plan,
        "seconds_total": sum(record.seconds.values()),
        **{f"seconds_{stage}": seconds for stage, seconds in record.seconds.items()},
        "warnings": warnings,
        "created_at": datetime.fromisoformat(record.created_at),
    }


def _with_duplicates(rows: list[_Row]) -> list[dict[str, Any]]:
    """The rows' own columns; a repeated avatar points to its first row."""
    first: dict[str, _Row] = {}
    columns = []
    for row in rows:
        identity = {"avatar_id": row.avatar_id, "source_uri": row.source_uri}
        original = first.setdefault(row.avatar_id, row) if row.avatar_id else row
        if original is row:
            columns.append(dict(row.outcome) | identity)
            continue
        kept = ("avatar_uri", "config_digest", "plan_digest", "created_at")
        same = {name: original.outcome.get(name) for name in kept}
        columns.append(identity | same | {"status": "duplicate", "duplicate_of": row.avatar_id})
    return columns


def _append_user_columns(own: pa.Table, users: pa.Table) -> pa.Table:
    taken = set(own.column_names)
    for name in users.column_names:
        unique = name
        while unique in taken:
            unique = RENAMED_PREFIX + unique
        taken.add(unique)
        own = own.append_column(unique, users[name])
    return own


def _concatenate(pieces: list[pa.Table]) -> pa.Table:
    """Stack tables of several runs; columns whose types disagree become text."""
    import pyarrow as pa

    try:
        return pa.concat_tables(pieces, promote_options="permissive")
    except pa.ArrowException:
        types: dict[str, set[pa.DataType]] = {}
        for piece in pieces:
            for column in piece.schema:
                types.setdefault(column.name, set()).add(column.type)
        return pa.concat_tables(
            [_as_text(piece, {n for n, t in types.items() if len(t) > 1}) for piece in pieces],
            promote_options="permissive",
        )


def _as_text(table: pa.Table, names: set[str]) -> pa.Table:
    import pyarrow as pa

    for index, name in enumerate(table.column_names):
        if name in names:
            text = [None if value is None else str(value) for value in table[name].to_pylist()]
            table = table.set_column(index, name, pa.array(text, pa.string()))
    return table
