"""Kills processes that work on portraits, none of them often enough to look like the portrait's
own fault: after two kills a portrait is spared, since a third one must be quarantined by design.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
from collections import Counter

from fc4d_ray.store import layout
from fc4d_ray.store.filesystem import Storage
from fc4d_ray.store.ledger import CRASHES_ALLOWED

POISON = "poison"
"""Portraits whose name begins like this are left alone: they end their process themselves."""


class Monkey:
    """Finds the processes at work through the attempt ledger, and kills some."""

    def __init__(self, storage: Storage, spared: set[str], seed: int = 0) -> None:
        self._storage = storage
        self._spared = spared
        """Avatars that are never killed."""
        self._random = random.Random(seed)
        self.kills: Counter[str] = Counter()
        """Worker processes killed, by avatar."""
        self.by_stage: Counter[str] = Counter()

    def kill_worker(self, stages: tuple[str, ...]) -> str | None:
        """SIGKILL a process at work on one of the stages; what it was, None where there is none."""
        victims = [
            (avatar, stage, pid)
            for avatar, stage, pid in self._at_work()
            if stage in stages
            and avatar not in self._spared
            and self.kills[avatar] < CRASHES_ALLOWED - 1
        ]
        if not victims:
            return None
        avatar, stage, pid = self._random.choice(victims)
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
            self.kills[avatar] += 1
            self.by_stage[stage] += 1
            return f"{avatar[:8]} {stage}"
        return None

    def _at_work(self) -> list[tuple[str, str, int]]:
        """(avatar, stage, pid) of the attempts under way."""
        found = []
        for shard in self._storage.names(layout.LEDGER):
            for avatar in self._storage.names(f"{layout.LEDGER}/{shard}"):
                root = f"{layout.LEDGER}/{shard}/{avatar}"
                for work in self._storage.names(root):
                    for generation in self._storage.names(f"{root}/{work}"):
                        folder = f"{root}/{work}/{generation}"
                        for name in self._storage.names(folder):
                            with contextlib.suppress(FileNotFoundError):
                                if name.endswith(".json"):
                                    entry = self._storage.read_json(f"{folder}/{name}")
                                    stage = work.rpartition("-")[0]
                                    found.append((avatar, stage, int(entry["pid"])))
        return found
