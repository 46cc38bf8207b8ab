"""The few file operations the store is built on, over any fsspec file system.

Local files are written to a temporary name, flushed to the disk and linked or renamed into place.
Object stores put whole objects, which is atomic already; there *create if absent* is a conditional
request (``If-None-Match: *``), and what fails for a moment is tried again (``store.transient``).
Every failure of the storage itself becomes a ``StoreError``.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from fc4d_ray.errors import StoreError
from fc4d_ray.store.transient import persist

Result = TypeVar("Result")

_EXPLANATIONS = {
    errno.ENOSPC: "the disk is full; free some space and run the same command again",
    errno.EDQUOT: "the disk quota is used up; free some space and run the same command again",
    errno.EROFS: "the file system is read-only",
    errno.EACCES: "permission denied",
    errno.EPERM: "permission denied",
    errno.ENOTDIR: "a file stands where a folder is needed",
}


@contextlib.contextmanager
def storage_errors(action: str, path: str) -> Iterator[None]:
    """Turn whatever the storage raises into a ``StoreError`` naming action and path.

    ``FileNotFoundError`` and ``FileExistsError`` are answers, not failures, and pass through.
    """
    try:
        yield
    except (FileNotFoundError, FileExistsError, StoreError):
        raise
    except OSError as error:
        reason = _EXPLANATIONS.get(error.errno or 0, str(error) or type(error).__name__)
        raise StoreError(f"cannot {action} {path}: {reason}") from error
    except Exception as error:
        if type(error).__module__.split(".")[0] not in _STORAGE_LIBRARIES:
            raise
        raise StoreError(f"cannot {action} {path}: {type(error).__name__}: {error}") from error


_OPEN_TRIES = 10
_OBJECT_STORES = ("s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "adl")
_S3_CLIENT = {
    "connect_timeout": 10,
    "read_timeout": 30,
    # One place decides about trying again, and it looks at the outcome: see Storage.create.
    "retries": {"total_max_attempts": 1, "mode": "standard"},
}
_STORAGE_LIBRARIES = ("botocore", "aiobotocore", "aiohttp", "s3fs", "gcsfs", "google", "adlfs")


@dataclass(frozen=True)
class Storage:
    """A root folder or prefix and the operations on relative paths below it.

    Picklable: workers open their own connection from ``uri``.
    """

    uri: str
    """Root as the user gave it, without a trailing slash."""
    _state: dict[str, Any] = field(default_factory=dict, repr=False, compare=False)

    def __getstate__(self) -> dict[str, Any]:
        return {"uri": self.uri}

    def __setstate__(self, state: dict[str, Any]) -> None:
        object.__setattr__(self, "uri", state["uri"])
        object.__setattr__(self, "_state", {})

    @property
    def filesystem(self) -> Any:
        """The fsspec file system of the root."""
        self._connect()
        return self._state["filesystem"]

    @property
    def root(self) -> str:
        """The root's path inside its file system."""
        self._connect()
        return self._state["root"]

    @property
    def is_local(self) -> bool:
        """Whether the root lies on a mounted file system."""
        self._connect()
        return self._state["is_local"]

    def _connect(self) -> None:
        if self._state:
            return
        from fsspec.core import url_to_fs
        from fsspec.implementations.local import LocalFileSystem

        options: dict[str, Any] = {"use_listings_cache": False}
        if self.uri.startswith(("s3://", "s3a://")):
            options["config_kwargs"] = _S3_CLIENT
        try:
            filesystem, root = url_to_fs(self.uri, **options)
        except (ImportError, ValueError) as error:
            raise StoreError(f"cannot open the output location {self.uri}: {error}") from error
        self._state["root"] = root.rstrip("/")
        self._state["is_local"] = isinstance(filesystem, LocalFileSystem)
        self._state["filesystem"] = filesystem

    def path(self, relative: str) -> str:
        """Full path inside the file system."""
        return f"{self.root}/{relative}" if relative else self.root

    def local_path(self, relative: str) -> Path:
        """Path on the disk; only for a local root."""
        if not self.is_local:
            raise StoreError(f"{self.uri} is not a local folder")
        return Path(self.path(relative))

    def uri_of(self, relative: str) -> str:
        """Address a user can open: a plain path for local roots, a URI elsewhere."""
        if self.is_local:
            return self.path(relative)
        return self.filesystem.unstrip_protocol(self.path(relative))

    def read(self, relative: str) -> bytes:
        """Bytes of a file; ``FileNotFoundError`` where there is none."""
        with storage_errors("read", self.uri_of(relative)):
            return self._persist(lambda: self.filesystem.cat_file(self.path(relative)), relative)

    def read_json(self, relative: str) -> Any:
        """Parsed JSON file; ``StoreError`` where it is damaged."""
        data = self.read(relative)
        try:
            return json.loads(data)
        except ValueError as error:
            raise StoreError(f"{self.uri_of(relative)} is damaged: {error}") from error

    def exists(self, relative: str) -> bool:
        """Whether a file or folder stands there."""
        with storage_errors("look up", self.uri_of(relative)):
            return self._persist(lambda: self.filesystem.exists(self.path(relative)), relative)

    def size(self, relative: str) -> int | None:
        """Bytes of a file, None where there is none."""
        try:
            with storage_errors("look up", self.uri_of(relative)):
                info = self._persist(lambda: self.filesystem.info(self.path(relative)), relative)
                return int(info["size"])
        except FileNotFoundError:
            return None

    def names(self, relative: str) -> list[str]:
        """Sorted names directly below a folder; empty where there is no such folder."""
        if self.is_local:
            try:
                with storage_errors("list", self.uri_of(relative)):
                    return sorted(os.listdir(self.path(relative)))
            except FileNotFoundError:
                return []
        try:
            with storage_errors("list", self.uri_of(relative)):
                entries = self._persist(
                    lambda: self.filesystem.ls(self.path(relative), detail=False), relative
                )
        except FileNotFoundError:
            return []
        own = self.path(relative).rstrip("/")
        paths = (entry.rstrip("/") for entry in entries)
        return sorted(path.rsplit("/", 1)[-1] for path in paths if path != own)

    def tree_size(self, relative: str) -> int:
        """Bytes of all files below a folder."""
        with storage_errors("look up", self.uri_of(relative)):
            size = self._persist(
                lambda: self.filesystem.du(self.path(relative), total=True), relative
            )
            return int(size)

    def names_by_folder(self, relative: str) -> Iterator[tuple[str, list[str]]]:
        """(folder, names of the files in it) of every folder directly below ``relative``.

        On object stores this takes one listing of keys for all of them, not one per folder.
        """
        try:
            with storage_errors("list", self.uri_of(relative)):
                if self.is_local:
                    yield from _local_folders(self.path(relative))
                    return
                entries = self._persist(lambda: self.filesystem.find(self.path(relative)), relative)
        except FileNotFoundError:
            return
        start = len(self.path(relative)) + 1
        folders: dict[str, list[str]] = {}
        for entry in entries:
            folder, _, name = entry[start:].partition("/")
            if name and "/" not in name:
                folders.setdefault(folder, []).append(name)
        yield from folders.items()

    def create(self, relative: str, data: bytes) -> bool:
        """Write a file only if none stands there; False where another writer was first.

        Atomic: a reader sees the whole file or none, and of several writers with different bytes
        exactly one gets True. Where the answer to the request was lost on the way, the bytes that
        stand there tell who won: taking our own for another writer's would make us delete files
        that the record names.
        """
        with storage_errors("write", self.uri_of(relative)):
            try:
                if self.is_local:
                    self._create_local(Path(self.path(relative)), data)
                else:
                    self._persist(lambda: self._create_remote(relative, data), relative)
            except FileExistsError:
                return not self.is_local and self.read(relative) == data
            except FileNotFoundError as error:
                raise StoreError(f"there is no bucket or folder {self.uri}: {error}") from error
        return True

    def replace(self, relative: str, data: bytes) -> None:
        """Write a file, replacing an older one atomically."""
        with storage_errors("write", self.uri_of(relative)):
            if self.is_local:
                target = Path(self.path(relative))
                temporary = _write_temporary(target, data)
                os.replace(temporary, target)
                sync_directory(target.parent)
            else:
                self._persist(lambda: self._replace_remote(relative, data), relative)

    def upload(self, source: Path, relative: str) -> None:
        """Copy a local file to the store."""
        with storage_errors("write", self.uri_of(relative)):
            self._persist(lambda: self._upload(source, relative), relative)

    def download(self, relative: str, target: Path) -> None:
        """Copy a file of the store to a local path."""
        with storage_errors("read", self.uri_of(relative)):
            target.parent.mkdir(parents=True, exist_ok=True)
            self._persist(
                lambda: self.filesystem.get_file(self.path(relative), str(target)), relative
            )

    def remove(self, relative: str) -> None:
        """Delete a file or a folder with all it holds; quietly where it is gone already."""
        with (
            storage_errors("delete", self.uri_of(relative)),
            contextlib.suppress(FileNotFoundError),
        ):
            if self.is_local and not Path(self.path(relative)).is_dir():
                os.unlink(self.path(relative))
            elif self.is_local:
                shutil.rmtree(self.path(relative))
            else:
                self._persist(
                    lambda: self.filesystem.rm(self.path(relative), recursive=True), relative
                )

    def prune(self, relative: str) -> None:
        """Delete a file or folder and the local folders above it that are empty then."""
        self.remove(relative)
        if self.is_local:
            parent = relative.rpartition("/")[0]
            with contextlib.suppress(OSError):
                while "/" in parent:
                    os.rmdir(self.path(parent))
                    parent = parent.rpartition("/")[0]

    def _persist(self, action: Callable[[], Result], relative: str) -> Result:
        """Wait out what passes by itself, on remote storage; a disk's errors are told at once."""
        return action() if self.is_local else persist(action, self.uri_of(relative))

    def _create_remote(self, relative: str, data: bytes) -> None:
        self._make_parent(relative)
        self.filesystem.pipe_file(self.path(relative), data, mode="create")

    def _replace_remote(self, relative: str, data: bytes) -> None:
        self._make_parent(relative)
        self.filesystem.pipe_file(self.path(relative), data)

    def _upload(self, source: Path, relative: str) -> None:
        self._make_parent(relative)
        self.filesystem.put_file(str(source), self.path(relative))

    def _make_parent(self, relative: str) -> None:
        if self.uri.partition("://")[0] in _OBJECT_STORES:
            return  # keys need no folders, and asking for one costs a request each time
        parent = self.path(relative).rsplit("/", 1)[0]
        self.filesystem.makedirs(parent, exist_ok=True)

    @staticmethod
    def _create_local(target: Path, data: bytes) -> None:
        temporary = _write_temporary(target, data)
        try:
            os.link(temporary, target)
        finally:
            os.unlink(temporary)
        sync_directory(target.parent)


def _local_folders(path: str) -> Iterator[tuple[str, list[str]]]:
    with os.scandir(path) as entries:
        folders = [(entry.name, entry.path) for entry in entries if entry.is_dir()]
    for name, folder in folders:
        with contextlib.suppress(FileNotFoundError):  # pruned meanwhile
            yield name, os.listdir(folder)


def _write_temporary(target: Path, data: bytes) -> Path:
    """Write and flush ``data`` under a hidden unique name beside ``target``."""
    temporary = target.with_name(f".{target.name}.{uuid.uuid4().hex}")
    descriptor = _open_new(temporary)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise
    return temporary


def _open_new(path: Path) -> int:
    """Open a new file; its folder may be pruned by another process in between."""
    for _ in range(_OPEN_TRIES):
        path.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileNotFoundError):
            return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
    raise StoreError(f"the folder {path.parent} disappears again and again")


def sync_file(path: Path) -> None:
    """Flush a finished file to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_directory(path: Path) -> None:
    """Flush a folder's entries to the disk, so that names survive a power cut."""
    sync_file(path)
