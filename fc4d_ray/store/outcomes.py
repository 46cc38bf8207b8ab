"""What the records say, kept as columns, so that no record is opened twice.

``outcomes/part-*.parquet`` are derived from the avatars' records: appended while a run goes on,
merged into one when it ends. Nothing is lost with them; whatever they lack is read from the
records again. Rows are identified by (plan, rank), see ``record_index``.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from itertools import islice
from typing import TYPE_CHECKING, Any

from fc4d_ray.errors import StoreError
from fc4d_ray.store import layout
from fc4d_ray.store.filesystem import Storage
from fc4d_ray.store.manifest_schema import QUALITY_COLUMNS
from fc4d_ray.store.parquet import table_from_bytes, table_to_bytes
from fc4d_ray.store.record_index import RecordIndex, record_name
from fc4d_ray.store.records import AvatarRecord, FailureRecord, RecordBook

if TYPE_CHECKING:
    import pyarrow as pa

_PARALLEL_READS = 32
_WINDOW = 4096
_LISTING_TRIES = 10
_PARTS_AT_MOST = 64


def outcome_schema() -> pa.Schema:
    """Columns every table of outcomes has; ``seconds_<stage>`` columns follow."""
    import pyarrow as pa

    text, number = pa.string(), pa.float64()
    return pa.schema(
        [
            pa.field("plan_digest", text),
            pa.field("rank", pa.int64()),
            pa.field("avatar_id", text),
            pa.field("source_uri", text),
            pa.field("status", text),
            pa.field("failed_stage", text),
            pa.field("error_type", text),
            pa.field("error_message", text),
            pa.field("trace_path", text),
            pa.field("avatar_path", text),
            pa.field("config_digest", text),
            pa.field("n_splats", pa.int64()),
            *(pa.field(name, number) for name in QUALITY_COLUMNS),
            pa.field("seconds_total", number),
            pa.field("warnings", pa.list_(text)),
            pa.field("created_at", pa.timestamp("ms", tz="UTC")),
        ]
    )


class OutcomeTable:
    """The outcomes of one output location, in memory and on storage."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._parts: tuple[str, ...] = ()
        """Names the table was read from or written to."""
        self._table: pa.Table | None = None

    @property
    def table(self) -> pa.Table:
        """All outcomes known; read on first use."""
        if self._table is None:
            self._load()
        assert self._table is not None
        return self._table

    def learn(self, index: RecordIndex, *, write: bool = True) -> pa.Table:
        """Read the records of the index that are not known yet; returns the new outcomes.

        ``write`` appends them to the storage as a part of their own.
        """
        is_missing = self.find(index.plans, index.ranks).is_null()
        columns = (index.avatar_ids, index.plans, index.ranks)
        rows = zip(*(column.filter(is_missing).to_pylist() for column in columns), strict=True)
        missing = [(avatar_id, record_name(plan, rank), rank) for avatar_id, plan, rank in rows]
        pieces = [_to_table(rows) for rows in _windows(self._read(missing))]
        news = _stack([outcome_schema().empty_table(), *pieces])
        if news.num_rows:
            self._table = _stack([self.table, news])
            if write:
                self.append(news)
        return news

    def append(self, news: pa.Table) -> None:
        """Write outcomes as a part of their own; many parts become one."""
        self._parts = (*self._parts, self._write_part(news))
        if len(self._parts) >= _PARTS_AT_MOST:
            self.merge()

    def find(self, plans: pa.StringArray, ranks: pa.Int64Array) -> pa.Int32Array:
        """Row of each (plan, rank) in ``table``, null where it is not known."""
        import pyarrow.compute as pc

        table = self.table
        return pc.index_in(_identities(plans, ranks), value_set=identities(table))

    def merge(self) -> None:
        """Replace the parts on storage by one. Safe at any point, also with a second writer."""
        table = self.table
        if len(self._parts) < 2:
            return
        merged = self._write_part(table)
        for name in self._parts:
            self._storage.remove(f"{layout.OUTCOMES}/{name}")
        self._parts = (merged,)

    def forget(self) -> None:
        """Drop what is known, in memory and on storage."""
        self._storage.remove(layout.OUTCOMES)
        self._parts, self._table = (), outcome_schema().empty_table()

    def _load(self) -> None:
        """Read all parts; another process may merge them meanwhile."""
        import pyarrow as pa

        for _ in range(_LISTING_TRIES):
            names = tuple(n for n in self._storage.names(layout.OUTCOMES) if n.startswith("part-"))
            try:
                pieces = [
                    table_from_bytes(self._storage.read(f"{layout.OUTCOMES}/{name}"))
                    for name in names
                ]
            except FileNotFoundError:
                continue
            except pa.ArrowException as error:
                raise StoreError(
                    f"{self._storage.uri_of(layout.OUTCOMES)} is damaged: {error}; "
                    f"fc4d manifest rebuild {self._storage.uri} makes it anew"
                ) from error
            self._parts = names
            self._table = _without_repetitions(_stack([outcome_schema().empty_table(), *pieces]))
            return
        raise StoreError(f"{self._storage.uri_of(layout.OUTCOMES)} changes too fast to be read")

    def _write_part(self, table: pa.Table) -> str:
        name = f"part-{time.time_ns():020d}-{secrets.token_hex(4)}.parquet"
        self._storage.create(f"{layout.OUTCOMES}/{name}", table_to_bytes(table))
        return name

    def _read(self, missing: list[tuple[str, str, int]]) -> Iterator[dict[str, Any]]:
        book = RecordBook(self._storage)

        def read(entry: tuple[str, str, int]) -> dict[str, Any] | None:
            avatar_id, name, rank = entry
            record = book.read(avatar_id, name)
            return None if record is None else _outcome(record, rank)

        if self._storage.is_local:
            found: Iterable[dict[str, Any] | None] = map(read, missing)
            yield from (row for row in found if row is not None)
            return
        with ThreadPoolExecutor(_PARALLEL_READS) as pool:
            for start in range(0, len(missing), _WINDOW):
                window = pool.map(read, missing[start : start + _WINDOW])
                yield from (row for row in window if row is not None)


def identities(outcomes: pa.Table) -> pa.StringArray:
    """What tells each outcome from every other."""
    return _identities(outcomes["plan_digest"].combine_chunks(), outcomes["rank"].combine_chunks())


def addresses(storage: Storage, paths: pa.ChunkedArray) -> pa.ChunkedArray:
    """Absolute addresses of paths below the output, null for null."""
    import pyarrow.compute as pc

    prefix = storage.uri_of("-").removesuffix("-")
    return pc.binary_join_element_wise(prefix, paths, "")


def _identities(plans: pa.StringArray, ranks: pa.Int64Array) -> pa.StringArray:
    import pyarrow as pa
    import pyarrow.compute as pc

    return pc.binary_join_element_wise(plans, ranks.cast(pa.string()), "-")


def _windows(rows: Iterator[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    while window := list(islice(rows, _WINDOW)):
        yield window


def _to_table(rows: list[dict[str, Any]]) -> pa.Table:
    import pyarrow as pa

    schema = outcome_schema()
    seconds = sorted({name for row in rows for name in row} - set(schema.names))
    return pa.Table.from_pylist(
        rows, pa.schema([*schema, *(pa.field(name, pa.float64()) for name in seconds)])
    )


def _stack(pieces: list[pa.Table]) -> pa.Table:
    import pyarrow as pa

    return pa.concat_tables(pieces, promote_options="default").combine_chunks()


def _without_repetitions(table: pa.Table) -> pa.Table:
    """A killed merge leaves rows in the old parts and in the new one."""
    import numpy as np
    import pyarrow as pa

    if not table.num_rows:
        return table
    codes = identities(table).dictionary_encode().indices.to_numpy()
    _, first = np.unique(codes, return_index=True)
    return table if len(first) == len(codes) else table.take(pa.array(np.sort(first)))


def _outcome(record: AvatarRecord | FailureRecord, rank: int) -> dict[str, Any]:
    """A record's columns; later stages' facts win."""
    facts: dict[str, Any] = {}
    warnings: list[str] = []
    for stage_facts in record.facts.values():
        facts.update(
            {k: stage_facts[k] for k in ("n_splats", *QUALITY_COLUMNS) if k in stage_facts}
        )
        warnings += [str(w) for w in stage_facts.get("warnings") or [] if str(w) not in warnings]
    return (
        facts
        | _end(record)
        | {
            "plan_digest": record.plan,
            "rank": rank,
            "avatar_id": record.avatar_id,
            "source_uri": record.source_uri,
            "config_digest": record.config_digest,
            "seconds_total": float(sum(record.seconds.values())),
            **{f"seconds_{stage}": float(value) for stage, value in record.seconds.items()},
            "warnings": warnings,
            "created_at": datetime.fromisoformat(record.created_at),
        }
    )


def _end(record: AvatarRecord | FailureRecord) -> Mapping[str, Any]:
    if isinstance(record, AvatarRecord):
        return {"status": "succeeded", "avatar_path": record.avatar_path}
    return {
        "status": "failed",
        "failed_stage": record.stage,
        "error_type": record.error_type,
        "error_message": record.error_message,
        "trace_path": record.trace_path,
    }
