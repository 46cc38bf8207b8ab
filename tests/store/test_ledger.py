from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fc4d_ray.errors import PoisonInput
from fc4d_ray.store import layout
from fc4d_ray.store.artifacts import Work
from fc4d_ray.store.filesystem import Storage
from fc4d_ray.store.ledger import CRASHES_ALLOWED, AttemptLedger, ProcessIdentity, Witness

WORK = Work("ab12", "train", "0123abcd")


def ledger(
    storage: Storage, run_id: str = "run", node: str = "node", alive: tuple[str, ...] = ("node",)
) -> AttemptLedger:
    me = ProcessIdentity(run_id, node, os.getpid())
    return AttemptLedger(storage, Witness(me, lambda node_id: node_id in alive))


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    return Storage(str(tmp_path))


@pytest.fixture(scope="module")
def dead_pid() -> int:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


@pytest.fixture
def leave_entry(storage: Storage) -> Iterator[Callable[..., None]]:
    """Leaves what a process that was killed in the middle of its attempt leaves behind."""
    abandoned = []

    def leave(pid: int, run_id: str = "run", node: str = "node") -> None:
        witness = Witness(ProcessIdentity(run_id, node, pid), lambda node_id: False)
        attempt = AttemptLedger(storage, witness).attempt(WORK, 0)
        attempt.__enter__()
        abandoned.append(attempt)  # an attempt that is collected would tidy up after itself

    yield leave


def test_work_that_ends_leaves_no_entry(storage: Storage) -> None:
    with ledger(storage).attempt(WORK, 0):
        assert len(storage.names(layout.ledger(WORK.avatar_id, "train", WORK.key, 0))) == 1
    for error in (ValueError, SystemExit, KeyboardInterrupt):
        with pytest.raises(error), ledger(storage).attempt(WORK, 0):
            raise error
    assert ledger(storage).crashes(WORK, 0) == 0
    assert storage.names("ledger") == [] or storage.names("ledger/ab") == []


def test_three_crashes_are_quarantined_and_a_retry_starts_over(
    storage: Storage, dead_pid: int, leave_entry: Callable[..., None]
) -> None:
    for count in range(CRASHES_ALLOWED):
        assert ledger(storage).crashes(WORK, 0) == count
        leave_entry(dead_pid)
    with (
        pytest.raises(PoisonInput, match="ended its process 3 times"),
        ledger(storage).attempt(WORK, 0),
    ):
        pytest.fail("the work must not start")
    with ledger(storage).attempt(WORK, 1):
        pass


def test_crashes_are_remembered_by_later_runs(
    storage: Storage, dead_pid: int, leave_entry: Callable[..., None]
) -> None:
    leave_entry(dead_pid)
    assert ledger(storage).crashes(WORK, 0) == 1
    assert ledger(storage, run_id="next").crashes(WORK, 0) == 1


def test_a_driver_that_died_excuses_its_workers(
    storage: Storage, dead_pid: int, leave_entry: Callable[..., None]
) -> None:
    for number in range(5):
        leave_entry(dead_pid, run_id=f"killed-{number}")
        assert ledger(storage).crashes(WORK, 0) == 0


def test_a_node_that_died_excuses_its_workers(
    storage: Storage, dead_pid: int, leave_entry: Callable[..., None]
) -> None:
    for number in range(5):
        leave_entry(dead_pid, node=f"gone-{number}")
        assert ledger(storage).crashes(WORK, 0) == 0


def test_a_process_that_lives_is_no_crash(
    storage: Storage, leave_entry: Callable[..., None]
) -> None:
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    try:
        leave_entry(process.pid)
        assert ledger(storage).crashes(WORK, 0) == 0
    finally:
        process.kill()
        process.wait()
    assert ledger(storage).crashes(WORK, 0) == 1


def test_a_training_that_advanced_is_no_crash(
    storage: Storage, dead_pid: int, leave_entry: Callable[..., None]
) -> None:
    leave_entry(dead_pid)
    checkpoint = storage.local_path(layout.checkpoint(WORK.avatar_id, WORK.stage, WORK.key))
    checkpoint.mkdir(parents=True)
    (checkpoint / "step-1000").touch()
    os.utime(checkpoint / "step-1000", (time.time() + 5, time.time() + 5))
    assert ledger(storage).crashes(WORK, 0) == 0


def test_a_living_run_s_entries_are_its_own_to_judge(
    storage: Storage, dead_pid: int, leave_entry: Callable[..., None]
) -> None:
    leave_entry(dead_pid, run_id="other")
    me = ProcessIdentity("run", "node", os.getpid())
    beside = AttemptLedger(storage, Witness(me, lambda node: True, lambda run_id: True))
    after = AttemptLedger(storage, Witness(me, lambda node: True, lambda run_id: False))
    folder = layout.ledger(WORK.avatar_id, "train", WORK.key, 0)
    assert beside.crashes(WORK, 0) == 0 and len(storage.names(folder)) == 1
    assert ledger(storage, run_id="other").crashes(WORK, 0) == 1, "the other driver saw it"
    leave_entry(dead_pid, run_id="third")
    assert after.crashes(WORK, 0) == 1
    assert [name for name in storage.names(folder) if name.endswith(".json")] == []


def test_an_attempt_can_be_given_up_as_a_crash(storage: Storage) -> None:
    with pytest.raises(RuntimeError), ledger(storage).attempt(WORK, 0) as entry:
        entry.count_as_crash()
        raise RuntimeError("the device is poisoned")
    assert ledger(storage).crashes(WORK, 0) == 1
    with ledger(storage).attempt(WORK, 0):
        pass
    assert ledger(storage).crashes(WORK, 0) == 0, "work that ends well closes its account"
