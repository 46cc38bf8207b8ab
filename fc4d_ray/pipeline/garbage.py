"""``fc4d gc``: what dead processes left behind, and files of finished avatars nobody wants to keep.

Left behind are attempts without a completion record, entries of the attempt ledger, checkpoints of
finished work and temporary files. None of it does harm; it takes room. A process that works on the
output leaves the same things while it lives, which is why a live run refuses the collection.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, fields
from typing import Any

from fc4d_ray.config import parse_config
from fc4d_ray.errors import RunError
from fc4d_ray.pipeline.status import running_runs
from fc4d_ray.store import layout
from fc4d_ray.store.artifacts import Artifact
from fc4d_ray.store.filesystem import Storage
from fc4d_ray.store.location import open_output
from fc4d_ray.store.records import AvatarRecord, RecordBook
from fc4d_ray.store.retention import Keep, dispensable, drop_artifacts

_PARALLEL = 16
_ATTEMPT = "attempt-"
_TEMPORARY = re.compile(r"\..+\.[0-9a-f]{32}|_probe-[0-9a-f]{32}")


@dataclass(frozen=True)
class Collected:
    """What was deleted, or would be."""

    attempts: int = 0
    """Attempts without a completion record."""
    ledger_entries: int = 0
    checkpoints: int = 0
    temporary_files: int = 0
    artifacts: int = 0
    """Intermediates of finished avatars, by ``keep``."""
    bytes: int = 0
    """Size of attempts and artifacts."""

    def __add__(self, other: Collected) -> Collected:
        return Collected(
            **{f.name: getattr(self, f.name) + getattr(other, f.name) for f in fields(self)}
        )

    def to_json(self) -> dict[str, int]:
        """Plain values."""
        return asdict(self)


def collect_garbage(
    output: str, *, keep: Keep = Keep.all, dry_run: bool = False, even_if_running: bool = False
) -> Collected:
    """Delete what nobody refers to, and with ``keep`` also finished avatars' intermediates.

    Raises ``RunError`` where a run seems to be at work, unless ``even_if_running``; then a live
    attempt may be deleted under its worker, whose portrait fails or is worked on again.
    """
    storage = open_output(output)
    if not even_if_running and (running := running_runs(storage)):
        raise RunError(
            f"run {running[-1]} seems to be at work on {storage.uri}: wait for its end, or give "
            "--even-if-running if its driver is dead"
        )
    collector = _Collector(storage, keep, dry_run)
    return collector.collect()


class _Collector:
    def __init__(self, storage: Storage, keep: Keep, dry_run: bool) -> None:
        self._storage = storage
        self._keep = keep
        self._dry_run = dry_run
        self._dispensable: dict[str, tuple[str, ...]] = {}

    def collect(self) -> Collected:
        work: tuple[tuple[str, Callable[[str], Collected]], ...] = (
            (layout.AVATARS, self._avatar),
            (layout.LEDGER, self._ledger),
            (layout.CHECKPOINTS, self._checkpoints),
            (layout.RECORDS, self._records),
        )
        total = Collected()
        with ThreadPoolExecutor(_PARALLEL) as pool:
            for tree, clean in work:
                for shard in self._storage.names(tree):
                    avatars = self._storage.names(f"{tree}/{shard}")
                    total = sum(pool.map(clean, avatars), total)
        return total + self._remove_temporary(("", layout.RUNS, layout.OUTCOMES, layout.MANIFEST))

    def _remove(self, path: str) -> None:
        if not self._dry_run:
            self._storage.prune(path)

    def _avatar(self, avatar_id: str) -> Collected:
        """Orphan attempts of all stages, then the intermediates that are not kept."""
        root = layout.avatar(avatar_id)
        found = Collected()
        for stage in self._storage.names(root):
            found += self._stage(f"{root}/{stage}")
        return found + self._intermediates(avatar_id)

    def _stage(self, folder: str) -> Collected:
        names = self._storage.names(folder)
        attempts = {name for name in names if name.startswith(_ATTEMPT)}
        records = [name for name in names if name.endswith(".json") and not name.startswith(".")]
        found = self._temporary(folder, names)
        if len(attempts) <= len(records):
            return found  # every record names an attempt of its own; nothing needs to be opened
        valid = {self._attempt_of(f"{folder}/{name}") for name in records}
        for attempt in sorted(attempts - valid):
            path = f"{folder}/{attempt}"
            found += Collected(attempts=1, bytes=self._storage.tree_size(path))
            self._remove(path)
        return found

    def _attempt_of(self, record_path: str) -> str:
        return Artifact.from_json(self._storage.read_json(record_path)).path.rpartition("/")[2]

    def _intermediates(self, avatar_id: str) -> Collected:
        if self._keep is Keep.all:
            return Collected()
        paths = [path for record in self._finished(avatar_id) for path in self._unwanted(record)]
        present = [path for path in dict.fromkeys(paths) if self._storage.exists(path)]
        if self._dry_run:
            sizes = (
                Artifact.from_json(self._storage.read_json(path)).files.values() for path in present
            )
            return Collected(artifacts=len(present), bytes=sum(f.size for s in sizes for f in s))
        return Collected(artifacts=len(present), bytes=drop_artifacts(self._storage, present))

    def _finished(self, avatar_id: str) -> Iterator[AvatarRecord]:
        book = RecordBook(self._storage)
        for name in self._storage.names(layout.records_of(avatar_id)):
            record = book.read(avatar_id, name) if name.startswith("record-") else None
            if isinstance(record, AvatarRecord):
                yield record

    def _unwanted(self, record: AvatarRecord) -> list[str]:
        digest = record.config_digest
        if digest not in self._dispensable:
            text = self._storage.read(layout.config(digest)).decode()
            config = parse_config(text, self._storage.uri_of(layout.config(digest)))
            training = [s.entry.name for s in config.sections if s.entry.part == "training"]
            self._dispensable[digest] = dispensable(self._keep, config.stage_names, training)
        return [
            record.artifacts[stage]
            for stage in self._dispensable[digest]
            if stage in record.artifacts
        ]

    def _ledger(self, avatar_id: str) -> Collected:
        """Entries of attempts; verdicts on crashes stay, they count until ``retry``."""
        found = Collected()
        root = f"{layout.LEDGER}/{avatar_id[:2]}/{avatar_id}"
        for work in self._storage.names(root):
            for generation in self._storage.names(f"{root}/{work}"):
                folder = f"{root}/{work}/{generation}"
                for name in self._storage.names(folder):
                    if name.endswith(".json"):
                        found += Collected(ledger_entries=1)
                        self._remove(f"{folder}/{name}")
        return found

    def _checkpoints(self, avatar_id: str) -> Collected:
        """Checkpoints of work that has a completion record; others are wanted for the next run."""
        found = Collected()
        root = f"{layout.CHECKPOINTS}/{avatar_id[:2]}/{avatar_id}"
        for name in self._storage.names(root):
            stage, _, key = name.rpartition("-")
            if self._storage.exists(layout.completion_record(avatar_id, stage, key)):
                found += Collected(checkpoints=1)
                self._remove(f"{root}/{name}")
        return found

    def _records(self, avatar_id: str) -> Collected:
        folder = layout.records_of(avatar_id)
        return self._temporary(folder, self._storage.names(folder))

    def _remove_temporary(self, folders: tuple[str, ...]) -> Collected:
        return sum((self._temporary(f, self._storage.names(f)) for f in folders), Collected())

    def _temporary(self, folder: str, names: list[str]) -> Collected:
        """Files a writer died over: hidden ones, see ``store.filesystem``, and probes."""
        if not self._storage.is_local:
            return Collected()
        found = Collected()
        for name in names:
            if _TEMPORARY.fullmatch(name):
                found += Collected(temporary_files=1)
                self._remove(f"{folder}/{name}" if folder else name)
        return found


def describe(collected: Collected, *, dry_run: bool) -> list[str]:
    """Lines for the user."""
    verb = "would delete" if dry_run else "deleted"
    counts: dict[str, Any] = {
        "attempts without a record": collected.attempts,
        "ledger entries": collected.ledger_entries,
        "checkpoints of finished work": collected.checkpoints,
        "temporary files": collected.temporary_files,
        "intermediate artifacts": collected.artifacts,
    }
    lines = [f"{verb} {count} {name}" for name, count in counts.items() if count]
    return [*(lines or [f"{verb} nothing"]), f"{collected.bytes / 1e9:.2f} GB in all"]
