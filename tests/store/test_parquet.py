from __future__ import annotations

import pyarrow as pa
import pyarrow.parquet as pq

from fc4d_ray.store.parquet import table_from_bytes, table_to_bytes


def _table(rows: int) -> pa.Table:
    return pa.table(
        {
            "id": [f"{number:032x}" for number in range(rows)],
            "status": ["succeeded", "failed"] * (rows // 2),
            "seconds": [number / 7 for number in range(rows)],
            "warnings": pa.array([[], ["dark"]] * (rows // 2), pa.list_(pa.string())),
            "nothing": pa.nulls(rows, pa.string()),
        }
    )


def test_tables_come_back_as_they_went_and_equal_ones_are_equal_bytes() -> None:
    table = _table(3000)
    data = table_to_bytes(table)
    assert table_from_bytes(data).equals(table)
    assert table_to_bytes(_table(3000)) == data
    empty = table.slice(0, 0)
    assert table_from_bytes(table_to_bytes(empty)).equals(empty)


def test_only_values_that_repeat_get_a_dictionary() -> None:
    group = pq.ParquetFile(pa.BufferReader(table_to_bytes(_table(3000)))).metadata.row_group(0)
    has_dictionary = {
        group.column(number).path_in_schema: group.column(number).has_dictionary_page
        for number in range(group.num_columns)
    }
    assert has_dictionary["status"] and not has_dictionary["id"]
    assert not has_dictionary["seconds"]
