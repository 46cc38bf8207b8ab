"""What became of an avatar: finished, failed, or opened for another try.

All of it is in file names, so a listing answers "what is left to do"; contents are read only to
fill the manifest.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from fc4d_ray.store import layout
from fc4d_ray.store.digests import readable_json
from fc4d_ray.store.filesystem import Storage

_FAILED = re.compile(r"failed-([0-9a-f]+)-(\d{4,})\.json")
_RETRY = re.compile(r"retry-(\d{4,})\.json")
_RECORD = re.compile(r"record-([0-9a-f]+)\.json")


@dataclass(frozen=True)
class Standing:
    """Where one avatar stands, read from the names of its records."""

    generation: int = 0
    """Current attempt generation; ``retry`` raises it."""
    finished_plans: frozenset[str] = frozenset()
    failures: frozenset[tuple[str, int]] = frozenset()
    """(plan, generation) of each failure."""

    def status(self, plan: str) -> str:
        """``succeeded``, ``failed`` or ``pending`` under ``plan``."""
        if plan in self.finished_plans:
            return "succeeded"
        if (plan, self.generation) in self.failures:
            return "failed"
        return "pending"

    def latest_record(self, plan: str) -> str | None:
        """File name of the newest end under ``plan``, in whatever generation."""
        if plan in self.finished_plans:
            return layout.record_name(plan)
        generations = [generation for failed, generation in self.failures if failed == plan]
        return layout.failure_name(plan, max(generations)) if generations else None

    @classmethod
    def from_names(cls, names: list[str]) -> Standing:
        """Read a listing of the avatar's record folder."""
        retries = [int(match[1]) for name in names if (match := _RETRY.fullmatch(name))]
        return cls(
            generation=max(retries, default=0),
            finished_plans=frozenset(
                match[1] for name in names if (match := _RECORD.fullmatch(name))
            ),
            failures=frozenset(
                (match[1], int(match[2])) for name in names if (match := _FAILED.fullmatch(name))
            ),
        )


@dataclass(frozen=True)
class AvatarRecord:
    """A finished avatar."""

    avatar_id: str
    plan: str
    config_digest: str
    source_uri: str
    avatar_path: str
    """Folder of the published files, relative to the output location."""
    artifacts: Mapping[str, str]
    """Path of each stage's completion record."""
    facts: Mapping[str, Any]
    """The stages' facts, by stage."""
    seconds: Mapping[str, float]
    created_at: str
    """ISO 8601, UTC."""


@dataclass(frozen=True)
class FailureRecord:
    """A portrait that gave no avatar, and why."""

    avatar_id: str
    plan: str
    generation: int
    config_digest: str
    source_uri: str
    stage: str
    error_type: str
    error_message: str
    trace_path: str | None
    """Stack trace, relative to the output location."""
    created_at: str
    facts: Mapping[str, Any] = field(default_factory=dict)
    seconds: Mapping[str, float] = field(default_factory=dict)


class RecordBook:
    """Reads and writes the avatars' records below one output location."""

    def __init__(self, storage: Storage) -> None:
        self.storage = storage

    def standing(self, avatar_id: str) -> Standing:
        """Where an avatar stands, from one listing."""
        return Standing.from_names(self.storage.names(layout.records_of(avatar_id)))

    def standings(self, avatar_ids: list[str], *, parallel: int = 16) -> dict[str, Standing]:
        """``standing`` of many avatars; remote listings run side by side."""
        from concurrent.futures import ThreadPoolExecutor

        if self.storage.is_local:
            return {avatar_id: self.standing(avatar_id) for avatar_id in avatar_ids}
        with ThreadPoolExecutor(parallel) as pool:
            return dict(zip(avatar_ids, pool.map(self.standing, avatar_ids), strict=True))

    def write_finished(self, record: AvatarRecord) -> bool:
        """Record a finished avatar; False where it was recorded already."""
        return self._create(record.avatar_id, layout.record_name(record.plan), record)

    def write_failed(self, record: FailureRecord) -> bool:
        """Record a failure; False where this generation has one already."""
        name = layout.failure_name(record.plan, record.generation)
        return self._create(record.avatar_id, name, record)

    def open_retry(self, avatar_id: str) -> int:
        """Open the next attempt generation and return it."""
        generation = self.standing(avatar_id).generation + 1
        path = f"{layout.records_of(avatar_id)}/{layout.retry_name(generation)}"
        self.storage.create(path, readable_json({"generation": generation}))
        return generation

    def read(self, avatar_id: str, name: str) -> AvatarRecord | FailureRecord | None:
        """The record of that file name, None where there is none or it records no end."""
        try:
            document = self.storage.read_json(f"{layout.records_of(avatar_id)}/{name}")
        except FileNotFoundError:
            return None
        if _RECORD.fullmatch(name):
            return AvatarRecord(**document)
        return FailureRecord(**document) if _FAILED.fullmatch(name) else None

    def _create(self, avatar_id: str, name: str, record: AvatarRecord | FailureRecord) -> bool:
        from dataclasses import asdict

        path = f"{layout.records_of(avatar_id)}/{name}"
        return self.storage.create(path, readable_json(asdict(record)))
