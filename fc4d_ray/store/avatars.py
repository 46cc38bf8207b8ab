"""Finding an avatar's published files from whatever address a user has at hand."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path

from fc4d_ray.errors import ConfigError
from fc4d_ray.store import layout
from fc4d_ray.store.filesystem import Storage
from fc4d_ray.store.location import open_output
from fc4d_ray.store.manifest import read_manifest
from fc4d_ray.store.records import AvatarRecord, RecordBook

_ESSENTIAL_FILE = "rig.npz"


@contextlib.contextmanager
def avatar_files(address: str) -> Iterator[Path]:
    """Local folder with an avatar's published files; remote ones are copied for the block.

    ``address``: that folder itself, an avatar's folder ``OUT/avatars/<ab>/<id>``, or an OUT that
    holds a single avatar. Raises ``ConfigError`` where no avatar is found.
    """
    storage = Storage(address.rstrip("/") if "://" in address else str(Path(address).absolute()))
    storage = _published(storage)
    if storage.is_local:
        yield storage.local_path("")
        return
    with tempfile.TemporaryDirectory(prefix="fc4d-avatar-") as folder:
        for name in storage.names(""):
            storage.download(name, Path(folder) / name)
        yield Path(folder)


def _published(storage: Storage) -> Storage:
    if storage.exists(_ESSENTIAL_FILE):
        return storage
    if storage.exists(layout.MARKER):
        return Storage(_only_avatar(storage))
    parts = storage.uri.rsplit("/", 3)
    if len(parts) == 4 and parts[1] == "avatars" and parts[3].startswith(parts[2]):
        return Storage(_newest(open_output(parts[0]), parts[3]))
    raise ConfigError(
        f"there is no avatar in {storage.uri}: expected a folder with {_ESSENTIAL_FILE}, "
        "or OUT/avatars/<ab>/<id>"
    )


def _only_avatar(storage: Storage) -> str:
    rows = read_manifest(storage).select(["status", "avatar_uri"]).to_pylist()
    uris = [row["avatar_uri"] for row in rows if row["status"] == "succeeded"]
    if len(uris) != 1:
        raise ConfigError(
            f"{storage.uri} holds {len(uris)} avatars; name one, as the manifest's avatar_uri does"
        )
    return uris[0]


def _newest(storage: Storage, avatar_id: str) -> str:
    """Published files of the avatar's newest record."""
    book = RecordBook(storage)
    records = [
        record
        for name in storage.names(layout.records_of(avatar_id))
        if isinstance(record := book.read(avatar_id, name), AvatarRecord)
    ]
    if not records:
        raise ConfigError(f"{avatar_id} has no finished avatar in {storage.uri}")
    return storage.uri_of(max(records, key=lambda record: record.created_at).avatar_path)
