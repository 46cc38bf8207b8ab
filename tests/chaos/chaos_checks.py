"""What must hold of an output, whatever happened while it was made."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fc4d_ray.pipeline.garbage import collect_garbage
from fc4d_ray.store import layout, read_manifest
from fc4d_ray.store.artifacts import Artifact
from fc4d_ray.store.digests import digest_bytes
from fc4d_ray.store.filesystem import Storage
from fc4d_ray.store.location import open_output


def check_output(out: str, expected: Mapping[str, tuple[str, str | None]]) -> dict[str, int]:
    """Assert that every portrait has exactly one row with the expected (status, error type), that
    all committed files match their checksums, and that ``fc4d gc`` leaves nothing nobody names.

    ``expected`` is keyed by the source file's stem. Returns counts for a report.
    """
    storage = open_output(out)
    rows = read_manifest(out).to_pylist()
    counted = Counter(Path(row["source_uri"]).stem for row in rows)
    assert set(counted) == set(expected), set(expected) ^ set(counted)
    assert max(counted.values()) == 1, [name for name, count in counted.items() if count > 1]
    found = {Path(row["source_uri"]).stem: (row["status"], row["error_type"]) for row in rows}
    wrong = {name: end for name, end in found.items() if end != expected[name]}
    assert not wrong, wrong
    ids = Counter(row["avatar_id"] for row in rows)
    assert max(ids.values()) == 1
    collected = collect_garbage(out, even_if_running=True)
    files = sum(_check_avatar(storage, row) for row in rows if row["status"] == "succeeded")
    orphans = _orphans(storage)
    assert not orphans, orphans
    still_open = _open_attempts(storage)
    assert not still_open, still_open
    return {"rows": len(rows), "files": files, **collected.to_json()}


def _check_avatar(storage: Storage, row: Mapping[str, Any]) -> int:
    """Every file of every artifact the avatar's record names; returns how many."""
    avatar_id = row["avatar_id"]
    names = storage.names(layout.records_of(avatar_id))
    records = [name for name in names if name.startswith("record-")]
    assert len(records) == 1, names
    record = storage.read_json(f"{layout.records_of(avatar_id)}/{records[0]}")
    checked = 0
    for path in record["artifacts"].values():
        artifact = Artifact.from_json(storage.read_json(path))
        assert artifact.files
        for name, file in artifact.files.items():
            data = storage.read(f"{artifact.path}/{name}")
            assert (len(data), digest_bytes(data)) == (file.size, file.digest), f"{path}: {name}"
            checked += 1
    assert storage.uri_of(record["avatar_path"]) == row["avatar_uri"]
    return checked


def _orphans(storage: Storage) -> list[str]:
    """Attempt folders that no completion record names."""
    attempts, named = set(), set()
    for avatar in _names(storage, layout.AVATARS):
        for stage in storage.names(avatar):
            for name in storage.names(f"{avatar}/{stage}"):
                path = f"{avatar}/{stage}/{name}"
                if name.startswith("attempt-"):
                    attempts.add(path)
                else:
                    named.add(Artifact.from_json(storage.read_json(path)).path)
    return sorted(attempts - named)


def _open_attempts(storage: Storage) -> list[str]:
    """Ledger entries of attempts that nobody judged; verdicts on quarantined portraits stay."""
    return [
        f"{folder}/{work}/{generation}/{name}"
        for folder in _names(storage, layout.LEDGER)
        for work in storage.names(folder)
        for generation in storage.names(f"{folder}/{work}")
        for name in storage.names(f"{folder}/{work}/{generation}")
        if not name.endswith(".crash")
    ]


def _names(storage: Storage, tree: str) -> list[str]:
    """Folders of the avatars below a tree."""
    return [
        f"{tree}/{shard}/{avatar}"
        for shard in storage.names(tree)
        for avatar in storage.names(f"{tree}/{shard}")
    ]
