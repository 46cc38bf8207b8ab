"""Jobs log as the environment asks: every line they write to stderr is JSON then."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

JOB = Path(__file__).resolve().parents[2] / "jobs" / "generate.py"


def job(form: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(JOB), *arguments],
        env=os.environ | {"FC4D_LOG_FORMAT": form},
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_a_job_logs_json_with_avatar_and_stage(
    portraits: Callable[..., Path], fake_config: Path, tmp_path: Path
) -> None:
    folder = portraits(ann="ann", eve="eve fail:train")
    arguments = [str(folder), "--out", str(tmp_path / "out"), "--config", str(fake_config)]
    done = job("json", *arguments, "--runner", "local")
    assert done.returncode == 3 and "1 succeeded, 1 failed" in done.stdout
    records = [json.loads(line) for line in done.stderr.splitlines()]
    trained = [r for r in records if r.get("stage") == "train" and r.get("event") == "done"]
    assert len(trained) == 1 and len(trained[0]["avatar_id"]) == 32
    (failure,) = [r for r in records if r.get("status") == "failed"]
    assert failure["level"] == "warning" and "the fit went astray" in failure["message"]


def test_an_unknown_form_is_a_usage_error(tmp_path: Path) -> None:
    done = job("xml", str(tmp_path), "--out", str(tmp_path / "out"))
    assert done.returncode == 2 and "must be text or json" in done.stderr
    assert not (tmp_path / "out").exists()
