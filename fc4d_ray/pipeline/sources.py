"""Reading portraits by URI, and the id that follows from their bytes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fc4d_ray.errors import UnreadableSource
from fc4d_ray.store.digests import digest_bytes, digest_json

SOURCE_BYTES_LIMIT = 1 << 30
"""Larger files are refused unread: no portrait has a gigabyte."""


def read_source(uri: str) -> bytes:
    """Bytes of a portrait. Raises ``UnreadableSource``."""
    try:
        if "://" not in uri:
            path = Path(uri)
            if path.stat().st_size > SOURCE_BYTES_LIMIT:
                raise UnreadableSource(f"{uri} is larger than {SOURCE_BYTES_LIMIT} bytes")
            return path.read_bytes()
        return _read_remote(uri)
    except UnreadableSource:
        raise
    except FileNotFoundError as error:
        raise UnreadableSource(f"there is no file {uri}") from error
    except Exception as error:
        # Every storage library brings its own exceptions; to the row they all mean the same.
        raise UnreadableSource(f"cannot read {uri}: {type(error).__name__}: {error}") from error


def _read_remote(uri: str) -> bytes:
    import fsspec

    with fsspec.open(uri, "rb") as file:
        data = file.read(SOURCE_BYTES_LIMIT + 1)
    if len(data) > SOURCE_BYTES_LIMIT:
        raise UnreadableSource(f"{uri} is larger than {SOURCE_BYTES_LIMIT} bytes")
    return data


def identify(data: bytes, face_box: Any = None, landmarks: Any = None) -> str:
    """Avatar id of a portrait.

    Follows from the bytes alone; annotations that choose the face in the picture take part, so
    that two people in one photo are two avatars.
    """
    image = digest_bytes(data)
    if face_box is None and landmarks is None:
        return image
    return digest_json([image, face_box, landmarks])
