"""Tables to and from Parquet bytes."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pyarrow as pa

_SAMPLE = 1000
"""Rows that tell whether a column's values repeat."""


def table_from_bytes(data: bytes) -> pa.Table:
    """Read a table.

    Without threads, and not by ``pyarrow.parquet.read_table``, which starts some in any case: a
    process that ends soon after them aborts in a destructor about every third time (pyarrow 26).
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    return pq.ParquetFile(pa.BufferReader(data), pre_buffer=False).read(use_threads=False)


def table_to_bytes(table: pa.Table) -> bytes:
    """Write a table; equal tables give equal bytes."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd", use_dictionary=_repetitive_columns(table))
    return sink.getvalue().to_pybytes()


def _repetitive_columns(table: pa.Table) -> list[str]:
    """Text columns worth a dictionary. One of ids, each of them new, is half of the writing."""
    import pyarrow as pa
    import pyarrow.compute as pc

    sample = table.slice(0, _SAMPLE)
    return [
        name
        for name, column in zip(sample.column_names, sample.columns, strict=True)
        if pa.types.is_string(column.type)
        and 2 * pc.count_distinct(column, mode="all").as_py() <= sample.num_rows
    ]
