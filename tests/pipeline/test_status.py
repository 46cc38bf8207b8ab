"""What others see of a run from storage alone, and what a run leaves besides avatars."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fc4d_ray.config import load_config
from fc4d_ray.errors import ConfigError
from fc4d_ray.pipeline.run import run
from fc4d_ray.pipeline.status import read_status, retry_failed, run_state
from fc4d_ray.store import open_output, read_manifest
from fc4d_ray.store.manifest import ManifestCommitter
from fc4d_ray.store.runs import RunBook, RunDocument, utc_now

Portraits = Callable[..., Path]


def document(started_at: str | None = None) -> RunDocument:
    return RunDocument(
        run_id="r",
        started_at=started_at or utc_now(),
        plan_base="p",
        stages=("train",),
        config_digest="c",
        inputs_path="i",
        rows=1,
        runner="ray",
        host="h",
        pid=1,
    )


def ago(seconds: float) -> str:
    return (datetime.now(UTC) - timedelta(seconds=seconds)).isoformat()


@pytest.mark.parametrize(
    ("progress", "end", "state"),
    [
        (None, None, "running"),
        ({"updated_s_ago": 30, "interval_s": 10.0}, None, "running"),
        ({"updated_s_ago": 90, "interval_s": 10.0}, None, "silent"),
        ({"updated_s_ago": 90, "interval_s": 60.0}, None, "running"),
        ({"updated_s_ago": 90}, {"error": "StoreError: full"}, "failed"),
        (None, {"interrupted": True}, "interrupted"),
        (None, {"succeeded": 3}, "ended"),
    ],
)
def test_the_state_of_a_run_follows_from_its_documents(
    progress: dict | None, end: dict | None, state: str
) -> None:
    if progress is not None:
        progress = dict(progress)
        progress["updated_at"] = ago(progress.pop("updated_s_ago"))
    assert run_state(document(ago(1)), progress, end) == state


def test_a_run_that_died_before_its_first_sign_is_silent() -> None:
    assert run_state(document(ago(3600)), None, None) == "silent"


def test_status_counts_while_outcomes_are_still_unread(
    portraits: Portraits, fake_config: Path, tmp_path: Path
) -> None:
    """A killed driver leaves records that no derived file knows of."""
    out = tmp_path / "out"
    folder = portraits(ann="ann", bob="bob fail:train", copy="ann")
    run([str(folder)], str(out), load_config(fake_config, ["run.runner=local"]))
    storage = open_output(str(out))
    for tree in ("outcomes", "manifest"):
        storage.remove(tree)
    run_id = RunBook(storage).all()[-1].run_id
    storage.remove(f"runs/{run_id}/end.json")
    before = {path for path in out.rglob("*") if path.is_file()}
    status = read_status(str(out))
    assert (status["succeeded"], status["failed"], status["duplicates"]) == (1, 1, 1)
    assert status["failures"] == {"StageFailed": 1} and status["pending"] == 0
    assert status["latest_run"]["state"] == "running"
    progress = status["latest_run"]["progress"]
    assert progress["ended"] == 2 and progress["stages"]["train"]["done"] == 1
    assert {path for path in out.rglob("*") if path.is_file()} == before, "status writes nothing"


def test_retry_names_the_stages_there_are(
    portraits: Portraits, fake_config: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    config = load_config(fake_config, ["run.runner=local"])
    run([str(portraits(eve="eve fail:train"))], str(out), config)
    with pytest.raises(ConfigError, match="one of ingest, shape, train, publish"):
        retry_failed(str(out), stage="trian")
    assert retry_failed(str(out), stage="shape") == 0
    assert retry_failed(str(out), stage="train", error="StageFailed") == 1


def test_records_are_opened_once(
    portraits: Portraits, fake_config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    config = load_config(fake_config, ["run.runner=local"])
    run([str(portraits(ann="ann", bob="bob fail:train"))], str(out), config)
    before = read_manifest(str(out))

    def refuse(*_: object) -> None:
        raise AssertionError("a record was opened again")

    monkeypatch.setattr("fc4d_ray.store.records.RecordBook.read", refuse)
    assert ManifestCommitter(open_output(str(out))).finish().equals(before)
    assert len(list((out / "outcomes").iterdir())) == 1
    monkeypatch.undo()
    assert ManifestCommitter(open_output(str(out))).rebuild().equals(before)


def test_columns_stay_when_a_later_run_has_no_table(
    portraits: Portraits, fake_config: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    folder = portraits(ann="ann", bob="bob")
    table = pa.table(
        {"uri": ["ann.png", "bob.png"], "licence": ["CC0", None], "year": [1999, 2001]}
    )
    pq.write_table(table, folder / "people.parquet")
    config = load_config(fake_config, ["run.runner=local"])
    run([str(folder / "people.parquet")], str(out), config)
    again = run([str(folder)], str(out), config)
    assert again.worked == 0, "nothing new was said of them"
    manifest = read_manifest(str(out))
    assert manifest["licence"].to_pylist() == ["CC0", None]
    assert manifest["year"].to_pylist() == [1999, 2001]
    changed = table.set_column(1, "licence", pa.array(["CC-BY", "CC-BY"]))
    pq.write_table(changed.drop(["year"]), folder / "people.parquet")
    assert run([str(folder / "people.parquet")], str(out), config).worked == 2
    manifest = read_manifest(str(out))
    assert manifest["licence"].to_pylist() == ["CC-BY", "CC-BY"]
    assert manifest["year"].to_pylist() == [1999, 2001]
    record = json.loads((Path(manifest["avatar_uri"][0].as_py()) / "record.json").read_text())
    assert (record["row"]["licence"], record["row"]["year"]) == ("CC-BY", 1999)
    journal = (tmp_path / "journal").read_text().splitlines()
    assert journal.count("ann train") == 1, "only the published files repeat the columns"


def test_a_run_keeps_what_it_is_told_and_fills_the_delta_table(
    portraits: Portraits, fake_config: Path, tmp_path: Path
) -> None:
    deltalake = pytest.importorskip("deltalake", reason="deltalake is not installed")
    out, table = tmp_path / "out", tmp_path / "ends"
    overrides = ["run.runner=local", "run.keep=minimal", f"run.delta_table={table}"]
    config = load_config(fake_config, overrides)
    folder = portraits(ann="ann", eve="eve fail:train")
    assert run([str(folder)], str(out), config).exit_code == 3
    left = {path.parent.parent.name for path in out.glob("avatars/*/*/*/*/result.txt")}
    assert left == {"publish", "ingest", "shape"}, "a failed portrait keeps its stages"
    assert run([str(folder)], str(out), config).worked == 0
    rows = deltalake.DeltaTable(table).to_pyarrow_table().to_pylist()
    assert sorted(row["status"] for row in rows) == ["failed", "succeeded"]
    (finished,) = [row for row in rows if row["status"] == "succeeded"]
    assert (Path(finished["avatar_uri"]) / "result.txt").is_file()
    assert finished["source_uri"].endswith("ann.png")
