"""The paper profile on tiny random networks: every stage's real code, from released files on."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
from collections import defaultdict
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import cv2
import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image
from skimage.data import astronaut

from fc4d_ray.clips import ClipReader
from fc4d_ray.config import load_config
from fc4d_ray.store.manifest import STAGES

pytestmark = pytest.mark.slow

RUN_TIMEOUT_S = 600
HEAVY_SHARES = {"shape": 0.5, "image": 0.75, "video": 0.25, "train": 0.25}


def fc4d(assets: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    """The installed command, as users start it, with ``assets`` for its assets folder."""
    command = Path(sysconfig.get_path("scripts")) / "fc4d"
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    return subprocess.run(
        [command, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=RUN_TIMEOUT_S,
        env=environment | {"FC4D_ASSETS": str(assets)},
        check=False,
    )


@pytest.fixture(scope="module")
def assets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("assets")
    ended = fc4d(folder, "assets", "make-tiny", folder)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return folder


@pytest.fixture(scope="module")
def portraits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two photographs: one person facing us, and mirrored, cut closer and darker."""
    folder = tmp_path_factory.mktemp("portraits")
    picture = astronaut()
    Image.fromarray(picture).save(folder / "ann.png")
    closer = (picture[:420, ::-1][:, 80:470] * 0.85).astype(np.uint8)
    Image.fromarray(closer).save(folder / "eve.jpg", quality=95)
    return folder


@dataclass(frozen=True)
class Batch:
    """A finished run."""

    out: Path
    ended: subprocess.CompletedProcess[str]

    @cached_property
    def rows(self) -> dict[str, dict]:
        rows = pq.read_table(self.out / "manifest").to_pylist()
        return {Path(row["source_uri"]).stem: row for row in rows}

    def artifact(self, name: str, stage: str) -> Path:
        """Folder of the files a stage left for one portrait."""
        avatar = self.rows[name]["avatar_id"]
        (folder,) = self.out.glob(f"avatars/*/{avatar}*/{stage}/attempt-*")
        return folder


@pytest.fixture(scope="module")
def batch(assets: Path, portraits: Path, tmp_path_factory: pytest.TempPathFactory) -> Batch:
    out = tmp_path_factory.mktemp("batch") / "out"
    ended = fc4d(assets, "run", portraits, "--out", out, "--config", "tiny")
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return Batch(out, ended)


def test_both_portraits_become_avatars(batch: Batch) -> None:
    assert set(batch.rows) == {"ann", "eve"}
    for row in batch.rows.values():
        assert row["status"] == "succeeded"
        assert all(row[f"seconds_{stage}"] > 0 for stage in STAGES)
        names = {path.name for path in Path(row["avatar_uri"]).iterdir()}
        assert {"avatar.ply", "rig.npz", "preview.png", "turntable.mp4", "record.json"} <= names


def test_every_stage_was_the_papers(batch: Batch) -> None:
    used = load_config("tiny")
    for stage in ("shape", "image", "video", "track", "train"):
        section = used.section(stage)
        assert section.variant == load_config("paper").section(stage).variant
        assert batch.artifact("ann", stage).is_dir()
    image = json.loads((batch.artifact("ann", "image") / "image.json").read_text())
    assert image["unet_rows"] > 0, "the diffusion model was called"
    shape = json.loads((batch.artifact("ann", "shape") / "shape.json").read_text())
    track = json.loads((batch.artifact("ann", "track") / "track.json").read_text())
    assert track["head"].startswith("flame2023-open"), "FLAME's format was tracked"
    assert any("latent" in key or "tuning" in key for key in shape), "the portrait was inverted"


def test_clips_are_in_step_and_stand_still_elsewhere(batch: Batch) -> None:
    folder = batch.artifact("ann", "video")
    record = json.loads((folder / "video.json").read_text())
    assert record["views"][0] == "reference" and len(record["views"]) == 6
    assert len(record["still_views"]) == 19 and len(record["clips"]) == 1
    counts = set()
    for view in record["views"]:
        with ClipReader(folder / "clips" / record["clips"][0] / f"{view}.clip") as reader:
            counts.add((len(reader), *reader.size))
    assert counts == {(2, 128, 128)}


def test_the_reference_keeps_the_portraits_pixels(batch: Batch) -> None:
    """Only the reference is a person here: what moves it must leave its picture recognisable."""
    portrait = cv2.imread(str(batch.artifact("ann", "ingest") / "portrait.png"))
    folder = batch.artifact("ann", "video")
    (clip,) = json.loads((folder / "video.json").read_text())["clips"]
    with ClipReader(folder / "clips" / clip / "reference.clip") as reader:
        frame = reader.frame(0)
    small = cv2.resize(portrait, (128, 128), interpolation=cv2.INTER_AREA)[..., ::-1]
    solid = frame[..., 3] > 250
    assert solid.mean() > 0.1
    assert np.corrcoef(frame[..., :3][solid].ravel(), small[solid].ravel())[0, 1] > 0.8


def test_heavy_models_have_actors_and_gpu_shares_of_their_own(
    assets: Path, portraits: Path, tmp_path: Path
) -> None:
    """Two GPUs that exist by word only: models are loaded for real, on the CPU."""
    journal, out = tmp_path / "journal", tmp_path / "out"
    shares = [f"run.stages.{stage}.gpus={share}" for stage, share in HEAVY_SHARES.items()]
    arguments = [str(portraits / "ann.png"), str(out)]
    overrides = ["registry=witness_stages:REGISTRY", "run.threads=1", *shares]
    program = (
        "import json, ray, sys\n"
        "from fc4d_ray.config import load_config\n"
        "from fc4d_ray.pipeline.run import run\n"
        "ray.init(address='local', num_cpus=8, num_gpus=2, include_dashboard=False,\n"
        "         object_store_memory=100 * 2**20, log_to_driver=False, logging_level='ERROR')\n"
        "portraits, out, overrides = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])\n"
        "sys.exit(run([portraits], out, load_config('tiny', overrides)).exit_code)\n"
    )
    environment = os.environ | {"FC4D_ASSETS": str(assets), "FC4D_TEST_JOURNAL": str(journal)}
    ended = subprocess.run(
        [sys.executable, "-c", program, *arguments, json.dumps(overrides)],
        capture_output=True, text=True, timeout=RUN_TIMEOUT_S, env=environment, check=False,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stdout + ended.stderr
    notes = defaultdict(list)
    for line in journal.read_text().splitlines():
        note = json.loads(line)
        notes[note["stage"]].append(note)
    assert all(len(notes[stage]) == 1 for stage in STAGES)
    for stage, share in HEAVY_SHARES.items():
        for note in notes[stage]:
            assert note["gpus"] == pytest.approx(share), stage
            assert note["devices"] in ("0", "1"), stage
    owners = {"shape": "PanoHeadGenerator", "image": "UNet2DConditionModel",
              "video": "WarpingModule"}  # fmt: skip
    for stage, model in owners.items():
        assert all(note["models"] == [model] for note in notes[stage]), stage
        assert all(note["actor"] for note in notes[stage]), stage
    processes = {stage: {note["process"] for note in notes[stage]} for stage in owners}
    assert not processes["shape"] & processes["image"]
    assert not processes["image"] & processes["video"]
    assert not processes["shape"] & processes["video"]
    light = [note for stage in ("ingest", "train") for note in notes[stage]]
    assert all(note["models"] == [] for note in light)
    assert all(note["gpus"] == 0 for note in notes["ingest"])
