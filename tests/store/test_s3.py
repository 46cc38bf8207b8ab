"""The store on a real S3 API, served on loopback."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

from fc4d_ray.config import load_config
from fc4d_ray.pipeline.run import run
from fc4d_ray.store import read_manifest
from fc4d_ray.store.filesystem import Storage


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
