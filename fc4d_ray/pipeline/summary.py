"""How the portraits of one run stand, counted column by column over the records' outcomes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from fc4d_ray.pipeline.inputs import Inputs

if TYPE_CHECKING:
    import pyarrow as pa

    from fc4d_ray.store.filesystem import Storage

_AVATARS_TOLD = 4


@dataclass(frozen=True)
class Standings:
    """Counts over the rows of a run's inputs; the output may hold other runs' rows too."""

    succeeded: int
    failed: int
    duplicates: int
    unfinished: int
    failures: dict[str, int]
    """Failed rows by error type."""
    avatars: tuple[str, ...]
    """Where the first few avatars are."""


def count_standings(
    inputs: Inputs, plan_base: str, outcomes: pa.Table, storage: Storage
) -> Standings:
    """Look up every row's end under the plan. An end under another plan is none.

    Not in the manifest: there a portrait that an earlier run knows by another address is a
    duplicate, whatever this run made of it.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    readable = inputs.own("avatar_id").is_valid()
    first = inputs.first_positions()
    plans = inputs.plans(plan_base, first)
    ends = outcomes.sort_by([("rank", "descending")])
    places = pc.index_in(plans, value_set=ends["plan_digest"].combine_chunks())
    found = ends.select(["status", "error_type", "avatar_path"]).take(places.drop_null())
    succeeded = found.filter(pc.equal(found["status"], "succeeded"))
    failed = found.filter(pc.equal(found["status"], "failed"))
    unreadable = inputs.own("error_type").filter(pc.invert(readable))
    reasons = pa.chunked_array([*failed["error_type"].chunks, unreadable], pa.string())
    failures = {
        str(entry["values"]): entry["counts"] for entry in reasons.value_counts().to_pylist()
    }
    return Standings(
        succeeded=succeeded.num_rows,
        failed=failed.num_rows + len(unreadable),
        duplicates=len(inputs) - len(unreadable) - len(first),
        unfinished=len(first) - found.num_rows,
        failures=failures,
        avatars=tuple(
            storage.uri_of(path)
            for path in succeeded["avatar_path"].slice(0, _AVATARS_TOLD).to_pylist()
        ),
    )
