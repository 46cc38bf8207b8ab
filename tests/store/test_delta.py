"""The Delta table beside the manifest."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest

from fc4d_ray.errors import StoreError
from fc4d_ray.store.delta import DeltaSink
from fc4d_ray.store.filesystem import Storage
from fc4d_ray.store.outcomes import outcome_schema

deltalake = pytest.importorskip("deltalake", reason="deltalake is not installed (extra [delta])")


def outcomes(numbers: range, rank: int = 0, **more: object) -> pa.Table:
    rows = [
        {
            "plan_digest": f"{number:020x}",
            "rank": rank,
            "avatar_id": f"{number:032x}",
            "status": "failed",
            "avatar_path": f"avatars/{number}",
            "warnings": ["dark"],
        }
        | more
        for number in numbers
    ]
    extra = [pa.field(name, pa.float64()) for name in more]
    return pa.Table.from_pylist(rows, pa.schema([*outcome_schema(), *extra]))


@pytest.fixture
def sink(tmp_path: Path) -> Callable[[], DeltaSink]:
    return lambda: DeltaSink(str(tmp_path / "table"), Storage(str(tmp_path / "out")))


def test_every_end_arrives_once(sink: Callable[[], DeltaSink], tmp_path: Path) -> None:
    first = sink()
    assert first.catch_up(outcomes(range(3))) == 3
    assert first.catch_up(outcomes(range(5))) == 2
    assert sink().catch_up(outcomes(range(5))) == 0, "a new driver finds all of it there"
    assert sink().catch_up(outcomes(range(1), rank=1, seconds_train=2.0)) == 1, "a retry"
    table = deltalake.DeltaTable(tmp_path / "table").to_pyarrow_table()
    assert table.num_rows == 6
    assert sorted(table["avatar_uri"].to_pylist())[0] == f"{tmp_path}/out/avatars/0"
    assert sum(value is not None for value in table["seconds_train"].to_pylist()) == 1
    assert table["warnings"].to_pylist() == [["dark"]] * 6


def test_two_drivers_double_nothing(sink: Callable[[], DeltaSink], tmp_path: Path) -> None:
    barrier = threading.Barrier(3)
    errors: list[Exception] = []

    def drive() -> None:
        own = sink()
        barrier.wait()
        try:
            for stop in (2, 5, 9, 14):
                own.catch_up(outcomes(range(stop)))
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=drive) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    table = deltalake.DeltaTable(tmp_path / "table").to_pyarrow_table()
    assert sorted(table["avatar_id"].to_pylist()) == [f"{number:032x}" for number in range(14)]


def test_a_table_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    sink = DeltaSink(str(tmp_path / "file" / "table"), Storage(str(tmp_path / "out")))
    with pytest.raises(StoreError, match="cannot write the Delta table"):
        sink.catch_up(outcomes(range(1)))
