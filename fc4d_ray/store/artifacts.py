"""Artifacts: a stage's files, valid from the moment their completion record exists.

The protocol of one piece of work, identified by (avatar, stage, key):

1. the worker writes files into a fresh ``attempt-<uuid>/`` (locally in place, for remote stores in
   a scratch folder that is uploaded),
2. the files are flushed and digested,
3. the completion record is created only if absent. The first attempt wins; a later one finds the
   record, deletes its own files and continues with the winner's.

A process that dies anywhere before step 3 leaves files nobody refers to, and nothing else.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from fc4d_ray.errors import DamagedArtifact, StoreError
from fc4d_ray.store import layout
from fc4d_ray.store.digests import digest_file, digest_json, readable_json
from fc4d_ray.store.filesystem import Storage, storage_errors, sync_directory, sync_file

_DOWNLOAD_TRIES = 3


@dataclass(frozen=True)
class Work:
    """Identity of one stage's work on one portrait: same identity, same work."""

    avatar_id: str
    stage: str
    key: str
    """Digest of inputs, config section, weights, seed and stage version."""

    @property
    def record_path(self) -> str:
        """Where the completion record goes."""
        return layout.completion_record(self.avatar_id, self.stage, self.key)


def work_key(
    *,
    stage: str,
    version: str,
    section_digest: str,
    weights_digest: str,
    seed: int,
    source: str,
    inputs: Mapping[str, str],
    columns: str = "",
) -> str:
    """Key of a stage's work; ``inputs`` maps required stages to their artifacts' digests.

    ``columns``: digest of the input row's own columns, for stages whose files repeat them.
    """
    parts: dict[str, Any] = {
        "stage": stage,
        "version": version,
        "config": section_digest,
        "weights": weights_digest,
        "seed": seed,
        "source": source,
        "inputs": dict(inputs),
    }
    return digest_json(parts | ({"columns": columns} if columns else {}))


@dataclass(frozen=True)
class StoredFile:
    """One file of an artifact."""

    size: int
    digest: str


@dataclass(frozen=True)
class Artifact:
    """A committed stage result, as its completion record tells it."""

    work: Work
    attempt_id: str
    files: Mapping[str, StoredFile]
    """By path relative to the attempt's folder."""
    facts: Mapping[str, Any]
    measurements: Mapping[str, Any] = field(default_factory=dict)
    """``seconds``, ``peak_memory_bytes``, ``device``, ``seed``, ``host``, ``finished_at``."""

    @property
    def path(self) -> str:
        """The files' folder, relative to the output location."""
        return layout.attempt(self.work.avatar_id, self.work.stage, self.attempt_id)

    @property
    def digest(self) -> str:
        """Covers the work's identity and the bytes of its files; part of later stages' keys."""
        return digest_json(
            {"key": self.work.key, "files": {name: f.digest for name, f in self.files.items()}}
        )

    @property
    def seconds(self) -> float:
        """Wall time of the attempt that won."""
        return float(self.measurements.get("seconds", 0.0))

    def to_json(self) -> dict[str, Any]:
        """The completion record."""
        return asdict(self)

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Artifact:
        """Inverse of ``to_json``."""
        return cls(
            work=Work(**record["work"]),
            attempt_id=record["attempt_id"],
            files={name: StoredFile(**file) for name, file in record["files"].items()},
            facts=record["facts"],
            measurements=record["measurements"],
        )


@dataclass(frozen=True)
class Attempt:
    """An attempt under way: the empty folder to write into, and its id."""

    work: Work
    attempt_id: str
    directory: Path


class ArtifactStore:
    """Looks up, opens and commits artifacts below one output location.

    ``scratch`` is a local folder for attempts and copies of remote artifacts; local stores need
    none. Not thread-safe; make one per worker.
    """

    def __init__(self, storage: Storage, scratch: Path | None = None) -> None:
        self.storage = storage
        self._scratch = scratch

    @property
    def scratch(self) -> Path:
        """Local folder for temporary files, created on first use."""
        if self._scratch is None:
            self._scratch = Path(tempfile.mkdtemp(prefix="fc4d-"))
        self._scratch.mkdir(parents=True, exist_ok=True)
        return self._scratch

    def find(self, work: Work) -> Artifact | None:
        """The committed artifact of ``work``, None where there is none.

        An artifact whose files were deleted or cut short behind our back is withdrawn, so that the
        work is done again.
        """
        try:
            record = self.storage.read_json(work.record_path)
        except FileNotFoundError:
            return None
        try:
            artifact = Artifact.from_json(record)
        except (KeyError, TypeError) as error:
            raise StoreError(f"{self.storage.uri_of(work.record_path)} is damaged") from error
        if self._is_whole(artifact):
            return artifact
        self.withdraw(artifact)
        return None

    def withdraw(self, artifact: Artifact) -> None:
        """Take back a damaged artifact, so that its work is done again.

        Nothing happens where another process has done so already: the record then names other
        files.
        """
        if self._names(artifact.work, artifact.attempt_id) is not False:
            self.storage.remove(artifact.work.record_path)
            self.storage.remove(artifact.path)

    def _names(self, work: Work, attempt_id: str) -> bool | None:
        """Whether the work's record names that attempt; None where there is no record."""
        try:
            return self.storage.read_json(work.record_path).get("attempt_id") == attempt_id
        except FileNotFoundError:
            return None

    def is_sound(self, artifact: Artifact) -> bool:
        """Whether all files still have the digests they were committed with; reads all of them."""
        try:
            folder = self.open(artifact)
        except DamagedArtifact:
            return False
        return self._mismatch(folder, artifact) is None

    @staticmethod
    def _mismatch(folder: Path, artifact: Artifact) -> str | None:
        """Name of the first file that is absent or has other bytes."""
        for name, file in artifact.files.items():
            path = folder / name
            if not path.is_file() or digest_file(path) != file.digest:
                return name
        return None

    def _is_whole(self, artifact: Artifact) -> bool:
        return all(
            self.storage.size(f"{artifact.path}/{name}") == file.size
            for name, file in artifact.files.items()
        )

    @contextlib.contextmanager
    def attempt(self, work: Work) -> Iterator[Attempt]:
        """Open an attempt; its files are deleted if the block raises.

        Unless the record that names them may exist: a storage that fails while it writes the record
        does not tell whether it did. What is left then and named by nobody, ``fc4d gc`` finds.
        """
        attempt_id = uuid.uuid4().hex[:12]
        relative = layout.attempt(work.avatar_id, work.stage, attempt_id)
        if self.storage.is_local:
            directory = self.storage.local_path(relative)
        else:
            directory = self.scratch / "attempts" / attempt_id
        with storage_errors("write", str(directory)):
            directory.mkdir(parents=True)
        try:
            yield Attempt(work, attempt_id, directory)
        except BaseException:
            with contextlib.suppress(StoreError):
                if not self._names(work, attempt_id):
                    shutil.rmtree(directory, ignore_errors=True)
                    if not self.storage.is_local:
                        self.storage.remove(relative)
            raise

    def commit(
        self, attempt: Attempt, facts: Mapping[str, Any], measurements: Mapping[str, Any]
    ) -> tuple[Artifact, bool]:
        """Make the attempt's files the artifact of its work.

        Returns the valid artifact and whether it is this attempt's. A loser's files are deleted.
        """
        artifact = Artifact(
            work=attempt.work,
            attempt_id=attempt.attempt_id,
            files=_describe(attempt.directory),
            facts=dict(facts),
            measurements=dict(measurements),
        )
        if self.storage.is_local:
            _flush(attempt.directory)
        else:
            for name in artifact.files:
                self.storage.upload(attempt.directory / name, f"{artifact.path}/{name}")
        if self.storage.create(attempt.work.record_path, readable_json(artifact.to_json())):
            self._keep_as_copy(attempt, artifact)
            return artifact, True
        self.storage.remove(artifact.path)
        shutil.rmtree(attempt.directory, ignore_errors=True)
        winner = self.find(attempt.work)
        if winner is None:
            raise StoreError(f"{self.storage.uri_of(attempt.work.record_path)} vanished")
        return winner, False

    def open(self, artifact: Artifact) -> Path:
        """Local folder with the artifact's files; remote ones are copied and checked first.

        Raises ``DamagedArtifact`` where a remote file is gone or does not match its checksum.
        """
        if self.storage.is_local:
            return self.storage.local_path(artifact.path)
        target = self._copy_of(artifact)
        if target.is_dir():
            return target
        partial = target.with_name(f"{target.name}.{uuid.uuid4().hex}")
        partial.mkdir(parents=True)
        try:
            for name, file in artifact.files.items():
                self._download(artifact, name, file, partial / name)
            os.replace(partial, target)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
        return target

    def _download(self, artifact: Artifact, name: str, file: StoredFile, target: Path) -> None:
        """Fetch and check one file; a connection that was cut may leave it short, so try again."""
        for _ in range(_DOWNLOAD_TRIES):
            try:
                self.storage.download(f"{artifact.path}/{name}", target)
            except FileNotFoundError:
                continue
            if digest_file(target) == file.digest:
                return
        raise DamagedArtifact(
            f"{self.storage.uri_of(artifact.path)}/{name} is gone or does not match its checksum"
        )

    def forget_copies(self) -> None:
        """Delete local copies of remote artifacts, when a portrait is through."""
        if self._scratch is not None and not self.storage.is_local:
            shutil.rmtree(self._scratch, ignore_errors=True)

    def _copy_of(self, artifact: Artifact) -> Path:
        return self.scratch / "copies" / artifact.attempt_id

    def _keep_as_copy(self, attempt: Attempt, artifact: Artifact) -> None:
        """Spare the next stage the download of what was just uploaded."""
        if not self.storage.is_local:
            target = self._copy_of(artifact)
            target.parent.mkdir(parents=True, exist_ok=True)
            os.replace(attempt.directory, target)


def _describe(directory: Path) -> dict[str, StoredFile]:
    files = {}
    for path in sorted(directory.rglob("*")):
        if path.is_symlink():
            raise StoreError(f"a stage left a symbolic link: {path.name}")
        if path.is_file():
            name = path.relative_to(directory).as_posix()
            files[name] = StoredFile(size=path.stat().st_size, digest=digest_file(path))
    return files


def _flush(directory: Path) -> None:
    with storage_errors("write", str(directory)):
        for path in [*sorted(directory.rglob("*")), directory]:
            if path.is_dir():
                sync_directory(path)
            else:
                sync_file(path)
        sync_directory(directory.parent)
