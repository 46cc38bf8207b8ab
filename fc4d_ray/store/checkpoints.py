"""Checkpoints of work under way, kept on the output's storage so that another machine goes on.

On a mounted file system the stage writes into the folder itself. On an object store the stage
writes into a local folder, which is watched: whatever has changed is uploaded under fresh names and
then named in one ``index.json``, replaced as a whole. So a reader finds a complete set of files or
the complete set before it, also where the writer died in between or where two writers meet.
"""

from __future__ import annotations

import contextlib
import logging
import shutil
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fc4d_ray.errors import StoreError
from fc4d_ray.store import layout
from fc4d_ray.store.artifacts import Work
from fc4d_ray.store.digests import digest_file, readable_json
from fc4d_ray.store.filesystem import Storage

INDEX = "index.json"
WATCH_SECONDS = 5.0
"""How soon after it was written a checkpoint is on its way to an object store."""

_log = logging.getLogger(__name__)
_Stamp = dict[str, tuple[int, int]]
"""By file: modification time in ns, and size."""


@contextlib.contextmanager
def checkpoint_folder(
    storage: Storage, work: Work, scratch: Path, *, watch_seconds: float = WATCH_SECONDS
) -> Iterator[Path]:
    """Folder for the block, holding what an earlier attempt at ``work`` has kept.

    Files are kept when the block raises. A block that ends well has done the work; then they are
    deleted. Raises ``StoreError`` where the storage fails at the start or the end; what fails in
    between costs progress only, and is logged.
    """
    relative = layout.checkpoint(work.avatar_id, work.stage, work.key)
    if storage.is_local:
        path = storage.local_path(relative)
        path.mkdir(parents=True, exist_ok=True)
        yield path
        storage.prune(relative)
        return
    path = scratch / "checkpoints" / uuid.uuid4().hex
    mirror = _Mirror(storage, relative, path)
    mirror.fetch()
    over = threading.Event()
    thread = threading.Thread(target=mirror.watch, args=(over, watch_seconds), daemon=True)
    thread.start()
    try:
        yield path
    except BaseException:
        over.set()
        thread.join()
        mirror.send()  # whatever interrupted the work, the next attempt starts from here
        raise
    finally:
        over.set()
        thread.join()
        shutil.rmtree(path, ignore_errors=True)
    if mirror.is_stored:
        storage.remove(relative)


def kept_since(storage: Storage, work: Work, started_at: float) -> bool:
    """Whether anything was kept after that time (seconds since the epoch)."""
    relative = layout.checkpoint(work.avatar_id, work.stage, work.key)
    if storage.is_local:
        files = (path for path in storage.local_path(relative).rglob("*") if path.is_file())
        return any(path.stat().st_mtime > started_at for path in files)
    try:
        index = storage.read_json(f"{relative}/{INDEX}")
    except FileNotFoundError:
        return False
    return float(index["written_at"]) > started_at


class _Mirror:
    """One folder here, its copy there."""

    def __init__(self, storage: Storage, relative: str, path: Path) -> None:
        self._storage = storage
        self._relative = relative
        self._path = path
        self._sent: _Stamp = {}
        self._stored: dict[str, dict[str, Any]] = {}
        """By file: where it lies and its digest."""
        self.is_stored = False
        """Whether anything was found there or put there."""

    def fetch(self) -> None:
        """Copy the stored set here; one that is incomplete counts as none."""
        self._path.mkdir(parents=True, exist_ok=True)
        try:
            files = self._storage.read_json(f"{self._relative}/{INDEX}")["files"]
        except FileNotFoundError:
            return
        self.is_stored = True
        try:
            for name, file in files.items():
                target = self._path / name
                self._storage.download(f"{self._relative}/{file['object']}", target)
                if digest_file(target) != file["digest"]:
                    raise FileNotFoundError(name)
        except FileNotFoundError as error:
            _log.warning("checkpoint %s is incomplete (%s): starting over", self._relative, error)
            shutil.rmtree(self._path)
            self._path.mkdir(parents=True)
            return
        self._stored, self._sent = files, self._stamp()

    def watch(self, over: threading.Event, seconds: float) -> None:
        """Thread: send changes until ``over``."""
        while not over.wait(seconds):
            self.send()

    def send(self) -> None:
        """Upload what has changed since the last time; errors cost progress only."""
        stamp = self._stamp()
        if stamp == self._sent or not stamp:
            return
        try:
            self._send(stamp)
        except (OSError, StoreError) as error:
            _log.warning("checkpoint %s could not be kept: %s", self._relative, error)

    def _send(self, stamp: _Stamp) -> None:
        files: dict[str, dict[str, Any]] = {}
        self.is_stored = True
        for name, state in stamp.items():
            if self._sent.get(name) == state and name in self._stored:
                files[name] = self._stored[name]
                continue
            # A copy of one moment: the stage may replace the file during the upload.
            copy = self._path.with_name(f"{self._path.name}.sending")
            shutil.copyfile(self._path / name, copy)
            place = f"{uuid.uuid4().hex[:12]}-{Path(name).name}"
            files[name] = {"object": place, "digest": digest_file(copy)}
            self._storage.upload(copy, f"{self._relative}/{place}")
            copy.unlink()
        index = {"written_at": time.time(), "files": files}
        self._storage.replace(f"{self._relative}/{INDEX}", readable_json(index))
        replaced = {f["object"] for f in self._stored.values()}
        replaced -= {f["object"] for f in files.values()}
        self._stored, self._sent = files, stamp
        for place in replaced:
            self._storage.remove(f"{self._relative}/{place}")

    def _stamp(self) -> _Stamp:
        """Finished files; names with a leading dot are being written."""
        found: _Stamp = {}
        for path in sorted(self._path.rglob("*")):
            with contextlib.suppress(FileNotFoundError):
                if path.is_file() and not path.name.startswith("."):
                    state = path.stat()
                    found[path.relative_to(self._path).as_posix()] = (
                        state.st_mtime_ns,
                        state.st_size,
                    )
        return found
