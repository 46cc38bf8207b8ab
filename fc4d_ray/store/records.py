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

_NAME = re.compile(r"(?:record-([0-9a-f]+)|failed-([0-9a-f]+)-(\d{4,})|retry-(\d{4,}))\.json")
"""Groups: plan of a finished avatar; plan and generation of a failure; generation of a retry."""


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
        generation = 0
        finished, failures = [], []
        for name in names:
            match = _NAME.fullmatch(name)
            if match is None:
                continue
            record, failed, failed_in, retry = match.groups()
            if record:
                finished.append(record)
            elif failed:
                failures.append((failed, int(failed_in)))
            else:
                generation = max(generation, int(retry))
        return cls(generation, frozenset(finished), frozenset(failures))


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
        match = _NAME.fullmatch(name)
        if match is None:
            return None
        if match[1]:
            return AvatarRecord(**document)
        return FailureRecord(**document) if match[2] else None

    def _create(self, avatar_id: str, name: str, record: AvatarRecord | FailureRecord) -> bool:
        from dataclasses import asdict

        path = f"{layout.records_of(avatar_id)}/{name}"
        return self.storage.create(path, readable_json(asdict(record)))
