"""Plan digest of one avatar: the name under which its records are found."""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Iterable, Mapping
from typing import Any

from fc4d_ray.store.digests import digest_bytes, digest_json

PLAN_CHARACTERS = 20
_ENCODER = json.JSONEncoder(sort_keys=True, default=str, separators=(",", ":"))
IDENTIFYING_COLUMNS = frozenset(("uri", "face_box", "landmarks"))
"""Columns that choose picture and face; the avatar's id covers them."""


def columns_digest(columns: Mapping[str, Any]) -> str:
    """Digest of a row's own columns (what JSON does not know as text); empty where it has none.

    They are part of what a run makes of a portrait, because the published record repeats them: a
    licence that changes must not leave the old one there. The columns that choose picture and face
    do not count, the avatar's id covers them.
    """
    own = {n: v for n, v in columns.items() if n not in IDENTIFYING_COLUMNS and v is not None}
    if not own:
        return ""
    return digest_bytes(_ENCODER.encode(own).encode(errors="replace"))[:PLAN_CHARACTERS]


def avatar_plan(plan_base: str, avatar_id: str, columns: str = "") -> str:
    """Digest of image, config sections, weights, stage versions and the row's own columns.

    ``plan_base`` is the run's part (``pipeline.plan.Plan.base``), the same for all its portraits;
    ``columns`` is the row's ``columns_digest``.
    """
    return digest_json([plan_base, avatar_id + columns])[:PLAN_CHARACTERS]


def avatar_plans(
    plan_base: str, avatar_ids: Iterable[str | None], columns: Iterable[str | None] | None = None
) -> list[str | None]:
    """``avatar_plan`` of many avatars, several times faster; None stays None.

    The canonical JSON is written out by hand: ids are digests, which JSON spells as they are.
    """
    start = hashlib.sha256(f"[{json.dumps(plan_base)},".encode())

    def plan(avatar_id: str, own: str | None) -> str:
        digest = start.copy()
        digest.update(b'"%s%s"]' % (avatar_id.encode(), (own or "").encode()))
        return digest.hexdigest()[:PLAN_CHARACTERS]

    pairs = zip(avatar_ids, itertools.repeat("") if columns is None else columns, strict=False)
    return [None if avatar_id is None else plan(avatar_id, own) for avatar_id, own in pairs]
