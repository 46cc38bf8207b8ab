"""What only a cluster can show: lost processes, deadlines, front groups."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from fc4d_ray.config import load_config
from fc4d_ray.errors import ConfigError
from fc4d_ray.pipeline.run import RunSummary, run
from fc4d_ray.store import read_manifest

Portraits = Callable[..., Path]
pytestmark = pytest.mark.usefixtures("ray_cluster")


def fc4d(folder: Path, out: Path, config: Path, *overrides: str) -> RunSummary:
    return run([str(folder)], str(out), load_config(config, overrides))


def errors(out: Path) -> dict[str, tuple[str | None, str | None]]:
    return {
        Path(row["source_uri"]).stem: (row["failed_stage"], row["error_type"])
        for row in read_manifest(str(out)).to_pylist()
    }


def test_portraits_that_kill_or_hold_their_process_harm_no_other(
    portraits: Portraits, fake_config: Path, tmp_path: Path
) -> None:
    folder = portraits(
        ann="ann",
        bob="bob",
        kim="kim kill:shape",
        lou="lou kill:train",
        max="max killonce:train",
        ivy="ivy hang:shape",
        zoe="zoe poison:train",
    )
    limit = "run.stages.shape.deadline_minutes=0.03"
    summary = fc4d(folder, tmp_path / "out", fake_config, limit)
    assert errors(tmp_path / "out") == {
        "ann": (None, None),
        "bob": (None, None),
        "kim": ("shape", "PoisonInput"),
        "lou": ("train", "PoisonInput"),
        "max": (None, None),
        "ivy": ("shape", "DeadlineExceeded"),
        "zoe": ("train", "PoisonInput"),
    }
    assert summary.exit_code == 3
    work = (tmp_path / "journal").read_text().splitlines()
    assert work.count("kim shape") == 3
    assert work.count("lou train") == 3
    assert work.count("max train") == 2
    assert work.count("ivy shape") == 1, "what hangs once is not tried again"
    assert work.count("zoe train") == 3, "a poisoned device counts like a crash"
    assert work.count("kim ingest") == 1, "what was done before the crash is kept"
    assert not list((tmp_path / "out" / "records").glob("**/.*")), "no temporary files"


def test_a_training_beyond_its_deadline_is_cancelled(
    portraits: Portraits, fake_config: Path, tmp_path: Path
) -> None:
    folder = portraits(ann="ann")
    overrides = ("train.seconds=600", "run.stages.train.deadline_minutes=0.01")
    summary = fc4d(folder, tmp_path / "out", fake_config, *overrides)
    assert errors(tmp_path / "out") == {"ann": ("train", "DeadlineExceeded")}
    assert summary.seconds < 300


def test_front_stages_may_have_workers_of_their_own(
    portraits: Portraits, fake_config: Path, tmp_path: Path
) -> None:
    folder = portraits(ann="ann", eve="eve fail:ingest")
    split = "run.front_groups=[[ingest],[shape]]"
    assert fc4d(folder, tmp_path / "out", fake_config, split).failed == 1
    assert errors(tmp_path / "out") == {"ann": (None, None), "eve": ("ingest", "StageFailed")}
    with pytest.raises(ConfigError, match="front_groups must hold the front stages"):
        fc4d(folder, tmp_path / "other", fake_config, "run.front_groups=[[shape]]")


@pytest.mark.slow
def test_a_run_with_a_cluster_of_its_own_stops_cleanly_and_continues(
    portraits: Portraits, fake_config: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    folder = portraits(**{name: name for name in ("ann", "bob", "cid", "dan")})
    arguments = ["run", str(folder), "--out", str(out), "--config", str(fake_config)]
    command = [sys.executable, "-c", "from fc4d_ray.cli import app; app()", *arguments]
    process = subprocess.Popen(
        [*command, "--set", "train.seconds=3"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    deadline = time.monotonic() + 90
    while len(list(out.glob("avatars/*/*/train/*.json"))) < 2:
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.1)
    process.send_signal(signal.SIGTERM)
    text, _ = process.communicate(timeout=60)
    assert process.returncode == 1, text
    assert "the same command continues" in text and "left in" in text
    before = (tmp_path / "journal").read_text().splitlines()
    assert before.count("ann shape") == 1
    summary = fc4d(folder, out, fake_config, "train.seconds=3")
    assert summary.exit_code == 0 and summary.rows == 4
    assert (tmp_path / "journal").read_text().splitlines().count("ann shape") == 1
