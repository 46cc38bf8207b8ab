"""The rows of a manifest: which portraits the runs named, with which of their tables' columns.

A row is a portrait's address, counted where a table names it more than once. Runs lie over each
other: the newest one that has brought a portrait to an end gives its outcome and its table's
columns.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fc4d_ray.store.plans import avatar_plans
from fc4d_ray.store.runs import OWN_PREFIX, RunDocument

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

COLUMNS_DIGEST = OWN_PREFIX + "columns_digest"
RENAMED_PREFIX = "input_"
"""A user's column that is named like one of ours is kept under this prefix."""


@dataclass(frozen=True)
class InputTable:
    """Rows of one or more runs, placed among the manifest's rows."""

    table: pa.Table
    numbers: np.ndarray
    """Manifest row of each row, int64."""

    def own(self, name: str) -> pa.Array:
        """One of our columns in one piece."""
        return self.table[OWN_PREFIX + name].combine_chunks()


def place_rows(tables: Sequence[pa.Table]) -> tuple[list[InputTable], int]:
    """Number the rows of several input tables; equal addresses share a number.

    Returns the placed tables and how many manifest rows there are, in order of first appearance.
    """
    import numpy as np
    import pyarrow as pa

    uris = [table[OWN_PREFIX + "source_uri"].cast(pa.string()) for table in tables]
    chunks = [chunk for column in uris for chunk in column.chunks]
    codes = pa.chunked_array(chunks, pa.string()).combine_chunks()
    codes = codes.dictionary_encode().indices.to_numpy().astype(np.int64)
    sizes = [table.num_rows for table in tables]
    split = np.split(codes, np.cumsum(sizes)[:-1])
    repeats = [_occurrences(part) for part in split]
    most = max((int(part.max(initial=0)) for part in repeats), default=0) + 1
    keys = np.concatenate([part * most + again for part, again in zip(split, repeats, strict=True)])
    _, first, inverse = np.unique(keys, return_index=True, return_inverse=True)
    numbers = np.empty(len(first), np.int64)
    numbers[np.argsort(first)] = np.arange(len(first))
    placed = np.split(numbers[inverse], np.cumsum(sizes)[:-1])
    return [InputTable(*pair) for pair in zip(tables, placed, strict=True)], len(first)


def _occurrences(codes: np.ndarray) -> np.ndarray:
    """How often each value has come before."""
    import numpy as np

    order = np.argsort(codes, kind="stable")
    ordered = codes[order]
    starts = np.flatnonzero(np.append(True, np.diff(ordered) != 0)[: len(ordered)])
    counts = np.diff(np.append(starts, len(ordered)))
    occurrences = np.empty(len(codes), np.int64)
    occurrences[order] = np.arange(len(codes)) - np.repeat(starts, counts)
    return occurrences


@dataclass
class Overlay:
    """For every manifest row the table, position and outcome that count so far; -1 = none yet."""

    table: np.ndarray
    position: np.ndarray
    outcome: np.ndarray

    @classmethod
    def empty(cls, rows: int) -> Overlay:
        """Nothing known of any row."""
        import numpy as np

        return cls(*(np.full(rows, -1, np.int64) for _ in range(3)))

    def put(self, number: int, placed: InputTable, outcomes: np.ndarray) -> None:
        """Lay table ``number`` over what is there; -1 in ``outcomes`` stands for no end yet."""
        import numpy as np

        known = np.flatnonzero(outcomes >= 0)
        rows = placed.numbers[known]
        self.table[rows] = number
        self.position[rows] = known
        self.outcome[rows] = outcomes[known]


def unreadable_outcomes(placed: InputTable, run: RunDocument) -> tuple[np.ndarray, pa.Table]:
    """Rows whose source could not be read: their positions, and outcomes for them."""
    import datetime

    import numpy as np
    import pyarrow as pa

    positions = np.flatnonzero(placed.own("avatar_id").is_null().to_numpy(zero_copy_only=False))
    errors = placed.table.take(pa.array(positions))
    count = len(positions)
    started = datetime.datetime.fromisoformat(run.started_at)
    outcomes = {
        "status": pa.array(["failed"] * count, pa.string()),
        "failed_stage": pa.array([run.stages[0]] * count, pa.string()),
        "error_type": errors[OWN_PREFIX + "error_type"],
        "error_message": errors[OWN_PREFIX + "error_message"],
        "config_digest": pa.array([run.config_digest] * count, pa.string()),
        "created_at": pa.array([started] * count, pa.timestamp("ms", tz="UTC")),
    }
    return positions, pa.table(outcomes)


def plans_of(placed: InputTable, plan_base: str) -> pa.StringArray:
    """Plan digest of every row, null where there is no avatar id.

    A run works on each avatar once, with the columns of its first row: rows that repeat it have
    that row's plan, whatever columns they bring.
    """
    import numpy as np
    import pyarrow as pa

    ids, digests = placed.own("avatar_id"), columns_digests(placed.table)
    plans = pa.array(avatar_plans(plan_base, ids.to_pylist(), digests), pa.string())
    codes = ids.dictionary_encode().indices.fill_null(-1).to_numpy(zero_copy_only=False)
    _, first, inverse = np.unique(codes, return_index=True, return_inverse=True)
    return plans.take(pa.array(first[inverse]))


def columns_digests(table: pa.Table) -> list[str | None] | None:
    """Digests of the rows' own columns; None for a table of rows from before they counted."""
    return table[COLUMNS_DIGEST].to_pylist() if COLUMNS_DIGEST in table.column_names else None


def user_columns(table: pa.Table) -> list[str]:
    """Names of the columns the user's own tables brought."""
    return [name for name in table.column_names if not name.startswith(OWN_PREFIX)]


def gather(
    tables: Sequence[pa.Table], names: Sequence[str], which: np.ndarray, where: np.ndarray
) -> pa.Table:
    """Columns put together from several tables.

    Row i comes from row ``where[i]`` of table ``which[i]``; null where that is -1 or the table has
    no such column.
    """
    import numpy as np
    import pyarrow as pa

    gathered: dict[str, Any] = {}
    for name in names:
        offsets = np.full(len(tables) + 1, -1, np.int64)  # the last one stands for table -1
        columns, length = [], 0
        for number, table in enumerate(tables):
            if name in table.column_names:
                offsets[number] = length
                columns.append(table[name])
                length += table.num_rows
        start = offsets[which]
        indices = pa.array(np.where(start < 0, -1, start + where), mask=start < 0)
        gathered[name] = _joined(columns).take(indices)
    return pa.table(gathered)


def _joined(columns: list[pa.ChunkedArray]) -> pa.ChunkedArray:
    """Columns one after another; where their types disagree, as text."""
    import pyarrow as pa

    tables = [pa.table({"column": column}) for column in columns]
    try:
        return pa.concat_tables(tables, promote_options="permissive")["column"]
    except pa.ArrowException:
        return pa.chunked_array([_as_text(column) for column in columns], pa.string())


def _as_text(column: pa.ChunkedArray) -> pa.Array:
    import pyarrow as pa

    text = [None if value is None else str(value) for value in column.to_pylist()]
    return pa.array(text, pa.string())


def append_user_columns(own: pa.Table, users: pa.Table) -> pa.Table:
    """Put the users' columns behind ours, renamed where a name is taken."""
    taken = set(own.column_names)
    for name in users.column_names:
        unique = name
        while unique in taken:
            unique = RENAMED_PREFIX + unique
        taken.add(unique)
        own = own.append_column(unique, users[name])
    return own
