"""The manifest: one row per portrait, derived from the records and rebuildable at any time.

``part-00000.parquet`` is replaced as a whole when a run ends, so a plain reader of the folder
always sees every portrait exactly once. While a run goes on, ``_current.parquet`` holds what is
known so far; plain readers skip it, ``read_manifest`` prefers it.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

from fc4d_ray.store import layout
from fc4d_ray.store.filesystem import Storage
from fc4d_ray.store.location import open_output
from fc4d_ray.store.manifest_rows import (
    InputTable,
    Overlay,
    append_user_columns,
    gather,
    place_rows,
    plans_of,
    unreadable_outcomes,
    user_columns,
)
from fc4d_ray.store.manifest_schema import STAGES, manifest_schema
from fc4d_ray.store.outcomes import OutcomeTable, addresses
from fc4d_ray.store.parquet import table_from_bytes, table_to_bytes
from fc4d_ray.store.record_index import RecordIndex, survey
from fc4d_ray.store.runs import RunBook, RunDocument

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

_KEPT_BY_DUPLICATES = (
    "avatar_id",
    "source_uri",
    "avatar_uri",
    "config_digest",
    "plan_digest",
    "created_at",
)
"""What the row of a repeated portrait shows of its avatar."""


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


class ManifestCommitter:
    """Derives and publishes the manifest; one per output at a time."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._outcomes = OutcomeTable(storage)
        self._index: RecordIndex | None = None
        self._inputs: dict[str, pa.Table] = {}

    @property
    def outcomes(self) -> OutcomeTable:
        """What the records say, as far as it has been looked at."""
        return self._outcomes

    def update(self, only: Collection[str] | None = None) -> pa.Table:
        """Publish what is known while a run goes on; ``only`` these avatars have news."""
        table = self.derive(only, write=True)
        self._storage.replace(layout.CURRENT_MANIFEST_FILE, table_to_bytes(table))
        return table

    def finish(self) -> pa.Table:
        """Publish the manifest for good."""
        table = self.derive(write=True)
        self._outcomes.merge()
        self._storage.replace(layout.MANIFEST_FILE, table_to_bytes(table))
        self._storage.remove(layout.CURRENT_MANIFEST_FILE)
        return table

    def rebuild(self) -> pa.Table:
        """``finish`` with every record read anew."""
        self._outcomes.forget()
        return self.finish()

    def derive(self, only: Collection[str] | None = None, *, write: bool = False) -> pa.Table:
        """The manifest as the runs' documents and the avatars' records tell it.

        ``only`` limits the look at the storage to these avatars, after a first look at all.
        ``write`` keeps what was read of the records on the storage. A row that the newest run has
        not finished shows its last known end, so that an interrupted run with another
        configuration hides nothing.
        """
        self._look(only, write)
        runs = RunBook(self._storage).all()
        stages = tuple(dict.fromkeys(stage for run in runs for stage in run.stages)) or STAGES
        schema = manifest_schema(stages)
        if not runs:
            return schema.empty_table()
        return self._table(runs, schema)

    def _look(self, only: Collection[str] | None, write: bool) -> None:
        if only is None or self._index is None:
            self._index = survey(self._storage).newest()
            self._outcomes.learn(self._index, write=write)
            return
        news = survey(self._storage, sorted(only))
        self._outcomes.learn(news.newest(), write=write)
        self._index = RecordIndex.concatenate([self._index, news]).newest()

    def _table(self, runs: Sequence[RunDocument], schema: pa.Schema) -> pa.Table:
        import numpy as np
        import pyarrow as pa

        paths = list(dict.fromkeys(run.inputs_path for run in runs))
        tables, total = place_rows([self._read_inputs(path) for path in paths])
        placed = dict(zip(paths, tables, strict=True))
        overlay = Overlay.empty(total)
        outcomes = [self._outcomes.table]
        count = self._outcomes.table.num_rows
        for run in _last_of_equals(runs):
            inputs = placed[run.inputs_path]
            found = self._ends_of(plans_of(inputs, run.plan_base))
            positions, unread = unreadable_outcomes(inputs, run)
            found[positions] = count + np.arange(len(positions))
            outcomes.append(unread)
            count += unread.num_rows
            overlay.put(paths.index(run.inputs_path), inputs, found)
        rows = np.flatnonzero(overlay.outcome >= 0)
        identity = _identity(tables, overlay, rows)
        everything = pa.concat_tables(outcomes, promote_options="default")
        ends = everything.take(pa.array(overlay.outcome[rows]))
        sources = [each.table for each in tables]
        names = list(dict.fromkeys(name for table in sources for name in user_columns(table)))
        users = gather(sources, names, overlay.table[rows], overlay.position[rows])
        own = _own_columns(identity, ends, schema, self._storage)
        return append_user_columns(own, users)

    def _ends_of(self, plans: pa.StringArray) -> np.ndarray:
        """Row in the table of outcomes of each plan's newest end, -1 where there is none."""
        import numpy as np
        import pyarrow.compute as pc

        assert self._index is not None
        places = self._outcomes.find(self._index.plans, self._index.ranks)
        in_index = pc.index_in(plans, value_set=self._index.plans)
        found = pc.fill_null(places.take(in_index), -1)
        return found.to_numpy(zero_copy_only=False).astype(np.int64)

    def _read_inputs(self, path: str) -> pa.Table:
        if path not in self._inputs:
            self._inputs[path] = RunBook(self._storage).read_inputs(path)
        return self._inputs[path]


def _last_of_equals(runs: Sequence[RunDocument]) -> list[RunDocument]:
    """Runs with the same rows and the same plan say the same; the last of them is enough."""
    last = {(run.inputs_path, run.plan_base): run for run in runs}
    return [run for run in runs if last[run.inputs_path, run.plan_base] is run]


def _identity(tables: Sequence[InputTable], overlay: Overlay, rows: np.ndarray) -> pa.Table:
    """Avatar id and address of the rows, from the tables that gave their outcomes."""
    import numpy as np
    import pyarrow as pa

    starts = np.cumsum([0, *(placed.table.num_rows for placed in tables)])
    places = pa.array(starts[overlay.table[rows]] + overlay.position[rows])
    columns = {}
    for name in ("avatar_id", "source_uri"):
        pieces = [placed.own(name).cast(pa.string()) for placed in tables]
        columns[name] = pa.concat_arrays(pieces).take(places)
    return pa.table(columns)


def _own_columns(
    identity: pa.Table, ends: pa.Table, schema: pa.Schema, storage: Storage
) -> pa.Table:
    """Our columns in the schema's order; a repeated avatar points to its first row."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    ids = identity["avatar_id"].combine_chunks()
    codes = ids.dictionary_encode().indices
    filled = pc.fill_null(codes, -1).to_numpy(zero_copy_only=False)
    _, first, inverse = np.unique(filled, return_index=True, return_inverse=True)
    original = np.where(filled < 0, np.arange(len(filled)), first[inverse])
    is_repeated = pa.array(original != np.arange(len(filled)))
    ends = ends.take(pa.array(original))
    found = {name: ends[name] for name in ends.column_names} | {
        "avatar_id": ids,
        "source_uri": identity["source_uri"],
        "avatar_uri": addresses(storage, ends["avatar_path"]),
        "trace_uri": addresses(storage, ends["trace_path"]),
        "status": pc.if_else(is_repeated, "duplicate", ends["status"]),
        "duplicate_of": pc.if_else(is_repeated, ids, pa.scalar(None, pa.string())),
    }
    columns = []
    for field in schema:
        column = found.get(field.name)
        if column is None:
            column = pa.nulls(len(filled), field.type)
        elif field.name not in (*_KEPT_BY_DUPLICATES, "status", "duplicate_of"):
            column = pc.if_else(is_repeated, pa.scalar(None, field.type), column)
        columns.append(column)
    return pa.table(columns, schema=schema)
