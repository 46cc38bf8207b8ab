"""What earlier runs into the same output know of the portraits of a new one.

A row's own columns (licence, consent, split …) are statements about a portrait, not about a run. So
a run over the bare files takes over what an earlier table said of them: a column that a later
table does not have stays as it was, one that it has counts as it stands there, empty cells
included. ``face_box`` and ``landmarks`` are never taken over; they choose the face, and hence the
avatar, only in the run whose table gives them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from fc4d_ray.store.manifest_rows import gather, place_rows, user_columns
from fc4d_ray.store.plans import IDENTIFYING_COLUMNS
from fc4d_ray.store.runs import OWN_PREFIX

if TYPE_CHECKING:
    import pyarrow as pa

_ADDRESS = OWN_PREFIX + "source_uri"


def relevant_rows(tables: Iterable[pa.Table], addresses: Iterable[pa.Array]) -> list[pa.Table]:
    """Of each address the rows of the newest run that named it.

    ``tables``: rows of earlier runs, the newest first; no more of them are read than needed.
    ``addresses``: those of the new run, in any number of pieces.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    wanted = pa.chunked_array(list(addresses), pa.string()).unique()
    found: list[pa.Table] = []
    for table in tables:
        rows = table.filter(pc.is_in(table[_ADDRESS], value_set=wanted))
        if rows.num_rows:
            found.append(rows)
            covered = pc.is_in(wanted, value_set=rows[_ADDRESS].combine_chunks())
            wanted = wanted.filter(pc.invert(covered))
        if not len(wanted):
            break
    return found


def inherit_columns(table: pa.Table, earlier: Sequence[pa.Table]) -> pa.Table:
    """Add the columns that earlier runs' rows of the same addresses have and ``table`` has not."""
    names = dict.fromkeys(name for rows in earlier for name in user_columns(rows))
    missing = [n for n in names if n not in table.column_names and n not in IDENTIFYING_COLUMNS]
    if not missing:
        return table
    import numpy as np

    *placed, new = place_rows([*earlier, table])[0]
    which = np.full(1 + max(int(p.numbers.max(initial=0)) for p in (*placed, new)), -1, np.int64)
    where = which.copy()
    for number, rows in enumerate(placed):
        which[rows.numbers] = number
        where[rows.numbers] = np.arange(len(rows.numbers))
    columns = gather(earlier, missing, which[new.numbers], where[new.numbers])
    for name in missing:
        table = table.append_column(name, columns[name])
    return table
