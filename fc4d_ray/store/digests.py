"""Digests and canonical JSON: the same values give the same bytes, on every machine."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

DIGEST_CHARACTERS = 32
"""Length of the hexadecimal digests in names and records: 128 bits of SHA-256."""

_READ_BYTES = 1 << 20


def canonical_json(value: Any) -> bytes:
    """UTF-8 JSON with sorted keys and no spaces.

    Raises ``TypeError`` for values JSON does not know and ``ValueError`` for NaN or infinity,
    because neither has one agreed spelling.
    """
    text = json.dumps(
        value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    )
    return text.encode()


def readable_json(value: Any) -> bytes:
    """UTF-8 JSON for people: sorted keys, indented, a line break at the end."""
    return (json.dumps(value, sort_keys=True, indent=2, ensure_ascii=False) + "\n").encode()


def digest_bytes(data: bytes) -> str:
    """Shortened SHA-256 of ``data`` in hexadecimal."""
    return hashlib.sha256(data).hexdigest()[:DIGEST_CHARACTERS]


def digest_json(value: Any) -> str:
    """Digest of the canonical JSON of ``value``."""
    return digest_bytes(canonical_json(value))


def digest_file(path: Path) -> str:
    """Digest of a file's bytes, read in pieces."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(_READ_BYTES):
            digest.update(piece)
    return digest.hexdigest()[:DIGEST_CHARACTERS]


def derive_seed(run_seed: int, avatar_id: str, stage: str) -> int:
    """Seed of one stage for one portrait, in [0, 2**31)."""
    digest = hashlib.sha256(f"{run_seed}/{avatar_id}/{stage}".encode()).digest()
    return int.from_bytes(digest[:4], "big") >> 1
