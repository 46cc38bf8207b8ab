"""Avatar ids of many sources: known ones looked up, the rest read in bounded portions.

A source is known where an earlier run into the same output has seen the same address with the same
fingerprint (size and time of change, or the object's ETag) and the same annotations. It is not
read again then. A file that was changed behind an unchanged fingerprint is noticed when a worker
fetches it, since workers compare the bytes with the id.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any

from fc4d_ray.config import RunSettings
from fc4d_ray.errors import InvalidAnnotation, UnreadableSource
from fc4d_ray.pipeline.sources import avatar_id_of, digest_source
from fc4d_ray.store.runs import OWN_PREFIX

if TYPE_CHECKING:
    import pyarrow as pa

PORTION = 256
"""Sources that are identified together, by one task where a cluster does it."""
SPREAD_FROM = 10_000
"""Of this many unknown sources on, a cluster that the run joins reads them."""

_PARALLEL_READS = 16
_TASKS_IN_FLIGHT = 64


@dataclass(frozen=True)
class Source:
    """What an avatar id is made from; annotations are JSON text."""

    uri: str
    face_box: str | None = None
    landmarks: str | None = None


@dataclass(frozen=True)
class Identity:
    """An avatar id, or why there is none."""

    avatar_id: str | None = None
    error_type: str | None = None
    error_message: str | None = None


Identify = Callable[[Iterable[list[Source]]], Iterator[list[Identity]]]
"""Portions of sources to portions of identities, in order."""


def identify_source(source: Source) -> Identity:
    """Read one source for its id; a source that cannot be read is an answer, not an error."""
    try:
        if not source.uri:
            raise UnreadableSource("the row has an empty uri")
        box, points = (json.loads(t) if t else None for t in (source.face_box, source.landmarks))
        return Identity(avatar_id_of(digest_source(source.uri), box, points))
    except UnreadableSource as error:
        return Identity(None, type(error).__name__, str(error))


def identify_portion(portion: list[Source]) -> list[Identity]:
    """Identify sources side by side: reading waits for disks and networks, not for a core."""
    with ThreadPoolExecutor(_PARALLEL_READS) as pool:
        return list(pool.map(identify_source, portion))


def identify_here(portions: Iterable[list[Source]]) -> Iterator[list[Identity]]:
    """Portion after portion in this process."""
    yield from map(identify_portion, portions)


def identify_on_cluster(portions: Iterable[list[Source]]) -> Iterator[list[Identity]]:
    """Portions as tasks of the Ray cluster this process is in, a bounded number at a time."""
    import ray

    remote = ray.remote(num_cpus=1)(identify_portion)
    entries = iter(portions)
    waiting = [remote.remote(portion) for portion in islice(entries, _TASKS_IN_FLIGHT)]
    while waiting:
        yield ray.get(waiting.pop(0))
        waiting += [remote.remote(portion) for portion in islice(entries, 1)]


def identify_by(settings: RunSettings) -> Identify | None:
    """Identification by the cluster that a run with these settings joins; None without one."""
    address = settings.ray_address or os.environ.get("RAY_ADDRESS")
    if settings.runner != "ray" or not address:
        return None

    def identify(portions: Iterable[list[Source]]) -> Iterator[list[Identity]]:
        from fc4d_ray.pipeline.ray_cluster import joined

        if "ray" in sys.modules and sys.modules["ray"].is_initialized():
            yield from identify_on_cluster(portions)
            return
        with joined(address):
            yield from identify_on_cluster(portions)

    return identify


def annotation_text(name: str, value: Any) -> str | None:
    """JSON text of a ``face_box`` or ``landmarks`` cell: a list, JSON text of one, or nothing.

    Raises ``InvalidAnnotation``.
    """
    if value is None or (isinstance(value, str) and not value.strip()):
        return None
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except ValueError as error:
            raise InvalidAnnotation(f"{name} is no JSON: {error}") from error
        if value is None:
            return None
    if not isinstance(value, list):
        raise InvalidAnnotation(f"{name} must be a list, found {type(value).__name__}")
    try:
        return json.dumps(value, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise InvalidAnnotation(f"{name} must hold finite numbers: {error}") from error


_IDENTITY_COLUMNS = ("source_uri", "fingerprint", "face_box", "landmarks")
_SEPARATOR = "\x1f"


class KnownIdentities:
    """Ids that earlier runs have found."""

    def __init__(self, tables: Iterable[pa.Table]) -> None:
        """``tables``: rows of earlier runs, the newest first."""
        import pyarrow as pa

        keys, ids = [pa.array([], pa.string())], [pa.array([], pa.string())]
        for table in tables:
            if OWN_PREFIX + "fingerprint" not in table.column_names:
                continue
            usable = table.filter(table[OWN_PREFIX + "avatar_id"].is_valid())
            keys.append(_keys(usable))
            ids.append(usable[OWN_PREFIX + "avatar_id"].combine_chunks().cast(pa.string()))
        self._keys, self._ids = pa.concat_arrays(keys), pa.concat_arrays(ids)

    def look_up(self, table: pa.Table) -> pa.StringArray:
        """Avatar id of each row, null where it is not known. Needs the identity columns."""
        import pyarrow.compute as pc

        return self._ids.take(pc.index_in(_keys(table), value_set=self._keys, skip_nulls=True))


def _keys(table: pa.Table) -> pa.StringArray:
    """Address, fingerprint and annotations as one text; null where there is no fingerprint."""
    import pyarrow as pa
    import pyarrow.compute as pc

    uri, fingerprint, *annotations = (
        table[OWN_PREFIX + name].combine_chunks().cast(pa.string()) for name in _IDENTITY_COLUMNS
    )
    texts = [pc.fill_null(annotation, "") for annotation in annotations]
    return pc.binary_join_element_wise(uri, fingerprint, *texts, _SEPARATOR)
