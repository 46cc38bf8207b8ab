"""INPUTS of ``fc4d run`` to one table of rows: files, folders, globs, prefixes, tables."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fc4d_ray.errors import ConfigError, InvalidAnnotation
from fc4d_ray.pipeline.earlier_rows import inherit_columns, relevant_rows
from fc4d_ray.pipeline.identification import (
    PORTION,
    SPREAD_FROM,
    Identify,
    Identity,
    KnownIdentities,
    Source,
    annotation_text,
    identify_here,
)
from fc4d_ray.pipeline.input_tables import is_table, read_table
from fc4d_ray.pipeline.listing import GLOB_CHARACTERS, expand_local, expand_remote, fingerprints
from fc4d_ray.store.manifest_rows import COLUMNS_DIGEST, columns_digests, user_columns
from fc4d_ray.store.plans import avatar_plans, columns_digest
from fc4d_ray.store.runs import OWN_PREFIX

if TYPE_CHECKING:
    import pyarrow as pa

_ANNOTATIONS = ("face_box", "landmarks")
_ADDRESS = OWN_PREFIX + "source_uri"
_WINDOW = 65536


@dataclass(frozen=True)
class Inputs:
    """All rows of a run."""

    table: pa.Table
    """The user's columns, and ours: ``fc4d:source_uri``, ``fc4d:fingerprint``, ``fc4d:face_box``
    and ``fc4d:landmarks`` (JSON text), ``fc4d:avatar_id`` (null where the source could not be
    read), ``fc4d:error_type``, ``fc4d:error_message``, ``fc4d:columns_digest``."""

    def __len__(self) -> int:
        return self.table.num_rows

    def own(self, name: str) -> pa.Array:
        """One of our columns in one piece."""
        import pyarrow as pa

        return self.table[OWN_PREFIX + name].combine_chunks().cast(pa.string())

    def plans(self, plan_base: str, positions: pa.Array) -> pa.Array:
        """Plan digests of the rows at those positions."""
        import pyarrow as pa

        ids = self.own("avatar_id").take(positions).to_pylist()
        digests = columns_digests(self.table.take(positions))
        return pa.array(avatar_plans(plan_base, ids, digests), pa.string())

    def first_positions(self) -> pa.Array:
        """Positions of the readable rows, each avatar once, in order."""
        import numpy as np
        import pyarrow as pa

        codes = self.own("avatar_id").dictionary_encode().indices
        filled = codes.fill_null(-1).to_numpy(zero_copy_only=False)
        values, first = np.unique(filled, return_index=True)
        return pa.array(np.sort(first[values >= 0]))


def collect_inputs(
    arguments: Sequence[str],
    *,
    earlier: Iterable[pa.Table] = (),
    cluster: Identify | None = None,
) -> Inputs:
    """Expand and identify every portrait.

    ``earlier``: rows of earlier runs, the newest first; unchanged sources take their ids from
    there, and columns that the new run says nothing of (see ``earlier_rows``). ``cluster``
    identifies where very many sources must be read.
    Raises ``ConfigError`` for arguments that cannot be portraits at all (a table without ``uri``,
    a folder without images). A portrait that cannot be read is a row with an error.
    """
    import pyarrow as pa

    tables = [_expand(argument) for argument in arguments]
    if not tables or not any(table.num_rows for table in tables):
        raise ConfigError("no portraits in " + (", ".join(arguments) or "the inputs"))
    known = relevant_rows(earlier, (c for t in tables for c in t[_ADDRESS].chunks))
    tables = [inherit_columns(table, known) for table in tables]
    try:
        table = pa.concat_tables(tables, promote_options="permissive")
    except pa.ArrowException as error:
        raise ConfigError(f"the input tables' columns do not fit together: {error}") from error
    return Inputs(_identified(table, KnownIdentities(known), cluster))


def count_inputs(arguments: Sequence[str]) -> int:
    """Rows the arguments name; tables and listings are read, portraits are not."""
    return sum(_expand(argument).num_rows for argument in arguments)


def identify_again(
    table: pa.Table, *, earlier: Iterable[pa.Table] = (), cluster: Identify | None = None
) -> Inputs:
    """Rows of an earlier run; sources that have changed since are read anew."""
    table = table.select([OWN_PREFIX + "source_uri", *user_columns(table)])
    return Inputs(_identified(table, KnownIdentities(earlier), cluster))


def _expand(argument: str) -> pa.Table:
    """Table with ``fc4d:source_uri``, and the user's columns or a fingerprint."""
    if is_table(argument) and not GLOB_CHARACTERS & set(argument):
        return read_table(argument)
    if "://" in argument and not argument.startswith("file://"):
        return expand_remote(argument)
    return expand_local(argument.removeprefix("file://"))


def _identified(table: pa.Table, known: KnownIdentities, cluster: Identify | None) -> pa.Table:
    """Add what is missing of our columns."""
    import pyarrow as pa

    table = _with_fingerprints(table)
    table, problems = _with_annotations(table)
    ids = known.look_up(table)
    unknown = ids.is_null().to_numpy(zero_copy_only=False).nonzero()[0]
    wanted = [number for number in unknown.tolist() if number not in problems]
    identify = cluster if cluster is not None and len(wanted) >= SPREAD_FROM else identify_here
    found = _identities(table, wanted, identify)
    columns = {
        "avatar_id": ids.to_pylist(),
        "error_type": [None] * table.num_rows,
        "error_message": [None] * table.num_rows,
    }
    for number, identity in (*problems.items(), *found):
        columns["avatar_id"][number] = identity.avatar_id
        columns["error_type"][number] = identity.error_type
        columns["error_message"][number] = identity.error_message
    for name, values in columns.items():
        table = table.append_column(OWN_PREFIX + name, pa.array(values, pa.string()))
    return _with_columns_digests(table)


def _with_columns_digests(table: pa.Table) -> pa.Table:
    """Add the digest of each row's own columns, empty where there are none."""
    import pyarrow as pa

    own = table.select(user_columns(table))
    if own.num_columns:
        batches = own.to_batches(max_chunksize=_WINDOW)
        digests = [columns_digest(row) for batch in batches for row in batch.to_pylist()]
    else:
        digests = [""] * table.num_rows
    return table.append_column(COLUMNS_DIGEST, pa.array(digests, pa.string()))


def _identities(
    table: pa.Table, wanted: list[int], identify: Identify
) -> Iterator[tuple[int, Identity]]:
    columns = [OWN_PREFIX + name for name in ("source_uri", *_ANNOTATIONS)]
    chosen = table.select(columns)

    def portions() -> Iterator[list[Source]]:
        for start in range(0, len(wanted), PORTION):
            rows = chosen.take(wanted[start : start + PORTION])
            yield [Source(*values.values()) for values in rows.to_pylist()]

    start = 0
    for portion in identify(portions()):
        yield from zip(wanted[start : start + PORTION], portion, strict=True)
        start += PORTION


def _with_fingerprints(table: pa.Table) -> pa.Table:
    """Fingerprints of the rows whose address did not come from a listing."""
    import pyarrow as pa

    name = OWN_PREFIX + "fingerprint"
    if name in table.column_names and not table[name].null_count:
        return table
    uris = table[OWN_PREFIX + "source_uri"]
    missing = table[name].is_null() if name in table.column_names else None
    pieces = []
    for start in range(0, table.num_rows, _WINDOW):
        window = uris.slice(start, _WINDOW).to_pylist()
        if missing is None:
            found = fingerprints(window)
        else:
            have = table[name].slice(start, _WINDOW).to_pylist()
            lacking = [uri for uri, value in zip(window, have, strict=True) if value is None]
            looked_up = dict(zip(lacking, fingerprints(lacking), strict=True))
            found = [
                looked_up[uri] if value is None else value
                for uri, value in zip(window, have, strict=True)
            ]
        pieces.append(pa.array(found, pa.string()))
    column = pa.chunked_array(pieces, pa.string())
    if missing is None:
        return table.append_column(name, column)
    return table.set_column(table.column_names.index(name), name, column)


def _with_annotations(table: pa.Table) -> tuple[pa.Table, dict[int, Identity]]:
    """The annotations as JSON text, and the rows where they are none."""
    import pyarrow as pa

    problems: dict[int, Identity] = {}
    for name in _ANNOTATIONS:
        texts: list[str | None] = [None] * table.num_rows
        if name in table.column_names and table[name].null_count < table.num_rows:
            for number, value in enumerate(table[name].to_pylist()):
                try:
                    texts[number] = annotation_text(name, value)
                except InvalidAnnotation as error:
                    problems[number] = Identity(None, type(error).__name__, str(error))
        table = table.append_column(OWN_PREFIX + name, pa.array(texts, pa.string()))
    return table, problems
