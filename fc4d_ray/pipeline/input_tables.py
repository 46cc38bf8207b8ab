"""CSV and Parquet tables of portraits: a ``uri`` column, and whatever else their owner keeps."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import IO, TYPE_CHECKING

from fc4d_ray.errors import ConfigError
from fc4d_ray.store.runs import OWN_PREFIX

if TYPE_CHECKING:
    import pyarrow as pa

TABLE_SUFFIXES = frozenset((".csv", ".parquet", ".pq"))

_BATCH_ROWS = 65536


def is_table(argument: str) -> bool:
    """Whether the argument's name says that it is a table."""
    return os.path.splitext(argument)[1].lower() in TABLE_SUFFIXES


def read_table(argument: str) -> pa.Table:
    """The user's columns and ``fc4d:source_uri``; rows are never turned into objects all at once.

    Raises ``ConfigError`` for a table that cannot be read or has no usable ``uri`` column.
    """
    import fsspec
    import pyarrow as pa

    try:
        with fsspec.open(argument, "rb") as file:
            table = _read_csv(file) if argument.lower().endswith(".csv") else _read_parquet(file)
    except (OSError, pa.ArrowException) as error:
        raise ConfigError(f"cannot read the input table {argument}: {error}") from error
    _check(table, argument)
    places = _Places(argument)
    uris = [
        pa.array([places.resolve(str(uri or "")) for uri in chunk.to_pylist()], pa.string())
        for chunk in _pieces(table["uri"])
    ]
    table = table.replace_schema_metadata(None)
    return table.append_column(OWN_PREFIX + "source_uri", pa.chunked_array(uris, pa.string()))


def _check(table: pa.Table, argument: str) -> None:
    if "uri" not in table.column_names:
        raise ConfigError(
            f"the input table {argument} has no column 'uri' "
            f"(it has: {', '.join(table.column_names) or 'none'})"
        )
    reserved = [name for name in table.column_names if name.startswith(OWN_PREFIX)]
    if reserved or len(set(table.column_names)) != table.num_columns:
        raise ConfigError(f"the input table {argument} has reserved or repeated column names")


def _pieces(column: pa.ChunkedArray) -> Iterator[pa.ChunkedArray]:
    for start in range(0, len(column), _BATCH_ROWS):
        yield column.slice(start, _BATCH_ROWS)


def _read_parquet(file: IO[bytes]) -> pa.Table:
    """Row group after row group; without threads, for the reason ``table_from_bytes`` gives."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    parquet = pq.ParquetFile(file, pre_buffer=False)
    batches = parquet.iter_batches(_BATCH_ROWS, use_threads=False)
    return pa.Table.from_batches(batches, parquet.schema_arrow)


def _read_csv(file: IO[bytes]) -> pa.Table:
    """The whole text at once, so that a column's type follows from all of its values."""
    from pyarrow import csv

    return csv.read_csv(file, csv.ReadOptions(use_threads=False))


class _Places:
    """Where a table's relative paths start: at the table; those that do not exist there, here."""

    def __init__(self, table: str) -> None:
        self._prefix = table.rsplit("/", 1)[0] if "://" in table else None
        self._beside = os.path.dirname(os.path.abspath(os.path.expanduser(table)))
        self._here = os.getcwd()

    def resolve(self, uri: str) -> str:
        if not uri or uri[0] == "/":
            return uri
        if "://" in uri or os.path.isabs(uri):
            return uri.removeprefix("file://")
        if self._prefix is not None:
            return f"{self._prefix}/{uri}"
        beside = os.path.join(self._beside, uri)
        if os.path.exists(beside):
            return beside
        here = os.path.join(self._here, uri)
        return here if os.path.exists(here) else beside
