"""Checkpoints on a disk and on a store without folders to write into."""

from __future__ import annotations

import time
import uuid
from pathlib import Path

import pytest

from fc4d_ray.errors import StoreError
from fc4d_ray.store import layout
from fc4d_ray.store.artifacts import Work
from fc4d_ray.store.checkpoints import checkpoint_folder, kept_since
from fc4d_ray.store.filesystem import Storage

WORK = Work("ab12", "train", "0123abcd")
PLACE = layout.checkpoint(WORK.avatar_id, WORK.stage, WORK.key)


@pytest.fixture(params=["local", "memory"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Storage:
    if request.param == "local":
        return Storage(str(tmp_path / "out"))
    return Storage(f"memory://checkpoints-{uuid.uuid4().hex}")


def test_the_next_attempt_goes_on_where_the_last_one_stopped(
    storage: Storage, tmp_path: Path
) -> None:
    began = time.time() - 1
    assert not kept_since(storage, WORK, began)
    with pytest.raises(ZeroDivisionError), checkpoint_folder(storage, WORK, tmp_path) as folder:
        assert not list(folder.iterdir())
        (folder / "training.pt").write_text("step 100")
        (folder / ".training.pt.7").write_text("half")
        raise ZeroDivisionError
    assert kept_since(storage, WORK, began)
    assert not kept_since(storage, WORK, time.time() + 1)
    with checkpoint_folder(storage, WORK, tmp_path) as folder:
        assert (folder / "training.pt").read_text() == "step 100"
    assert storage.names(PLACE) == [], "the work is done"
    with checkpoint_folder(storage, WORK, tmp_path) as folder:
        assert not list(folder.iterdir())


@pytest.fixture
def remote() -> Storage:
    return Storage(f"memory://checkpoints-{uuid.uuid4().hex}")


def wait_for_index(storage: Storage, after: float) -> None:
    deadline = time.monotonic() + 10
    while not kept_since(storage, WORK, after):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_checkpoints_are_sent_while_the_work_goes_on(remote: Storage, tmp_path: Path) -> None:
    with checkpoint_folder(remote, WORK, tmp_path, watch_seconds=0.02) as folder:
        for step in ("100", "2000"):
            after = time.time()
            (folder / "training.pt").write_text(step)
            wait_for_index(remote, after)
        deadline = time.monotonic() + 10
        while len(remote.names(PLACE)) != 2:  # the index and its file; what was replaced is gone
            assert time.monotonic() < deadline
            time.sleep(0.01)
        # Killed here, nothing below this line would run, and another machine starts from there.
        with checkpoint_folder(remote, WORK, tmp_path) as other:
            assert (other / "training.pt").read_text() == "2000"


def test_a_set_that_is_incomplete_or_damaged_counts_as_none(
    remote: Storage, tmp_path: Path
) -> None:
    with pytest.raises(KeyError), checkpoint_folder(remote, WORK, tmp_path) as folder:
        (folder / "a.pt").write_text("a")
        (folder / "b.pt").write_text("b")
        raise KeyError
    (place,) = (name for name in remote.names(PLACE) if name.endswith("a.pt"))
    remote.replace(f"{PLACE}/{place}", b"x")
    with checkpoint_folder(remote, WORK, tmp_path) as folder:
        assert not list(folder.iterdir())


def test_a_storage_that_fails_costs_progress_and_no_portrait(
    remote: Storage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*args: object) -> None:
        raise StoreError("down")

    monkeypatch.setattr(Storage, "upload", fail)
    with checkpoint_folder(remote, WORK, tmp_path, watch_seconds=0.01) as folder:
        (folder / "a.pt").write_text("a")
        time.sleep(0.1)
    assert remote.names(PLACE) == []
