"""How the portraits of one run stand in the manifest, counted column by column."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from fc4d_ray.pipeline.inputs import Inputs

if TYPE_CHECKING:
    import pyarrow as pa

_AVATARS_TOLD = 4


@dataclass(frozen=True)
class Standings:
    """Counts over the rows of a run's inputs; the manifest may hold other runs' rows too."""

    succeeded: int
    failed: int
    duplicates: int
    unfinished: int
    failures: dict[str, int]
    """Failed rows by error type."""
    avatars: tuple[str, ...]
    """Where the first few avatars are."""


def count_standings(inputs: Inputs, plan_base: str, manifest: pa.Table) -> Standings:
    """Look up every row's end under the plan. An end under another plan is none."""
    import pyarrow as pa
    import pyarrow.compute as pc

    readable = inputs.own("avatar_id").is_valid()
    first = inputs.first_positions()
    plans = inputs.plans(plan_base, first)
    ends = manifest.filter(pc.not_equal(manifest["status"], "duplicate"))
    places = pc.index_in(plans, value_set=ends["plan_digest"].combine_chunks())
    found = ends.select(["status", "error_type", "avatar_uri"]).take(places.drop_null())
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
        avatars=tuple(succeeded["avatar_uri"].slice(0, _AVATARS_TOLD).to_pylist()),
    )
