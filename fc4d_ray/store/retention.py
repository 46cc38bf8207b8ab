"""Which artifacts of a finished avatar stay: everything, the avatar, or only what is published.

Deleting is never more than losing time: a stage whose completion record is gone is done again when
a later run needs it. The record goes first, so that nothing ever names files that are not there.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from enum import StrEnum

from fc4d_ray.store.artifacts import Artifact
from fc4d_ray.store.filesystem import Storage


class Keep(StrEnum):
    """What of a finished avatar's artifacts stays."""

    all = "all"
    """Every stage's files: a changed section redoes only what depends on it."""
    avatar = "avatar"
    """The training stages' files: publishing can be redone, training cannot without the front."""
    minimal = "minimal"
    """The last stage's files only: what people use."""


def dispensable(keep: Keep, stages: Sequence[str], training: Collection[str]) -> tuple[str, ...]:
    """Stages whose artifacts go. ``stages`` in order; ``training``: those after the front."""
    if keep is Keep.all:
        return ()
    kept = {stages[-1]} if keep is Keep.minimal else {*training, stages[-1]}
    return tuple(stage for stage in stages if stage not in kept)


def drop_artifacts(storage: Storage, record_paths: Iterable[str]) -> int:
    """Delete the artifacts of these completion records; returns the bytes their files had."""
    freed = 0
    for path in record_paths:
        try:
            artifact = Artifact.from_json(storage.read_json(path))
        except FileNotFoundError:
            continue
        storage.remove(path)
        storage.remove(artifact.path)
        freed += sum(file.size for file in artifact.files.values())
    return freed
