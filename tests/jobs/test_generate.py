"""``ray job submit -- python jobs/generate.py`` on a real head: stopped, submitted again, complete.

Everything listens on loopback, on ports and in a temporary folder of its own, and is ended by
process id.
"""

from __future__ import annotations

import os
import random
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from fc4d_ray.pipeline.status import read_status
from fc4d_ray.store import read_manifest

pytest.importorskip("aiohttp_cors", reason="Ray's job server needs the extra [cluster]")

REPOSITORY = Path(__file__).resolve().parents[2]
NAMES = ("ann", "bob", "cid", "dan", "eve", "fia", "gus", "hal", "ida")
RAY = [sys.executable, "-m", "ray.scripts.scripts"]


@dataclass(frozen=True)
class Head:
    """A running ``ray start --head``."""

    address: str
    metrics: str
    environment: dict[str, str]

    def submit(self, name: str, *arguments: str) -> None:
        command = ["job", "submit", "--address", self.address, "--no-wait", "--submission-id", name]
        script = [sys.executable, str(REPOSITORY / "jobs" / "generate.py"), *arguments]
        for _ in range(5):  # the head answers before the agent that starts jobs does
            answer = subprocess.run(
                [*RAY, *command, "--", *script],
                env=self.environment,
                timeout=120,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
            if answer.returncode == 0:
                return
            time.sleep(2)
        raise AssertionError(answer.stdout)


def free_ports(count: int) -> list[int]:
    """Ports nobody listens on, away from those Ray gives to its workers."""
    sockets = []
    while len(sockets) < count:
        candidate = socket.socket()
        try:
            candidate.bind(("127.0.0.1", random.randint(20_000, 32_000)))
            sockets.append(candidate)
        except OSError:
            candidate.close()
    ports = [candidate.getsockname()[1] for candidate in sockets]
    for candidate in sockets:
        candidate.close()
    return ports


def children(pid: int) -> list[int]:
    """All descendants of a process."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text(errors="replace").rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[1]) == pid:
            child = int(path.parent.name)
            found += [child, *children(child)]
    return found


@pytest.fixture
def head() -> Iterator[Head]:
    port, dashboard, agent, client, metrics = free_ports(5)
    environment = os.environ | {"RAY_metrics_report_interval_ms": "500"}
    environment.pop("RAY_ADDRESS", None)
    with tempfile.TemporaryDirectory(prefix="r-", dir="/tmp", ignore_cleanup_errors=True) as folder:
        options = {
            "port": port,
            "dashboard-host": "127.0.0.1",
            "dashboard-port": dashboard,
            "dashboard-agent-listen-port": agent,
            "ray-client-server-port": client,
            "metrics-export-port": metrics,
            "node-ip-address": "127.0.0.1",
            "temp-dir": folder,
            "num-cpus": 4,
            "object-store-memory": 100 * 2**20,
        }
        flags = [f"--{name}={value}" for name, value in options.items()]
        with open(Path(folder) / "head.log", "w") as log:
            process = subprocess.Popen(
                [*RAY, "start", "--head", "--block", "--disable-usage-stats", *flags],
                env=environment,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        address = f"http://127.0.0.1:{dashboard}"
        try:
            wait_for(lambda: answers(f"{address}/api/version"), 240, process)
            yield Head(address, f"http://127.0.0.1:{metrics}/metrics", environment)
        finally:
            family = children(process.pid)
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
            for pid in family:
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    continue


def answers(url: str) -> str:
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return answer.read().decode()
    except OSError:
        return ""


def wait_for(
    condition: Callable[[], object], seconds: float, process: subprocess.Popen[bytes] | None = None
) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert process is None or process.poll() is None, "the head has ended"
        assert time.monotonic() < deadline, "this never happened"
        time.sleep(0.2)


@pytest.mark.slow
def test_a_job_that_was_stopped_and_submitted_again_completes(
    head: Head, portraits: Callable[..., Path], fake_config: Path, tmp_path: Path
) -> None:
    from ray.job_submission import JobStatus, JobSubmissionClient

    out = tmp_path / "out"
    folder = portraits(**{name: name for name in NAMES})
    (folder / "zoe.png").write_text("zoe fail:train")
    arguments = [str(folder), "--out", str(out), "--config", str(fake_config)]
    client = JobSubmissionClient(head.address)

    head.submit("first", *arguments, "--set", "train.seconds=2", "--set", "run.workers=1")
    exported = re.compile(r'ray_fc4d_stage_seconds_count\{.*stage="train"')
    wait_for(lambda: exported.search(answers(head.metrics)), 240)
    text = answers(head.metrics)
    assert re.search(r'ray_fc4d_portraits\{.*state="total".*\} 10\.0', text)
    ids = [path.name for path in out.glob("records/*/*")]
    assert ids and not any(avatar_id in text for avatar_id in ids), "no ids as tags"
    assert read_status(str(out))["latest_run"]["state"] == "running"
    client.stop_job("first")
    wait_for(lambda: client.get_job_status("first").is_terminal(), 60)
    assert client.get_job_status("first") == JobStatus.STOPPED
    finished = len(list(out.glob("records/*/*/*.json")))
    assert 0 < finished < 10

    head.submit("second", *arguments, "--set", "train.seconds=2", "--set", "run.workers=3")
    wait_for(lambda: client.get_job_status("second").is_terminal(), 240)
    logs = client.get_job_logs("second")
    assert client.get_job_status("second") == JobStatus.FAILED, "a failed portrait: exit code 3"
    assert "9 succeeded, 1 failed" in logs and "done before" in logs, logs
    rows = read_manifest(str(out)).to_pylist()
    assert sorted(row["status"] for row in rows) == ["failed"] + ["succeeded"] * 9
    journal = (tmp_path / "journal").read_text().splitlines()
    assert max(journal.count(f"{name} train") for name in NAMES) <= 2
    done_twice = sum(journal.count(f"{name} train") for name in NAMES) - len(NAMES)
    assert 0 <= done_twice <= 4, "only what was under way when the job was stopped"
