"""What an avatar takes, stage by stage, from the runs' own manifests: the paper's table 6."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from fc4d_ray.errors import ConfigError
from fc4d_ray.evaluation.published import PUBLISHED_HOURS
from fc4d_ray.evaluation.report.tables import TextTable
from fc4d_ray.store.location import open_output
from fc4d_ray.store.manifest import read_manifest

_SECONDS = "seconds_"


@dataclass(frozen=True)
class RunTiming:
    """Mean seconds over a run's finished avatars."""

    method: str
    avatars: int
    total_s: float
    stages_s: Mapping[str, float]


def read_timing(method: str, out: str) -> RunTiming:
    """From the manifest of an output. Raises ``ConfigError`` where nothing has finished."""
    rows = [
        row for row in read_manifest(open_output(out)).to_pylist() if row["status"] == "succeeded"
    ]
    if not rows:
        raise ConfigError(f"{out} holds no finished avatar")
    names = [name for name in rows[0] if name.startswith(_SECONDS)]
    means = {
        name.removeprefix(_SECONDS): sum(values) / len(values)
        for name in names
        if (values := [row[name] for row in rows if row[name] is not None])
    }
    return RunTiming(method, len(rows), means.pop("total"), means)


def timing_table(timings: Sequence[RunTiming]) -> TextTable:
    """Hours per avatar beside the published ones."""
    rows = [
        (f"{name} (published)", f"{hours:g}", "", "") for name, hours in PUBLISHED_HOURS.items()
    ]
    rows += [
        (
            timing.method,
            f"{timing.total_s / 3600:.3g}",
            ", ".join(f"{stage} {seconds:.1f} s" for stage, seconds in timing.stages_s.items()),
            str(timing.avatars),
        )
        for timing in timings
    ]
    return TextTable(
        "Hours per avatar (table 6)",
        ("method", "hours ↓", "mean of each stage", "avatars"),
        tuple(rows),
        (
            "published: table 6 of arXiv 2504.15179, each on its authors' machine; ours on the "
            "machine the run's record names, several avatars possibly sharing it",
        ),
    )
