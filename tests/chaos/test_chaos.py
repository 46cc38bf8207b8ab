"""Short form of the chaos tests; ``python tests/chaos/long_run.py`` is the long one."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from chaos_checks import check_output
from faulty_proxy import FaultyProxy
from monkey import Monkey

from fc4d_ray.config import load_config
from fc4d_ray.pipeline.run import RunSummary, run
from fc4d_ray.store.digests import digest_bytes
from fc4d_ray.store.filesystem import Storage
from fc4d_ray.store.location import open_output

Portraits = Callable[..., Path]
FINE = ("succeeded", None)


@pytest.mark.slow
@pytest.mark.usefixtures("ray_cluster")
def test_killed_workers_lose_and_double_nothing(
    portraits: Portraits, fake_config: Path, tmp_path: Path
) -> None:
    texts = {f"p{n}": f"p{n}" for n in range(7)} | {"poison": "poison kill:train"}
    folder, out = portraits(**texts), str(tmp_path / "out")
    config = load_config(fake_config, ["shape.seconds=0.2", "train.seconds=0.8"])
    open_output(out, create=True)
    monkey = Monkey(Storage(out), {digest_bytes(texts["poison"].encode())})
    over = threading.Event()

    def monkey_business() -> None:
        while not over.wait(0.7):
            monkey.kill_worker(("shape", "train") if sum(monkey.kills.values()) < 5 else ())

    thread = threading.Thread(target=monkey_business)
    thread.start()
    try:
        summary = run([str(folder)], out, config)
    finally:
        over.set()
        thread.join()
    assert sum(monkey.kills.values()) >= 2, "otherwise nothing was shown"
    assert (summary.succeeded, summary.failed) == (7, 1)
    expected = dict.fromkeys(texts, FINE) | {"poison": ("failed", "PoisonInput")}
    check_output(out, expected)


def test_a_driver_that_dies_five_times_costs_no_portrait(
    portraits: Portraits, fake_config: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    arguments = ["run", str(portraits(ann="ann")), "--out", str(out), "--config", str(fake_config)]
    arguments += ["--runner", "local", "--set", "train.seconds=30"]
    for count in range(5):
        process = _command(arguments)
        _wait(lambda: _journal(tmp_path).count("ann train") > count)  # noqa: B023
        process.send_signal(signal.SIGKILL)
        process.wait()
    config = load_config(fake_config, ["run.runner=local", "train.seconds=0"])
    assert run([str(tmp_path / "portraits")], str(out), config).exit_code == 0
    assert _journal(tmp_path).count("ann ingest") == 1


def _command(arguments: list[str]) -> subprocess.Popen[bytes]:
    code = "from fc4d_ray.cli import app; app()"
    return subprocess.Popen(
        [sys.executable, "-c", code, *arguments],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def _wait(condition: Callable[[], bool]) -> None:
    until = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < until, "this never happened"
        time.sleep(0.02)


def _journal(folder: Path) -> list[str]:
    path = folder / "journal"
    return path.read_text().splitlines() if path.exists() else []


# -- object stores -----------------------------------------------------------------------------


@pytest.fixture
def proxy(monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultyProxy]:
    """An S3 API server on loopback behind a proxy with faults; environment set for both."""
    moto_server = pytest.importorskip("moto.server", reason="moto is not installed (extra [dev])")
    import s3fs

    server = moto_server.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    with FaultyProxy(*server.get_host_and_port(), share=0.1) as proxy:
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            monkeypatch.setenv(name, "test")
        monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        monkeypatch.setenv("AWS_ENDPOINT_URL", "http://{}:{}".format(*server.get_host_and_port()))
        s3fs.S3FileSystem.clear_instance_cache()
        bucket = f"chaos-{uuid.uuid4().hex[:8]}"
        s3fs.S3FileSystem().mkdir(bucket)
        s3fs.S3FileSystem.clear_instance_cache()
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.address)
        proxy.bucket = f"s3://{bucket}"
        yield proxy
        s3fs.S3FileSystem.clear_instance_cache()
    server.stop()


def test_lost_answers_are_told_from_lost_races(proxy: FaultyProxy) -> None:
    """Every second answer is lost after the server did its work; one writer must win each race."""
    proxy.fault = lambda: "cut_after" if next(counter) % 2 else "none"  # type: ignore[method-assign]
    counter = iter(range(10**6))
    storage = Storage(f"{proxy.bucket}/out")
    for number in range(6):
        assert storage.create(f"record-{number}.json", b"mine"), number
        assert not storage.create(f"record-{number}.json", b"another's")
        assert storage.read(f"record-{number}.json") == b"mine"


def test_two_drivers_on_one_prefix_of_a_failing_store(
    proxy: FaultyProxy, portraits: Portraits, fake_config: Path
) -> None:
    texts = {f"p{n}": f"p{n}" for n in range(3)} | {"eve": "eve fail:train"}
    folder, out = portraits(**texts), f"{proxy.bucket}/out"
    config = load_config(fake_config, ["run.runner=local", "train.seconds=0.1"])
    summaries: list[RunSummary] = []
    errors: list[BaseException] = []

    def drive() -> None:
        try:
            summaries.append(run([str(folder)], out, config))
        except BaseException as error:
            errors.append(error)

    drivers = [threading.Thread(target=drive) for _ in range(2)]
    for driver in drivers:
        driver.start()
    for driver in drivers:
        driver.join()
    assert not errors, errors
    assert [(s.succeeded, s.failed) for s in summaries] == [(3, 1)] * 2
    assert sum(proxy.faults.values()) > 10 and proxy.faults["cut_after"] > 0
    proxy.share = 0.0
    found: dict[str, Any] = check_output(
        out, dict.fromkeys(texts, FINE) | {"eve": ("failed", "StageFailed")}
    )
    assert found["rows"] == 4
