"""An evaluation as users see it: two runs and a baseline, tables, page, resume."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml
from typer.testing import CliRunner

from fc4d_ray.cli import app
from fc4d_ray.config import RunSettings, load_config
from fc4d_ray.errors import ConfigError
from fc4d_ray.evaluation.image_sets.contract import InvalidImageSet, read_image_set
from fc4d_ray.evaluation.protocols import load_protocol
from fc4d_ray.images import read_png, write_png
from fc4d_ray.pipeline.evaluation import Source, evaluate
from fc4d_ray.pipeline.evaluation_report import write_evaluation
from fc4d_ray.pipeline.run import run
from fc4d_ray.store.filesystem import Storage
from fc4d_ray.store.location import open_output
from fc4d_ray.store.manifest import ManifestCommitter

LOCAL = RunSettings(runner="local")


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Outputs ``a`` (ann, bob, eve) and ``b`` (ann, bob), and a small protocol."""
    folder = tmp_path_factory.mktemp("evaluation")
    (folder / "portraits").mkdir()
    for name in ("ann", "bob", "eve"):
        (folder / "portraits" / f"{name}.png").write_text(name)
    config = folder / "balls.yaml"
    config.write_text("registry: ball_avatars:REGISTRY\nrun: {runner: local}\n")
    run([str(folder / "portraits")], str(folder / "a"), load_config(config))
    two = [str(folder / "portraits" / f"{name}.png") for name in ("ann", "bob")]
    run(two, str(folder / "b"), load_config(config))
    views = [
        {"name": n, "azimuth_deg": a} for n, a in {"front": 0, "side": 40, "back": 180}.items()
    ]
    protocol = {"name": "small", "title": "Small", "size": 64, "views": views}
    (folder / "small.yaml").write_text(yaml.safe_dump(protocol))
    return folder


def test_two_runs_and_a_baseline_in_one_table(runs: Path, tmp_path: Path) -> None:
    protocol = load_protocol(str(runs / "small.yaml"))
    out = tmp_path / "out"
    sources = [Source("a", str(runs / "a"), True), Source("b", str(runs / "b"), True)]
    evaluate(sources, str(out), protocol, settings=LOCAL)
    # A baseline with the same pictures, one of them missing from its manifest.
    baseline = tmp_path / "theirs"
    shutil.copytree(out / "images" / "b", baseline)
    document = json.loads((baseline / "manifest.json").read_text())
    document["images"] = [i for i in document["images"] if i["path"] != "bob/side.png"]
    (baseline / "manifest.json").write_text(json.dumps(document))
    sources.append(Source("theirs", str(baseline), False))
    found = evaluate(sources, str(out), protocol, settings=LOCAL)
    assert found.failures == [] and found.table.subjects == ("ann", "bob")
    assert found.table.missing == {"a": (), "b": ("eve",), "theirs": ("eve",)}
    cell = found.table.cells["a", "neighbour_psnr"]
    assert cell.value > 20
    assert (cell.images, cell.of) == (1, 2), "theirs has no neighbouring views of bob"
    assert found.table.cells["theirs", "face_behind"].value == 0
    page = Path(write_evaluation(found, Storage(str(out))))
    assert "not available: ID" in page.read_text() and "<svg" not in page.read_text()
    images = pq.ParquetFile(out / "small" / "per_image.parquet").read()
    assert images.num_rows == 9 + 6 + 5
    assert images["id_arcface"].null_count == images.num_rows
    figures = json.loads((out / "small" / "metrics.json").read_text())
    assert figures["methods"]["a"]["id_arcface"]["value"] is None
    note = figures["methods"]["a"]["id_arcface"]["note"]
    assert note.startswith(("weights missing", "not installed")), note


def test_renders_keep_to_the_contract(runs: Path, tmp_path: Path) -> None:
    protocol = load_protocol(str(runs / "small.yaml"))
    evaluate([Source("a", str(runs / "a"), True)], str(tmp_path), protocol, settings=LOCAL)
    images = read_image_set(str(tmp_path / "images" / "a"))
    assert images.camera_set == protocol.camera_set and images.subjects == ("ann", "bob", "eve")
    front = read_png(tmp_path / "images" / "a" / "ann" / "front.png")
    assert front.shape == (64, 64, 4) and front[0, 0, 3] == 0 and front[32, 32, 3] == 255
    assert (tmp_path / "images" / "a" / "references" / "ann.png").is_file()


def test_a_second_evaluation_renders_and_measures_nothing(runs, tmp_path, monkeypatch) -> None:
    protocol = load_protocol(str(runs / "small.yaml"))
    sources = [Source("a", str(runs / "a"), True)]
    first = evaluate(sources, str(tmp_path), protocol, settings=LOCAL)

    def refuse(*_: object) -> None:
        raise AssertionError("done already")

    monkeypatch.setattr("fc4d_ray.evaluation.image_sets.runs._render", refuse)
    monkeypatch.setattr("fc4d_ray.evaluation.subject._prepared", refuse)
    second = evaluate(sources, str(tmp_path), protocol, settings=LOCAL)
    assert second.table == first.table


def test_a_killed_evaluation_goes_on_where_it_was(runs: Path, tmp_path: Path) -> None:
    protocol = load_protocol(str(runs / "small.yaml"))
    out = tmp_path / "out"
    command = [sys.executable, "-c", "from fc4d_ray.cli import app; app()", "eval"]
    command += [f"a={runs / 'a'}", "--out", str(out), "--runner", "local"]
    process = subprocess.Popen([*command, "--protocol", str(runs / "small.yaml")])
    parts = out / "images" / "a" / "parts"
    while process.poll() is None and not list(parts.glob("*.json")):
        time.sleep(0.01)
    process.kill()
    process.wait()
    kept = {path.name: path.stat().st_mtime_ns for path in parts.glob("*.json")}
    assert kept
    sources = [Source("a", str(runs / "a"), True)]
    found = evaluate(sources, str(out), protocol, settings=LOCAL)
    whole = evaluate(sources, str(tmp_path / "whole"), protocol, settings=LOCAL)
    assert found.table == whole.table
    assert {n: t for n, t in kept.items() if (parts / n).stat().st_mtime_ns == t} == kept


def test_true_pictures_give_psnr_where_they_are(runs: Path, tmp_path: Path) -> None:
    protocol = load_protocol(str(runs / "small.yaml"))
    sources = [Source("b", str(runs / "b"), True)]
    evaluate(sources, str(tmp_path / "out"), protocol, settings=LOCAL)
    truth = tmp_path / "truth" / "ann" / "front.png"
    truth.parent.mkdir(parents=True)
    shutil.copyfile(tmp_path / "out" / "images" / "b" / "ann" / "front.png", truth)
    found = evaluate(
        sources, str(tmp_path / "out"), protocol, settings=LOCAL, truths=str(tmp_path / "truth")
    )
    cell = found.table.cells["b", "psnr"]
    assert cell.value == 100 and (cell.images, cell.subjects) == (1, 1)
    with pytest.raises(ConfigError, match="no <subject>/<view>.png"):
        evaluate(
            sources, str(tmp_path / "out"), protocol, settings=LOCAL, truths=str(tmp_path / "x")
        )


def test_a_subject_whose_avatar_is_damaged_fails_alone(runs: Path, tmp_path: Path) -> None:
    damaged = tmp_path / "damaged"
    shutil.copytree(runs / "a", damaged)
    storage = open_output(str(damaged))
    rows = ManifestCommitter(storage).finish().to_pylist()
    (uri,) = (row["avatar_uri"] for row in rows if row["source_uri"].endswith("bob.png"))
    (Path(uri) / "rig.npz").write_bytes(b"broken")
    protocol = load_protocol(str(runs / "small.yaml"))
    found = evaluate(
        [Source("a", str(damaged), True)], str(tmp_path / "out"), protocol, settings=LOCAL
    )
    assert [(f.subject, f.step, f.error_type) for f in found.failures] == [
        ("bob", "render", "StoreError")
    ]
    assert found.table.subjects == ("ann", "eve")
    page = Path(write_evaluation(found, Storage(str(tmp_path / "out")))).read_text()
    assert "What could not be evaluated" in page and "<svg" in page


@pytest.mark.usefixtures("ray_cluster")
def test_ray_and_this_process_give_the_same_numbers(runs: Path, tmp_path: Path) -> None:
    protocol = load_protocol(str(runs / "small.yaml"))
    sources = [Source("a", str(runs / "a"), True)]
    here = evaluate(sources, str(tmp_path / "x"), protocol, settings=LOCAL)
    there = evaluate(
        sources, str(tmp_path / "y"), protocol, settings=RunSettings(workers=2, threads=1)
    )
    assert here.table == there.table


def test_an_object_store_gives_the_same_numbers_and_files(runs, tmp_path, bucket: str) -> None:
    protocol = load_protocol(str(runs / "small.yaml"))
    sources = [Source("b", str(runs / "b"), True)]
    here = evaluate(sources, str(tmp_path), protocol, settings=LOCAL)
    there = evaluate(sources, f"{bucket}/evaluation", protocol, settings=LOCAL)
    assert there.table == here.table
    page = write_evaluation(there, Storage(f"{bucket}/evaluation"))
    assert page == f"{bucket}/evaluation/small/report.html"
    assert b"All figures" in Storage(f"{bucket}/evaluation/small").read("metrics.md")


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"camera_set": {"size": 1}}, "another camera set"),
        ({"camera_set": None, "view": "top"}, "which protocol small does not have"),
        ({"camera_set": None, "azimuth_deg": 70}, "seen from 70°, view side is at 40°"),
    ],
)
def test_pictures_of_other_views_are_refused(runs, tmp_path, change, complaint) -> None:
    write_png(tmp_path / "ann.png", np.zeros((8, 8, 3), np.uint8))
    image = {"subject": "ann", "view": "side", "azimuth_deg": 40, "path": "ann.png"}
    image |= {k: v for k, v in change.items() if k in image}
    document = {"format": "fc4d-image-set/1", "method": "m", "images": [image]}
    document["camera_set"] = change["camera_set"]
    (tmp_path / "manifest.json").write_text(json.dumps(document))
    protocol = load_protocol(str(runs / "small.yaml"))
    with pytest.raises(InvalidImageSet, match=complaint):
        evaluate([Source("m", str(tmp_path), False)], str(tmp_path / "o"), protocol, settings=LOCAL)


def test_nothing_to_evaluate_and_equal_names_are_refused(runs: Path, tmp_path: Path) -> None:
    protocol = load_protocol(str(runs / "small.yaml"))
    with pytest.raises(ConfigError, match="nothing to evaluate"):
        evaluate([], str(tmp_path), protocol)
    with pytest.raises(ConfigError, match="two methods are named a"):
        evaluate([Source("a", "x", True), Source("a", "y", True)], str(tmp_path), protocol)


def test_the_command_prints_the_tables(runs: Path, tmp_path: Path) -> None:
    command = ["eval", f"balls={runs / 'a'}", "--out", str(tmp_path), "--runner", "local"]
    ended = CliRunner().invoke(app, [*command, "--protocol", str(runs / "small.yaml")])
    assert ended.exit_code == 0, ended.output
    assert "| neighbour views, dB ↑ |" in ended.output and "report.html" in ended.output
    timed = CliRunner().invoke(app, [*command, "--protocol", "timing"])
    assert timed.exit_code == 0 and "FaceCraft4D (published) | 2.5" in timed.output
    scores = tmp_path / "small" / "per_subject.parquet"
    chosen = [
        "filter",
        str(runs / "a"),
        "--scores",
        str(scores),
        "--out",
        str(tmp_path / "f.parquet"),
    ]
    kept = CliRunner().invoke(app, [*chosen, "--where", "neighbour_psnr > 5 and id_distance_0 > 0"])
    assert kept.exit_code == 0 and "3 of 3 rows" in kept.output, kept.output
    exported = ["export", str(runs / "a"), "--format", "webdataset", "--out", str(tmp_path / "wds")]
    assert "3 avatars in 1 shards" in CliRunner().invoke(app, exported).output
    wrong = CliRunner().invoke(app, [*command, "--set", "clipp=x"])
    assert wrong.exit_code == 2 and "clipp" in wrong.output
