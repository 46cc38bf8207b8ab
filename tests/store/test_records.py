from __future__ import annotations

from pathlib import Path

from fc4d_ray.store.filesystem import Storage
from fc4d_ray.store.records import AvatarRecord, FailureRecord, RecordBook, Standing

PLAN = "0123456789abcdef0123"


def failure(generation: int = 0) -> FailureRecord:
    return FailureRecord(
        avatar_id="ab12",
        plan=PLAN,
        generation=generation,
        config_digest="c",
        source_uri="/a.png",
        stage="shape",
        error_type="FitFailed",
        error_message="no fit",
        trace_path=None,
        created_at="2026-01-01T00:00:00.000+00:00",
    )


def finished() -> AvatarRecord:
    return AvatarRecord(
        avatar_id="ab12",
        plan=PLAN,
        config_digest="c",
        source_uri="/a.png",
        avatar_path="avatars/ab/ab12/publish/attempt-1",
        artifacts={},
        facts={},
        seconds={},
        created_at="2026-01-01T00:00:00.000+00:00",
    )


def test_a_retry_supersedes_a_failure(tmp_path: Path) -> None:
    book = RecordBook(Storage(str(tmp_path)))
    assert book.standing("ab12").status(PLAN) == "pending"
    assert book.write_failed(failure())
    assert book.standing("ab12").status(PLAN) == "failed"
    assert book.standing("ab12").status("f" * 20) == "pending", "another plan, another try"
    assert book.open_retry("ab12") == 1
    assert book.standing("ab12").status(PLAN) == "pending"
    assert book.write_failed(failure(1))
    assert book.standing("ab12").status(PLAN) == "failed"
    assert book.standing("ab12").latest_record(PLAN) == f"failed-{PLAN}-0001.json"


def test_records_are_written_once_and_read_back(tmp_path: Path) -> None:
    book = RecordBook(Storage(str(tmp_path)))
    assert book.write_finished(finished())
    assert not book.write_finished(finished())
    assert book.write_failed(failure())
    standing = book.standing("ab12")
    assert standing.status(PLAN) == "succeeded"
    assert book.read("ab12", f"record-{PLAN}.json") == finished()
    assert book.read("ab12", f"failed-{PLAN}-0000.json") == failure()
    assert book.read("ab12", "record-00.json") is None


def test_a_listing_alone_tells_the_standing() -> None:
    names = [f"record-{PLAN}.json", "retry-0002.json", "retry-0010.json", ".x.tmp", "notes.txt"]
    standing = Standing.from_names(names)
    assert standing.generation == 10
    assert standing.finished_plans == {PLAN}
