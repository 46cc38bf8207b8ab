"""Every avatar's standing from one listing of ``records/``: names are read, no file is opened.

Columns instead of objects: a million records take some 100 MB and seconds.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from fc4d_ray.store import layout
from fc4d_ray.store.filesystem import Storage
from fc4d_ray.store.records import Standing

if TYPE_CHECKING:
    import pyarrow as pa

FINISHED = 1 << 31
"""Rank of a finished avatar's record, above every failure's generation."""

_PARALLEL_LISTINGS = 16
_WHOLE_SHARD_FROM = 8
"""Of this many avatars on, one listing of their shard replaces a listing for each."""


@dataclass(frozen=True)
class RecordIndex:
    """The records of an output, one row per record of an end.

    A record's *rank* is its attempt generation where it tells of a failure, ``FINISHED`` otherwise:
    of several records under one plan the one with the highest rank counts.
    """

    avatar_ids: pa.StringArray
    plans: pa.StringArray
    """Plan digest; covers the avatar's id, hence never shared by two avatars."""
    ranks: pa.Int64Array
    generations: Mapping[str, int] = field(default_factory=dict)
    """Current attempt generation by avatar, where ``retry`` has raised it."""

    def __len__(self) -> int:
        return len(self.plans)

    def statuses(self, avatar_ids: pa.StringArray, plans: pa.StringArray) -> pa.StringArray:
        """``succeeded``, ``failed`` or ``pending`` of each avatar under its plan."""
        import pyarrow as pa
        import pyarrow.compute as pc

        is_finished = pc.equal(self.ranks, FINISHED)
        succeeded = pc.is_in(plans, value_set=self.plans.filter(is_finished))
        failed = pc.is_in(plans, value_set=self._current_failures())
        names = pa.array(["succeeded", "failed", "pending"])
        choice = pc.if_else(succeeded, 0, pc.if_else(failed, 1, 2))
        return names.take(choice)

    def _current_failures(self) -> pa.StringArray:
        """Plans with a failure in their avatar's current generation."""
        import pyarrow as pa
        import pyarrow.compute as pc

        failures = pc.less(self.ranks, FINISHED)
        plans, ranks = self.plans.filter(failures), self.ranks.filter(failures)
        if not self.generations:
            return plans
        avatar_ids = self.avatar_ids.filter(failures)
        current = [self.generations.get(avatar_id, 0) for avatar_id in avatar_ids.to_pylist()]
        return plans.filter(pc.equal(ranks, pa.array(current, pa.int64())))

    def newest(self) -> RecordIndex:
        """Of each plan only the record that counts."""
        import numpy as np
        import pyarrow as pa

        if not len(self):
            return self
        codes = self.plans.dictionary_encode().indices.to_numpy()
        ranks = self.ranks.to_numpy()
        order = np.lexsort((ranks, codes))
        is_last = np.append(np.diff(codes[order]) != 0, True)
        rows = pa.array(np.sort(order[is_last]))
        return RecordIndex(
            self.avatar_ids.take(rows),
            self.plans.take(rows),
            self.ranks.take(rows),
            self.generations,
        )

    @classmethod
    def concatenate(cls, pieces: Sequence[RecordIndex]) -> RecordIndex:
        """One index of several; earlier pieces first."""
        import pyarrow as pa

        generations: dict[str, int] = {}
        for piece in pieces:
            generations.update(piece.generations)
        return cls(
            pa.concat_arrays([pa.array([], pa.string()), *(p.avatar_ids for p in pieces)]),
            pa.concat_arrays([pa.array([], pa.string()), *(p.plans for p in pieces)]),
            pa.concat_arrays([pa.array([], pa.int64()), *(p.ranks for p in pieces)]),
            generations,
        )


def record_name(plan: str, rank: int) -> str:
    """File name of the record with that rank."""
    return layout.record_name(plan) if rank == FINISHED else layout.failure_name(plan, rank)


def survey(storage: Storage, avatar_ids: Sequence[str] | None = None) -> RecordIndex:
    """List the records of these avatars, of all where ``avatar_ids`` is None.

    Where many avatars of a shard are asked for, the index may hold its other avatars too.
    Raises ``StoreError``.
    """
    shards: dict[str, list[str] | None]
    if avatar_ids is None:
        shards = dict.fromkeys(storage.names(layout.RECORDS))
    else:
        shards = _by_shard(avatar_ids)
    if storage.is_local:
        return RecordIndex.concatenate([_survey_shard(storage, *item) for item in shards.items()])
    with ThreadPoolExecutor(_PARALLEL_LISTINGS) as pool:
        pieces = pool.map(lambda item: _survey_shard(storage, *item), shards.items())
        return RecordIndex.concatenate(list(pieces))


def _by_shard(avatar_ids: Sequence[str]) -> dict[str, list[str] | None]:
    """The avatars to list one by one, by shard; None for a shard to be listed as a whole."""
    shards: dict[str, list[str] | None] = {}
    for avatar_id in avatar_ids:
        shard = layout.safe_name(avatar_id)[:2]
        wanted = shards.setdefault(shard, [])
        if wanted is None:
            continue
        wanted.append(avatar_id)
        if len(wanted) >= _WHOLE_SHARD_FROM:
            shards[shard] = None
    return shards


def _survey_shard(storage: Storage, shard: str, avatar_ids: list[str] | None) -> RecordIndex:
    if avatar_ids is None:
        return index_names(storage.names_by_folder(f"{layout.RECORDS}/{shard}"))
    return index_names((a, storage.names(layout.records_of(a))) for a in avatar_ids)


def index_names(listing: Iterable[tuple[str, list[str]]]) -> RecordIndex:
    """Index of record folders: (avatar id, names in its folder) pairs."""
    import pyarrow as pa

    owners: list[str] = []
    plans: list[str] = []
    ranks: list[int] = []
    generations: dict[str, int] = {}
    for avatar_id, names in listing:
        standing = Standing.from_names(names)
        if standing.generation:
            generations[avatar_id] = standing.generation
        for plan in standing.finished_plans:
            owners.append(avatar_id)
            plans.append(plan)
            ranks.append(FINISHED)
        for plan, generation in standing.failures:
            owners.append(avatar_id)
            plans.append(plan)
            ranks.append(generation)
    return RecordIndex(
        pa.array(owners, pa.string()),
        pa.array(plans, pa.string()),
        pa.array(ranks, pa.int64()),
        generations,
    )
