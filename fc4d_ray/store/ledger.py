"""Attempt ledger: which work ended its process, told apart from work that was merely interrupted.

Before a stage starts, its attempt is entered; whatever way Python leaves the stage (result, error,
SIGTERM, Ctrl-C), the entry is struck out again. An entry that is still there belongs to a process
that died hard. It counts towards quarantine only if its node and its driver outlived it and it
had advanced nothing: preempted machines, killed drivers and long trainings that resume from a
checkpoint never count.
"""

from __future__ import annotations

import contextlib
import os
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

from fc4d_ray.errors import PoisonInput
from fc4d_ray.store import layout
from fc4d_ray.store.artifacts import Work
from fc4d_ray.store.checkpoints import kept_since
from fc4d_ray.store.digests import readable_json
from fc4d_ray.store.filesystem import Storage

CRASHES_ALLOWED = 3


@dataclass(frozen=True)
class ProcessIdentity:
    """Who attempts: enough to find out later why it stopped."""

    run_id: str
    """One driver process; another run id means another driver."""
    node_id: str
    pid: int = field(default_factory=os.getpid)


@dataclass(frozen=True)
class Witness:
    """What a later attempt knows about the world an earlier one died in."""

    me: ProcessIdentity
    node_is_alive: Callable[[str], bool]
    run_is_alive: Callable[[str], bool] = lambda run_id: False
    """Whether another run's driver is at work: its entries are its own to judge."""

    def saw_crash(self, entry: dict[str, Any]) -> bool:
        """Whether the entry's process died although its driver and its node lived on."""
        if entry.get("run_id") != self.me.run_id:
            return False
        if not self.node_is_alive(str(entry.get("node_id"))):
            return False
        on_my_node = entry.get("node_id") == self.me.node_id
        return not (on_my_node and _is_running(int(entry.get("pid", 0)), self.me.pid))


def _is_running(pid: int, own_pid: int) -> bool:
    if pid in (0, own_pid):
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return not _is_zombie(pid)


def _is_zombie(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as file:
            return file.read().rpartition(")")[2].split()[0] == "Z"
    except (OSError, IndexError):
        return False


class AttemptLedger:
    """Entries of attempts under way and of crashes, on the output's storage."""

    def __init__(self, storage: Storage, witness: Witness) -> None:
        self.storage = storage
        self.witness = witness

    def crashes(self, work: Work, generation: int) -> int:
        """How often this work has ended its process; judges entries left by dead processes."""
        folder = layout.ledger(work.avatar_id, work.stage, work.key, generation)
        names = self.storage.names(folder)
        counted = {name.removesuffix(".crash") for name in names if name.endswith(".crash")}
        for name in names:
            attempt_id = name.removesuffix(".json")
            if name == attempt_id or attempt_id in counted:
                continue
            if self._judge(work, folder, name):
                counted.add(attempt_id)
        return len(counted)

    def _judge(self, work: Work, folder: str, name: str) -> bool:
        try:
            entry = self.storage.read_json(f"{folder}/{name}")
        except FileNotFoundError:
            return False
        if self.witness.saw_crash(entry) and not self._advanced(work, entry):
            self._convict(folder, name, entry)
            return True
        run_id = str(entry.get("run_id"))
        if run_id != self.witness.me.run_id and not self.witness.run_is_alive(run_id):
            self.storage.remove(f"{folder}/{name}")
        return False

    def _convict(self, folder: str, name: str, entry: dict[str, Any]) -> None:
        verdict = f"{folder}/{name.removesuffix('.json')}.crash"
        self.storage.create(verdict, readable_json(entry))
        self.storage.remove(f"{folder}/{name}")

    def _advanced(self, work: Work, entry: dict[str, Any]) -> bool:
        """Whether a checkpoint was kept after the attempt began."""
        return kept_since(self.storage, work, float(entry.get("started_at", 0.0)))

    @contextlib.contextmanager
    def attempt(self, work: Work, generation: int) -> Iterator[Entry]:
        """Hold an entry for the block. Raises ``PoisonInput`` after too many crashes.

        A block that ends well closes the work's whole account.
        """
        crashes = self.crashes(work, generation)
        if crashes >= CRASHES_ALLOWED:
            raise PoisonInput(
                f"stage {work.stage} ended its process {crashes} times on this portrait; "
                "fc4d retry starts over"
            )
        folder = layout.ledger(work.avatar_id, work.stage, work.key, generation)
        name = f"{uuid.uuid4().hex[:12]}.json"
        content = asdict(self.witness.me) | {"started_at": time.time()}
        self.storage.create(f"{folder}/{name}", readable_json(content))
        try:
            yield Entry(self, folder, name, content)
        except BaseException:
            self.storage.prune(f"{folder}/{name}")
            raise
        self.storage.prune(folder)


@dataclass(frozen=True)
class Entry:
    """An attempt under way."""

    _ledger: AttemptLedger
    _folder: str
    _name: str
    _content: dict[str, Any]

    def count_as_crash(self) -> None:
        """The process must be given up because of this attempt: the same as if it had died."""
        self._ledger._convict(self._folder, self._name, self._content)

    def strike_out(self) -> None:
        """Nobody is to blame although the process is about to end."""
        self._ledger.storage.remove(f"{self._folder}/{self._name}")
