from __future__ import annotations

import errno
import os
import pickle
import threading
import uuid
from pathlib import Path

import pytest

from fc4d_ray.errors import StoreError
from fc4d_ray.store.filesystem import Storage


@pytest.fixture(params=["local", "memory"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Storage:
    if request.param == "local":
        return Storage(str(tmp_path / "out"))
    return Storage(f"memory://{uuid.uuid4().hex}")


def test_create_writes_only_where_nothing_stands(storage: Storage) -> None:
    assert storage.create("a/b.json", b"first")
    assert not storage.create("a/b.json", b"second")
    assert storage.read("a/b.json") == b"first"
    assert storage.names("a") == ["b.json"], "no temporary files remain"


def test_replace_overwrites(storage: Storage) -> None:
    storage.replace("a", b"1")
    storage.replace("a", b"22")
    assert storage.read("a") == b"22"
    assert storage.size("a") == 2
    assert storage.size("b") is None


def test_names_are_sorted_and_empty_where_there_is_no_folder(storage: Storage) -> None:
    for name in ("d/z", "d/a", "d/m/x"):
        storage.create(name, b"")
    assert storage.names("d") == ["a", "m", "z"]
    assert storage.names("nowhere") == []


def test_remove_takes_files_folders_and_nothing(storage: Storage) -> None:
    for name in ("d/a", "d/e/b", "f"):
        storage.create(name, b"x")
    storage.remove("d")
    storage.remove("f")
    storage.remove("never")
    assert not storage.exists("d/e/b") and not storage.exists("f")


def test_reading_what_is_not_there(storage: Storage) -> None:
    with pytest.raises(FileNotFoundError):
        storage.read("nothing")


def test_damaged_json_is_named(storage: Storage) -> None:
    storage.create("x.json", b"{")
    with pytest.raises(StoreError, match=r"x\.json is damaged"):
        storage.read_json("x.json")


def test_upload_and_download(storage: Storage, tmp_path: Path) -> None:
    (tmp_path / "source").write_bytes(b"pixels")
    storage.upload(tmp_path / "source", "deep/down/file")
    storage.download("deep/down/file", tmp_path / "copies" / "copy")
    assert (tmp_path / "copies" / "copy").read_bytes() == b"pixels"


def test_prune_removes_empty_folders_but_no_others(tmp_path: Path) -> None:
    storage = Storage(str(tmp_path))
    storage.create("ledger/ab/id/work/0000/x.json", b"")
    storage.create("ledger/ab/other", b"")
    storage.prune("ledger/ab/id/work/0000/x.json")
    assert storage.names("ledger/ab") == ["other"]


def test_pickles_without_its_connection(storage: Storage) -> None:
    storage.create("a", b"x")
    assert pickle.loads(pickle.dumps(storage)).uri == storage.uri


def test_of_many_writers_exactly_one_wins(tmp_path: Path) -> None:
    storage = Storage(str(tmp_path))
    barrier = threading.Barrier(8)
    won: list[int] = []

    def write(number: int) -> None:
        barrier.wait()
        if storage.create("record.json", str(number).encode()):
            won.append(number)

    threads = [threading.Thread(target=write, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(won) == 1
    assert storage.read("record.json") == str(won[0]).encode()
    assert storage.names("") == ["record.json"]


@pytest.mark.parametrize(
    ("number", "message"), [(errno.ENOSPC, "the disk is full"), (errno.EROFS, "read-only")]
)
def test_a_failing_disk_is_a_store_error_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, message: str
) -> None:
    storage = Storage(str(tmp_path))

    def fail(descriptor: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(StoreError, match=message):
        storage.create("a", b"x")
    assert list(tmp_path.iterdir()) == []


def test_unknown_protocol_is_a_store_error() -> None:
    with pytest.raises(StoreError, match="nosuch"):
        Storage("nosuch://bucket").names("")
