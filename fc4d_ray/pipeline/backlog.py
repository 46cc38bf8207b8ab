"""What a run has left to do, found out without an object per row."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, overload

from fc4d_ray.pipeline.inputs import Inputs
from fc4d_ray.pipeline.portrait import Portrait
from fc4d_ray.store.filesystem import Storage
from fc4d_ray.store.manifest_rows import user_columns
from fc4d_ray.store.record_index import RecordIndex, survey
from fc4d_ray.store.runs import OWN_PREFIX

if TYPE_CHECKING:
    import pyarrow as pa

_BATCH_ROWS = 4096
_PLAIN_TYPES = frozenset((str, int, float, bool, type(None)))
_SURVEY_ALL_FROM = 4096


class Portraits(Sequence[Portrait]):
    """Portraits made from their table's rows when somebody asks for them."""

    def __init__(self, table: pa.Table, generations: Mapping[str, int]) -> None:
        self._table = table
        self._generations = generations

    def __len__(self) -> int:
        return self._table.num_rows

    def __iter__(self) -> Iterator[Portrait]:
        for batch in self._table.to_batches(max_chunksize=_BATCH_ROWS):
            for values in batch.to_pylist():
                yield self._portrait(values)

    @overload
    def __getitem__(self, index: int) -> Portrait: ...

    @overload
    def __getitem__(self, index: slice) -> Portraits: ...

    def __getitem__(self, index: int | slice) -> Portrait | Portraits:
        import pyarrow as pa

        if isinstance(index, slice):
            positions = pa.array(range(*index.indices(len(self))), pa.int64())
            return Portraits(self._table.take(positions), self._generations)
        position = range(len(self))[index]
        return self._portrait(self._table.slice(position, 1).to_pylist()[0])

    def _portrait(self, values: dict[str, Any]) -> Portrait:
        face_box, landmarks = (values[OWN_PREFIX + name] for name in ("face_box", "landmarks"))
        avatar_id = values[OWN_PREFIX + "avatar_id"]
        return Portrait(
            avatar_id=avatar_id,
            source_uri=values[OWN_PREFIX + "source_uri"],
            generation=self._generations.get(avatar_id, 0),
            face_box=json.loads(face_box) if face_box else None,
            landmarks=json.loads(landmarks) if landmarks else None,
            columns=_plain({n: v for n, v in values.items() if not n.startswith(OWN_PREFIX)}),
        )


def _plain(columns: dict[str, Any]) -> dict[str, Any]:
    """The user's columns as JSON values; what JSON does not know becomes text."""
    if all(type(value) in _PLAIN_TYPES for value in columns.values()):
        return columns
    return json.loads(json.dumps(columns, default=str))


@dataclass(frozen=True)
class Backlog:
    """Where the portraits of some inputs stand under a plan."""

    left: Portraits
    """Those without an end, each avatar once."""
    statuses: pa.StringArray
    """``succeeded``, ``failed`` or ``pending`` of each avatar, in order of first appearance."""
    avatar_ids: pa.StringArray
    plans: pa.StringArray
    """Plan digest of each avatar, with the columns of its first row."""

    def count(self, status: str) -> int:
        """Avatars of that status."""
        import pyarrow.compute as pc

        return int(pc.sum(pc.equal(self.statuses, status)).as_py() or 0)

    def chosen(self, status: str) -> list[tuple[str, str]]:
        """(id, plan digest) of the avatars of that status."""
        import pyarrow.compute as pc

        chosen = pc.equal(self.statuses, status)
        ids, plans = self.avatar_ids.filter(chosen), self.plans.filter(chosen)
        return list(zip(ids.to_pylist(), plans.to_pylist(), strict=True))


def find_backlog(storage: Storage, inputs: Inputs, plan_base: str) -> Backlog:
    """Compare the inputs with a listing of the records. Opens no file."""
    import pyarrow.compute as pc

    first = inputs.first_positions()
    ids = inputs.own("avatar_id").take(first)
    index = look(storage, ids)
    plans = inputs.plans(plan_base, first)
    statuses = index.statuses(ids, plans)
    pending = first.filter(pc.equal(statuses, "pending"))
    columns = [*user_columns(inputs.table), *(OWN_PREFIX + name for name in _PORTRAIT_COLUMNS)]
    left = Portraits(inputs.table.select(columns).take(pending), index.generations)
    return Backlog(left, statuses, ids, plans)


_PORTRAIT_COLUMNS = ("avatar_id", "source_uri", "face_box", "landmarks")


def look(storage: Storage, avatar_ids: pa.StringArray) -> RecordIndex:
    """Index of these avatars' records; of very many, one listing of everything is cheaper."""
    if len(avatar_ids) >= _SURVEY_ALL_FROM:
        return survey(storage)
    return survey(storage, avatar_ids.to_pylist())
