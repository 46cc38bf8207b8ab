"""The run as users see it, through the local runner and through Ray."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fc4d_ray.config import load_config
from fc4d_ray.errors import ConfigError, StoreError
from fc4d_ray.pipeline.run import RunSummary, run
from fc4d_ray.pipeline.status import read_status, retry_failed
from fc4d_ray.store import read_manifest
from fc4d_ray.store.location import open_output
from fc4d_ray.store.manifest import ManifestCommitter, manifest_schema

Portraits = Callable[..., Path]


def fc4d(
    inputs: list[str] | Path, out: Path, config: Path, *overrides: str, runner: str = "local"
) -> RunSummary:
    arguments = inputs if isinstance(inputs, list) else [str(inputs)]
    loaded = load_config(config, [f"run.runner={runner}", *overrides])
    return run(arguments, str(out), loaded)


def journal(config: Path) -> Counter[str]:
    """How often each piece of work was begun, as ``ann shape``."""
    path = config.parent / "journal"
    return Counter(path.read_text().splitlines()) if path.exists() else Counter()


def rows_by_name(out: Path) -> dict[str, dict]:
    return {Path(row["source_uri"]).name: row for row in read_manifest(str(out)).to_pylist()}


MIXED = {
    "ann": "ann",
    "bob": "bob faces",
    "bug": "bug bug:train",
    "copy": "ann",
    "eve": "eve ask:ingest",
    "fay": "fay fail:publish",
}


def test_a_portrait_known_by_another_address_ends_under_its_new_columns(
    portraits: Portraits, fake_config: Path, tmp_path: Path
) -> None:
    folder = portraits(ann="ann")
    assert fc4d(folder, tmp_path / "out", fake_config).succeeded == 1
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "ann.png").write_text("ann")
    (tmp_path / "people.csv").write_text("uri,licence\nelsewhere/ann.png,CC0\n")
    again = fc4d([str(tmp_path / "people.csv")], tmp_path / "out", fake_config)
    assert (again.succeeded, again.failed) == (1, 0)
    rows = read_manifest(str(tmp_path / "out")).to_pylist()
    assert [row["status"] for row in rows] == ["succeeded", "duplicate"]
    assert rows[1]["licence"] == "CC0"


def test_a_repeated_portrait_keeps_its_row_and_its_own_columns(
    portraits: Portraits, fake_config: Path, tmp_path: Path
) -> None:
    portraits(ann="ann", again="ann")
    (tmp_path / "people.csv").write_text(
        "uri,year\nportraits/ann.png,1993\nportraits/again.png,2003\n"
    )
    summary = fc4d([str(tmp_path / "people.csv")], tmp_path / "out", fake_config)
    assert (summary.succeeded, summary.duplicates) == (1, 1)
    rows = read_manifest(str(tmp_path / "out")).to_pylist()
    assert [(row["status"], row["year"]) for row in rows] == [
        ("succeeded", 1993), ("duplicate", 2003),
    ]  # fmt: skip


@pytest.mark.parametrize("runner", ["local", "ray"])
def test_good_and_bad_portraits_together(
    runner: str,
    portraits: Portraits,
    fake_config: Path,
    tmp_path: Path,
    request: pytest.FixtureRequest,
) -> None:
    if runner == "ray":
        request.getfixturevalue("ray_cluster")
    out = tmp_path / "out"
    inputs = [str(portraits(**MIXED)), str(tmp_path / "gone.png")]
    summary = fc4d(inputs, out, fake_config, runner=runner)
    assert (summary.succeeded, summary.failed, summary.duplicates) == (2, 4, 1)
    assert summary.exit_code == 3

    rows = rows_by_name(out)
    assert len(rows) == 7
    assert {name: row["status"] for name, row in rows.items()} == {
        "ann.png": "succeeded",
        "bob.png": "succeeded",
        "bug.png": "failed",
        "copy.png": "duplicate",
        "eve.png": "failed",
        "fay.png": "failed",
        "gone.png": "failed",
    }
    assert rows["copy.png"]["duplicate_of"] == rows["ann.png"]["avatar_id"]
    failures = {n: (r["failed_stage"], r["error_type"]) for n, r in rows.items() if r["error_type"]}
    assert failures == {
        "bug.png": ("train", "ZeroDivisionError"),
        "eve.png": ("ingest", "NoFaceFound"),
        "fay.png": ("publish", "StageFailed"),
        "gone.png": ("ingest", "UnreadableSource"),
    }
    assert "a bug" in Path(rows["bug.png"]["trace_uri"]).read_text()
    assert rows["bob.png"]["warnings"] == ["several faces, the largest taken"]
    ann = rows["ann.png"]
    assert (ann["n_splats"], ann["id_distance_0"], ann["id_distance_30"]) == (1000, 0.2, None)
    assert (Path(ann["avatar_uri"]) / "result.txt").is_file()
    assert ann["seconds_total"] == pytest.approx(
        sum(ann[f"seconds_{s}"] for s in ("ingest", "shape", "train", "publish"))
    )
    report = (out / "report.html").read_text()
    assert report.count("<article") == 7 and "the fit went astray" in report
    assert "attempt-" in report and str(out) not in report.replace(str(tmp_path / "gone.png"), "")

    before = journal(fake_config)
    again = fc4d(inputs, out, fake_config, runner=runner)
    assert again.worked == 0 and again.exit_code == 3
    assert journal(fake_config) == before, "a second run does nothing"


def test_plain_readers_see_each_portrait_once(
    portraits: Portraits, fake_config: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    folder = portraits(ann="ann", bob="bob")
    fc4d(folder, out, fake_config)
    fc4d(folder, out, fake_config)
    (folder / "cid.png").write_text("cid")
    fc4d([str(folder / "cid.png")], out, fake_config)
    table = pq.ParquetDataset(out / "manifest").read()
    assert sorted(Path(uri).stem for uri in table["source_uri"].to_pylist()) == [
        "ann",
        "bob",
        "cid",
    ]
    assert table.schema.metadata[b"fc4d.manifest_schema"] == b"1"
    own = manifest_schema(("ingest", "publish", "shape", "train"))
    for column in own:
        assert table.schema.field(column.name).type == column.type, column.name


def test_the_input_tables_columns_pass_through(
    portraits: Portraits, fake_config: Path, tmp_path: Path
) -> None:
    folder = portraits(ann="ann", bob="bob")
    table = pa.table(
        {
            "uri": ["ann.png", "bob.png", "missing.png"],
            "licence": pa.array(["CC0", None, "CC-BY"]),
            "year": pa.array([1999, 2001, None], pa.int16()),
            "status": ["checked", "checked", "new"],
            "face_box": pa.array([[1.0, 2.0, 3.0, 4.0], None, None], pa.list_(pa.float32())),
        }
    )
    pq.write_table(table, folder / "people.parquet")
    fc4d([str(folder / "people.parquet")], tmp_path / "out", fake_config)
    found = read_manifest(str(tmp_path / "out"))
    assert found["licence"].to_pylist() == ["CC0", None, "CC-BY"]
    assert found["input_status"].to_pylist() == ["checked", "checked", "new"]
    assert found["status"].to_pylist() == ["succeeded", "succeeded", "failed"]
    assert found.schema.field("year").type == pa.int16()
    assert found.schema.field("face_box").type == pa.list_(pa.float32())
    record = json.loads((Path(found["avatar_uri"][0].as_py()) / "record.json").read_text())
    assert record["row"]["face_box"] == [1.0, 2.0, 3.0, 4.0]
    assert record["row"]["licence"] == "CC0"
    assert set(record["facts"]) == {"ingest", "shape", "train"}


def test_two_faces_of_one_photo_are_two_avatars(
    portraits: Portraits, fake_config: Path, tmp_path: Path
) -> None:
    folder = portraits(pair="pair")
    (folder / "t.csv").write_text(
        'uri,face_box\npair.png,"[0, 0, 5, 5]"\npair.png,"[5, 0, 9, 5]"\npair.png,"[0, 0, 5, 5]"\n'
    )
    summary = fc4d([str(folder / "t.csv")], tmp_path / "out", fake_config)
    assert (summary.succeeded, summary.duplicates) == (2, 1)
    found = read_manifest(str(tmp_path / "out"))
    assert found["status"].to_pylist() == ["succeeded", "succeeded", "duplicate"]
    assert found["duplicate_of"][2] == found["avatar_id"][0]


def test_a_changed_train_section_redoes_only_training(
    portraits: Portraits, fake_config: Path, tmp_path: Path
) -> None:
    out, folder = tmp_path / "out", portraits(ann="ann")
    fc4d(folder, out, fake_config)
    first = rows_by_name(out)["ann.png"]
    fc4d(folder, out, fake_config, "train.strength=2")
    second = rows_by_name(out)["ann.png"]
    assert journal(fake_config) == {
        "ann ingest": 1,
        "ann shape": 1,
        "ann train": 2,
        "ann publish": 2,
    }
    assert first["avatar_id"] == second["avatar_id"]
    assert first["config_digest"] != second["config_digest"]
    fc4d(folder, out, fake_config)
    assert rows_by_name(out)["ann.png"]["avatar_uri"] == first["avatar_uri"]
    assert sum(journal(fake_config).values()) == 6, "both results are kept"


def test_equal_seeds_give_equal_avatars_and_others_do_not(
    portraits: Portraits, fake_config: Path, tmp_path: Path
) -> None:
    folder = portraits(ann="ann")
    results = []
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        fc4d(folder, tmp_path / name, fake_config, f"run.seed={seed}")
        uri = rows_by_name(tmp_path / name)["ann.png"]["avatar_uri"]
        results.append((Path(uri) / "result.txt").read_text())
    assert results[0] == results[1] != results[2]


def test_retry_tries_failures_again_and_nothing_else(
    portraits: Portraits, fake_config: Path, tmp_path: Path
) -> None:
    out, folder = tmp_path / "out", portraits(ann="ann", eve="eve fail:train", fay="fay ask:shape")
    fc4d(folder, out, fake_config)
    assert retry_failed(str(out), error="NoFaceFound") == 1
    fc4d(folder, out, fake_config)
    work = journal(fake_config)
    assert work["fay shape"] == 2 and work["fay ingest"] == 1
    assert work["eve train"] == 1 and work["ann train"] == 1
    assert retry_failed(str(out), stage="train") == 1
    status = read_status(str(out))
    assert (status["succeeded"], status["pending"]) == (1, 1)


def test_rebuilding_gives_the_same_manifest(
    portraits: Portraits, fake_config: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    fc4d([str(portraits(**MIXED)), str(tmp_path / "gone.png")], out, fake_config)
    before = read_manifest(str(out))
    for path in (out / "manifest").iterdir():
        path.unlink()
    assert ManifestCommitter(open_output(str(out))).finish().equals(before)


def test_wrong_inputs_are_usage_errors(
    portraits: Portraits, fake_config: Path, tmp_path: Path
) -> None:
    folder = portraits(ann="ann")
    (folder / "t.csv").write_text("url\nann.png\n")
    (tmp_path / "empty").mkdir()
    for inputs, message in (
        ([str(folder / "t.csv")], "no column 'uri'"),
        ([str(tmp_path / "empty")], "holds no images"),
        ([str(tmp_path / "*.jpg")], "nothing matches"),
        ([str(tmp_path / "nowhere")], "there is no file or folder"),
    ):
        with pytest.raises(ConfigError, match=message):
            fc4d(inputs, tmp_path / "out", fake_config)
    assert not (tmp_path / "out").exists()


def test_an_output_that_is_not_ours_is_refused(
    portraits: Portraits, fake_config: Path, tmp_path: Path
) -> None:
    folder = portraits(ann="ann")
    with pytest.raises(StoreError, match="not made by fc4d"):
        fc4d(folder, folder, fake_config)


def test_a_store_that_fails_ends_the_run_and_blames_no_portrait(
    portraits: Portraits, fake_config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, folder = tmp_path / "out", portraits(ann="ann", bob="bob")
    link = os.link

    def full(source: object, target: object) -> None:
        if "train" in str(target) and "avatars" in str(target):
            raise OSError(28, "No space left on device")
        link(source, target)  # type: ignore[arg-type]

    with monkeypatch.context() as patched:
        patched.setattr(os, "link", full)
        with pytest.raises(StoreError, match="the disk is full"):
            fc4d(folder, out, fake_config)
    assert read_manifest(str(out)).num_rows == 0
    summary = fc4d(folder, out, fake_config)
    assert summary.exit_code == 0
    assert journal(fake_config)["ann shape"] == 1


def test_a_remote_output_works_alike(portraits: Portraits, fake_config: Path) -> None:
    out = "memory://avatars-test"
    config = load_config(fake_config, ["run.runner=local"])
    assert run([str(portraits(ann="ann", eve="eve fail:shape"))], out, config).exit_code == 3
    found = read_manifest(out)
    assert sorted(found["status"].to_pylist()) == ["failed", "succeeded"]
    assert run([str(portraits(ann="ann"))], out, config).worked == 0
    assert open_output(out).exists("report.html")


COMMAND = "import sys; from fc4d_ray.cli import app; app()"


def start_command(*arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", COMMAND, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def wait_for(condition: Callable[[], bool], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "this never happened"
        time.sleep(0.02)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_a_run_that_was_ended_continues(
    number: signal.Signals, portraits: Portraits, fake_config: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    folder = portraits(**{name: name for name in ("ann", "bob", "cid", "dan")})
    arguments = ["run", str(folder), "--out", str(out), "--config", str(fake_config)]
    arguments += ["--runner", "local", "--set", "train.seconds=0.6"]
    process = start_command(*arguments)
    wait_for(lambda: len(list(out.glob("records/*/*/record-*.json"))) == 2)
    process.send_signal(number)
    text, _ = process.communicate(timeout=60)
    if number == signal.SIGKILL:
        assert process.returncode == -9
    else:
        assert process.returncode == 1 and "the same command continues" in text
        assert read_manifest(str(out)).num_rows == 2
    again = start_command(*arguments)
    text, _ = again.communicate(timeout=60)
    assert again.returncode == 0, text
    assert "2 done before, 2 to do" in text
    assert rows_by_name(out).keys() == {f"{n}.png" for n in ("ann", "bob", "cid", "dan")}
    assert {row["status"] for row in rows_by_name(out).values()} == {"succeeded"}
    work = journal(fake_config)
    assert work["ann train"] == work["bob train"] == 1
    assert max(work.values()) <= 2
