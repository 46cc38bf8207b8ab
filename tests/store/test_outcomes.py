"""Columns kept of the records, and the index of their names."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest

from fc4d_ray.errors import StoreError
from fc4d_ray.store import layout
from fc4d_ray.store.filesystem import Storage
from fc4d_ray.store.outcomes import OutcomeTable
from fc4d_ray.store.plans import avatar_plan, avatar_plans
from fc4d_ray.store.record_index import FINISHED, index_names, survey
from fc4d_ray.store.records import FailureRecord, RecordBook

PLANS = [f"{number:020x}" for number in range(4)]


def fail(storage: Storage, number: int, generation: int = 0) -> None:
    RecordBook(storage).write_failed(
        FailureRecord(
            avatar_id=f"{number:032x}",
            plan=f"{number:020x}",
            generation=generation,
            config_digest="c",
            source_uri=f"/{number}.png",
            stage="train",
            error_type="StageFailed",
            error_message=f"try {generation}",
            trace_path=None,
            created_at="2026-01-01T00:00:00.000+00:00",
            seconds={"shape": 1.5},
        )
    )


def test_names_alone_tell_the_standing() -> None:
    index = index_names(
        [
            ("a", [f"record-{PLANS[0]}.json", f"failed-{PLANS[0]}-0000.json", ".x.json.tmp"]),
            ("b", [f"failed-{PLANS[1]}-0000.json"]),
            ("c", [f"failed-{PLANS[2]}-0000.json", "retry-0001.json"]),
            ("d", [f"failed-{PLANS[3]}-0000.json", f"failed-{PLANS[3]}-0001.json"]),
        ]
    )
    ids = pa.array(["a", "b", "c", "d", "e"])
    plans = pa.array([*PLANS, "f" * 20])
    statuses = index.statuses(ids, plans).to_pylist()
    assert statuses == ["succeeded", "failed", "pending", "failed", "pending"]
    newest = index.newest()
    assert dict(zip(newest.plans.to_pylist(), newest.ranks.to_pylist(), strict=True)) == {
        PLANS[0]: FINISHED,
        PLANS[1]: 0,
        PLANS[2]: 0,
        PLANS[3]: 1,
    }


@pytest.mark.parametrize("asked", [1, 30])
def test_a_survey_finds_the_asked_ones_however_many(asked: int, tmp_path: Path) -> None:
    storage = Storage(str(tmp_path))
    for number in range(30):
        fail(storage, number)
    (tmp_path / "records" / "zz").mkdir()
    ids = [f"{number:032x}" for number in range(asked)]
    found = set(survey(storage, ids).avatar_ids.to_pylist())
    assert set(ids) <= found
    assert set(survey(storage).avatar_ids.to_pylist()) == {f"{n:032x}" for n in range(30)}
    with pytest.raises(StoreError, match="cannot be used in a path"):
        survey(storage, ["../../etc"])


def test_outcomes_survive_killed_merges_and_other_writers(tmp_path: Path) -> None:
    storage = Storage(str(tmp_path))
    first, second = OutcomeTable(storage), OutcomeTable(storage)
    for number in range(6):
        fail(storage, number)
        writer = first if number % 2 else second
        writer.learn(survey(storage))
    parts = storage.names(layout.OUTCOMES)
    assert len(parts) > 2
    merged = OutcomeTable(storage)
    assert merged.table.num_rows == 6, "what two writers have learnt counts once"
    kept = {name: storage.read(f"{layout.OUTCOMES}/{name}") for name in parts}
    merged.merge()
    assert len(storage.names(layout.OUTCOMES)) == 1
    for name, data in kept.items():
        storage.create(f"{layout.OUTCOMES}/{name}", data)
    assert OutcomeTable(storage).table.num_rows == 6, "the merge died before it had tidied up"
    fail(storage, 3, generation=1)
    news = OutcomeTable(storage).learn(survey(storage).newest())
    assert news.select(["rank", "error_message", "seconds_shape"]).to_pylist() == [
        {"rank": 1, "error_message": "try 1", "seconds_shape": 1.5}
    ]


def test_damaged_outcomes_say_what_to_do(tmp_path: Path) -> None:
    storage = Storage(str(tmp_path))
    storage.create(f"{layout.OUTCOMES}/part-1.parquet", b"no parquet at all")
    with pytest.raises(StoreError, match="manifest rebuild"):
        _ = OutcomeTable(storage).table


def test_plans_of_many_are_those_of_each() -> None:
    ids, digests = ["0" * 32, None, "f" * 32], ["", "", "abc"]
    expected = [avatar_plan("base", "0" * 32), None, avatar_plan("base", "f" * 32, "abc")]
    assert avatar_plans("base", ids, digests) == expected
