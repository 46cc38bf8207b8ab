"""Reading portraits by URI, and the id that follows from their bytes."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from fc4d_ray.errors import UnreadableSource
from fc4d_ray.store.digests import DIGEST_CHARACTERS, digest_bytes, digest_json

SOURCE_BYTES_LIMIT = 1 << 30
"""Larger files are refused unread: no portrait has a gigabyte."""

_READ_BYTES = 1 << 20
_VERSION_KEYS = ("ETag", "etag", "md5Hash", "LastModified", "mtime", "created")
"""What storage libraries call that which changes with an object's bytes; the surest first."""


def read_source(uri: str) -> bytes:
    """Bytes of a portrait. Raises ``UnreadableSource``."""
    with _opened(uri) as file:
        data = file.read(SOURCE_BYTES_LIMIT + 1)
    if len(data) > SOURCE_BYTES_LIMIT:
        raise UnreadableSource(f"{uri} is larger than {SOURCE_BYTES_LIMIT} bytes")
    return data


def digest_source(uri: str) -> str:
    """Digest of a portrait's bytes, read in pieces. Raises ``UnreadableSource``."""
    digest, size = hashlib.sha256(), 0
    with _opened(uri) as file:
        while piece := file.read(_READ_BYTES):
            size += len(piece)
            if size > SOURCE_BYTES_LIMIT:
                raise UnreadableSource(f"{uri} is larger than {SOURCE_BYTES_LIMIT} bytes")
            digest.update(piece)
    return digest.hexdigest()[:DIGEST_CHARACTERS]


@contextmanager
def _opened(uri: str) -> Iterator[IO[bytes]]:
    try:
        if "://" in uri:
            import fsspec

            with fsspec.open(uri, "rb") as file:
                yield file
            return
        path = Path(uri)
        if path.stat().st_size > SOURCE_BYTES_LIMIT:
            raise UnreadableSource(f"{uri} is larger than {SOURCE_BYTES_LIMIT} bytes")
        with path.open("rb") as file:
            yield file
    except UnreadableSource:
        raise
    except FileNotFoundError as error:
        raise UnreadableSource(f"there is no file {uri}") from error
    except Exception as error:
        # Every storage library brings its own exceptions; to the row they all mean the same.
        raise UnreadableSource(f"cannot read {uri}: {type(error).__name__}: {error}") from error


def identify(data: bytes, face_box: Any = None, landmarks: Any = None) -> str:
    """Avatar id of a portrait, from its bytes; see ``avatar_id_of``."""
    return avatar_id_of(digest_bytes(data), face_box, landmarks)


def avatar_id_of(image_digest: str, face_box: Any = None, landmarks: Any = None) -> str:
    """Avatar id of a portrait.

    Follows from the bytes alone; annotations that choose the face in the picture take part, so
    that two people in one photo are two avatars.
    """
    if face_box is None and landmarks is None:
        return image_digest
    return digest_json([image_digest, face_box, landmarks])


def local_fingerprint(status: os.stat_result) -> str:
    """Size and time of change: what tells without reading that a file is still the same."""
    return f"{status.st_size}-{status.st_mtime_ns}"


def remote_fingerprint(info: Mapping[str, Any]) -> str | None:
    """Size and version of an object, from a listing's entry; None where it tells too little."""
    version = next((info[key] for key in _VERSION_KEYS if info.get(key)), None)
    return None if version is None else f"{info.get('size')}-{version}"
