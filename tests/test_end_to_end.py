"""Every stage for real, at the smallest sizes: portraits through ``fc4d run`` on Ray and back."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sysconfig
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import imageio_ffmpeg
import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image
from plyfile import PlyData
from skimage.data import astronaut

from fc4d_ray.avatar import Avatar
from fc4d_ray.config import load_config
from fc4d_ray.pipeline.run import run
from fc4d_ray.store.manifest_schema import QUALITY_COLUMNS, STAGES, manifest_schema

pytestmark = pytest.mark.slow

TINY = Path(__file__).parent / "data" / "tiny.yaml"
RUN_TIMEOUT_S = 300
PUBLISHED = [
    "avatar.ply",
    "expressions.mp4",
    "preview.png",
    "record.json",
    "reference.png",
    "rig.npz",
    "sheet.png",
    "turntable.mp4",
]


def fc4d(*arguments: object) -> subprocess.CompletedProcess[str]:
    """The installed command in a process of its own, as users start it."""
    command = Path(sysconfig.get_path("scripts")) / "fc4d"
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    return subprocess.run(
        [command, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=RUN_TIMEOUT_S,
        env=environment,
        check=False,
    )


@dataclass(frozen=True)
class Batch:
    """A finished run over one good portrait, one text file named .png, and one repetition."""

    folder: Path
    ended: subprocess.CompletedProcess[str]

    @property
    def table(self) -> Path:
        return self.folder / "people.csv"

    @property
    def out(self) -> Path:
        return self.folder / "out"

    @cached_property
    def rows(self) -> dict[str, dict]:
        """Manifest rows by file name, as a plain Parquet reader sees them."""
        rows = pq.read_table(self.out / "manifest").to_pylist()
        return {Path(row["source_uri"]).name: row for row in rows}

    @cached_property
    def avatar(self) -> Path:
        return Path(self.rows["ann.png"]["avatar_uri"])


@pytest.fixture(scope="module")
def batch(tmp_path_factory: pytest.TempPathFactory) -> Batch:
    folder = tmp_path_factory.mktemp("batch")
    Image.fromarray(astronaut()).save(folder / "ann.png")
    shutil.copy(folder / "ann.png", folder / "again.png")
    (folder / "note.png").write_text("Dear reader, this is no picture.")
    (folder / "people.csv").write_text(
        "uri,licence,year\nann.png,public domain,1993\nnote.png,,\nagain.png,public domain,2003\n"
    )
    ended = fc4d("run", folder / "people.csv", "--out", folder / "out", "--config", TINY)
    assert ended.returncode in (0, 3), ended.stdout + ended.stderr
    return Batch(folder, ended)


def files_below(folder: Path) -> dict[str, int]:
    """Modification times by path."""
    return {
        str(path.relative_to(folder)): path.stat().st_mtime_ns
        for path in folder.rglob("*")
        if path.is_file()
    }


def picture(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path)).astype(int)


def test_the_run_tells_how_it_went(batch: Batch) -> None:
    assert batch.ended.returncode == 3
    assert "1 succeeded, 1 failed, 1 duplicates" in batch.ended.stdout
    assert "1 UndecodableImage" in batch.ended.stdout
    assert f"{batch.avatar}/sheet.png" in batch.ended.stdout
    progress = batch.ended.stderr
    assert "3 rows, 2 to do" in progress
    for stage in STAGES:
        assert re.search(rf"{stage} done in \d+\.\d s", progress), progress
    assert "\x1b" not in progress, "plain lines where nobody watches"


def test_the_manifest_says_it_all(batch: Batch) -> None:
    table = pq.read_table(batch.out / "manifest")
    for column in manifest_schema():
        assert table.schema.field(column.name).type == column.type, column.name
    assert {name: row["status"] for name, row in batch.rows.items()} == {
        "ann.png": "succeeded",
        "note.png": "failed",
        "again.png": "duplicate",
    }
    ann, note, again = (batch.rows[name] for name in ("ann.png", "note.png", "again.png"))
    assert again["duplicate_of"] == ann["avatar_id"]
    assert (note["failed_stage"], note["error_type"]) == ("ingest", "UndecodableImage")
    assert "no known image format" in note["error_message"] and note["avatar_uri"] is None
    assert [row["licence"] for row in (ann, note)] == ["public domain", ""]
    assert [row["year"] for row in (ann, note, again)] == [1993, None, 2003]
    seconds = [ann[f"seconds_{stage}"] for stage in STAGES]
    assert min(seconds) > 0 and ann["seconds_total"] == pytest.approx(sum(seconds))


def test_quality_is_measured(batch: Batch) -> None:
    ann = batch.rows["ann.png"]
    assert all(ann[column] is not None for column in QUALITY_COLUMNS)
    assert 0 < ann["id_distance_0"] < 0.6, "dlib takes the render for the same person"
    assert ann["silhouette_iou"] > 0.85
    assert 0 < ann["tracking_error"] < 0.03
    assert ann["created_at"].tzinfo is not None


def test_the_published_files_open(batch: Batch) -> None:
    assert sorted(path.name for path in batch.avatar.iterdir()) == PUBLISHED
    vertices = PlyData.read(batch.avatar / "avatar.ply")["vertex"]
    n_splats = batch.rows["ann.png"]["n_splats"]
    assert len(vertices) == n_splats > 1000
    assert [p.name for p in vertices.properties][:3] == ["x", "y", "z"]
    assert len(vertices.properties) == 62, "the layout of 3DGS"
    head = np.stack([vertices[axis] for axis in "xyz"], 1)
    assert np.isfinite(head).all() and 0.2 < np.ptp(head[:, 1]) < 0.6, "metres"
    with np.load(batch.avatar / "rig.npz", allow_pickle=False) as rig:
        assert len(rig["splats.binding"]) == n_splats
        assert rig["rig.action_basis"].shape[0] == 52
    assert picture(batch.avatar / "preview.png").shape == (512, 512, 3)
    sheet = picture(batch.avatar / "sheet.png")
    assert sheet.shape[1] > 2000 and (sheet < 250).any(-1).mean() > 0.2
    for name in ("turntable.mp4", "expressions.mp4"):
        n_frames, seconds = imageio_ffmpeg.count_frames_and_secs(str(batch.avatar / name))
        assert n_frames >= 4 and seconds >= 0.5, name


def test_the_record_names_origin_and_licences(batch: Batch) -> None:
    record = json.loads((batch.avatar / "record.json").read_text())
    assert record["avatar_id"] == batch.rows["ann.png"]["avatar_id"]
    assert record["input_columns"]["licence"] == "public domain"
    assert {"anny", "dlib-landmarks"} <= {part["key"] for part in record["components"]}
    assert all(part["licence"] for part in record["components"])
    assert sorted(record["files"]) == PUBLISHED


def test_the_report_shows_every_row_by_relative_paths(batch: Batch) -> None:
    report = (batch.out / "report.html").read_text()
    assert report.count("<article") == 3
    assert "UndecodableImage" in report
    shown = re.findall(r'(?:src|href)="([^"#:]+\.(?:png|mp4))"', report)
    assert any(path.endswith("sheet.png") for path in shown)
    for path in shown:
        assert (batch.out / path).is_file(), path


def test_a_second_run_does_nothing_and_says_so(batch: Batch) -> None:
    before = files_below(batch.out / "avatars") | files_below(batch.out / "records")
    again = fc4d("run", batch.table, "--out", batch.out, "--config", TINY)
    assert again.returncode == 3
    assert "1 done before" in again.stderr and "nothing to do" in again.stderr
    assert "started" not in again.stderr
    assert files_below(batch.out / "avatars") | files_below(batch.out / "records") == before


def test_status_is_readable_by_programs(batch: Batch) -> None:
    found = json.loads(fc4d("status", batch.out, "--json").stdout)
    assert (found["succeeded"], found["failed"], found["duplicates"]) == (1, 1, 1)
    assert found["failures"] == {"UndecodableImage": 1} and found["pending"] == 0
    assert found["latest_run"]["stages"] == list(STAGES)


def test_render_writes_named_views(batch: Batch, tmp_path: Path) -> None:
    ended = fc4d(
        *("render", batch.avatar, "--azimuth", "0,30,-30,180", "--elevation", 0),
        *("--action", "jawOpen=1", "--size", 128, "--out", tmp_path),
    )
    assert ended.returncode == 0, ended.stderr
    names = ["az+000_el+00.png", "az+030_el+00.png", "az+180_el+00.png", "az-030_el+00.png"]
    assert sorted(path.name for path in tmp_path.iterdir()) == names
    views = {name: picture(tmp_path / name) for name in names}
    for view in views.values():
        assert view.shape == (128, 128, 3)
        assert (view[0] == 255).all(), "white above the head"
        assert (view.min(-1) < 200).mean() > 0.15, "a head"
    left, right = views["az+030_el+00.png"], views["az-030_el+00.png"]
    assert np.abs(left - right).mean() > 5, "other sides look different"


def test_render_moves_the_mouth_and_keeps_alpha(batch: Batch, tmp_path: Path) -> None:
    for name, action in (("shut", "jawOpen=0"), ("open", "jawOpen=1")):
        options = ["--size", 128, "--rgba", "--action", action, "--out", tmp_path / name]
        assert fc4d("render", batch.out, *options).returncode == 0
    shut, wide = (picture(tmp_path / n / "az+000_el+00.png") for n in ("shut", "open"))
    assert shut.shape == (128, 128, 4) and shut[0, 0, 3] == 0 and shut[64, 64, 3] > 200
    changed = np.abs(wide - shut)[..., :3].max(-1) > 24
    rows = np.flatnonzero(changed.any(1))
    assert changed.sum() > 30 and rows.min() > 50, "below the nose only"


def test_render_writes_videos(batch: Batch, tmp_path: Path) -> None:
    video = tmp_path / "smile.mp4"
    ended = fc4d("render", batch.avatar, "--clip", "smile", "--size", 64, "--video", video)
    assert ended.returncode == 0, ended.stderr
    n_frames, seconds = imageio_ffmpeg.count_frames_and_secs(str(video))
    assert n_frames > 10 and seconds > 0.5


def test_one_seed_gives_one_avatar_whatever_the_runner(batch: Batch, tmp_path: Path) -> None:
    config = load_config(TINY, ["run.runner=local"])
    summary = run([str(batch.folder / "ann.png")], str(tmp_path / "out"), config)
    assert summary.exit_code == 0
    again = Path(summary.avatars[0])
    assert again != batch.avatar
    for name in ("rig.npz", "avatar.ply"):
        assert (again / name).read_bytes() == (batch.avatar / name).read_bytes(), name


def test_an_avatar_is_usable_from_python(batch: Batch) -> None:
    avatar = Avatar.load(batch.avatar)
    assert avatar.metadata["avatar_id"] == batch.rows["ann.png"]["avatar_id"]
    opened = avatar.rig.parameters_from_actions({"jawOpen": 1.0})
    moved = (avatar.splats(opened).means - avatar.splats({}).means).norm(dim=1)
    assert 0.01 < float(moved.max()) < 0.1, "the jaw opens by centimetres"
    assert float(moved.median()) < 0.002, "the rest stays"
