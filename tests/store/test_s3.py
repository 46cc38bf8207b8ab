"""The store on a real S3 API, served on loopback."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fc4d_ray.config import load_config
from fc4d_ray.pipeline.run import run
from fc4d_ray.store import read_manifest
from fc4d_ray.store.filesystem import Storage

moto_server = pytest.importorskip("moto.server", reason="moto is not installed (extra [dev])")


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    import s3fs

    server = moto_server.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    s3fs.S3FileSystem.clear_instance_cache()
    name = f"bucket-{uuid.uuid4().hex[:8]}"
    s3fs.S3FileSystem().mkdir(name)
    yield f"s3://{name}"
    s3fs.S3FileSystem.clear_instance_cache()
    server.stop()


def test_of_many_writers_exactly_one_wins(bucket: str) -> None:
    barrier = threading.Barrier(6)
    won: list[int] = []

    def write(number: int) -> None:
        storage = Storage(f"{bucket}/out")
        barrier.wait()
        if storage.create("record.json", str(number).encode()):
            won.append(number)

    threads = [threading.Thread(target=write, args=(n,)) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(won) == 1
    assert Storage(f"{bucket}/out").read("record.json") == str(won[0]).encode()


def test_a_run_from_a_prefix_into_a_prefix(
    bucket: str, fake_config: Path, portraits: Callable[..., Path]
) -> None:
    source = Storage(f"{bucket}/in")
    for path in portraits(ann="ann", bob="bob fail:train", copy="ann").iterdir():
        source.upload(path, f"people/{path.name}")
    config = load_config(fake_config, ["run.runner=local"])
    summary = run([f"{bucket}/in"], f"{bucket}/out", config)
    assert (summary.succeeded, summary.failed, summary.duplicates) == (1, 1, 1)
    assert run([f"{bucket}/in"], f"{bucket}/out", config).worked == 0
    rows = read_manifest(f"{bucket}/out").to_pylist()
    assert [row["status"] for row in rows] == ["succeeded", "failed", "duplicate"]
    assert Storage(rows[0]["avatar_uri"]).names("") == ["record.json", "result.txt"]
    assert Storage(f"{bucket}/out").names("ledger") == []
