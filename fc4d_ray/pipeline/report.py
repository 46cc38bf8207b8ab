"""``report.html``: every portrait of an output on one static page, opened without a server."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fc4d_ray.store import layout
from fc4d_ray.store.filesystem import Storage
from fc4d_ray.store.manifest_schema import QUALITY_COLUMNS

if TYPE_CHECKING:
    import pyarrow as pa

TEMPLATE = Path(__file__).parent / "templates" / "report.html.j2"

_QUALITY_LABELS = {
    "id_distance_0": "identity 0°",
    "id_distance_30": "identity ±30°",
    "id_distance_45": "identity ±45°",
    "silhouette_iou": "silhouette",
    "tracking_error": "tracking",
}
_VIDEOS = ("turntable.mp4", "expressions.mp4")
CARDS_AT_MOST = 2000
"""Portraits on the page; a browser shows no million of them."""


@dataclass(frozen=True)
class Card:
    """One portrait on the page."""

    title: str
    status: str
    row: dict[str, Any]
    folder: str | None
    """Published files, relative to the page."""
    quality: tuple[tuple[str, str], ...]
    """(label, value) pairs."""
    stages: tuple[tuple[str, float, float], ...]
    """(stage, seconds, fraction of the total)."""


def write_report(storage: Storage, table: pa.Table) -> None:
    """Put ``report.html`` beside the manifest it shows."""
    storage.replace(layout.REPORT, render_report(storage, table).encode())


def render_report(storage: Storage, table: pa.Table) -> str:
    """HTML of the page for a manifest."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(TEMPLATE.parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["duration"] = format_duration
    chosen = _chosen(table)
    return environment.get_template(TEMPLATE.name).render(
        cards=[_card(row, storage) for row in chosen.to_pylist()],
        left_out=table.num_rows - chosen.num_rows,
        summary=_summary(table),
        stage_means=_stage_means(table),
        videos=_VIDEOS,
    )


def format_duration(seconds: float | None) -> str:
    """``74.2`` as ``1 min 14 s``; a dash for None."""
    if seconds is None:
        return "–"
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s"


def _card(row: dict[str, Any], storage: Storage) -> Card:
    stages = [
        (name.removeprefix("seconds_"), value)
        for name, value in row.items()
        if name.startswith("seconds_") and name != "seconds_total" and value is not None
    ]
    total = sum(value for _, value in stages) or 1.0
    quality = [
        (_QUALITY_LABELS[name], "none" if row[name] is None else f"{row[name]:.3f}")
        for name in QUALITY_COLUMNS
        if row["status"] == "succeeded"
    ]
    if row.get("n_splats") is not None:
        quality.append(("splats", f"{row['n_splats']:,}".replace(",", "\u202f")))
    return Card(
        title=os.path.basename(row["source_uri"]) or row["source_uri"],
        status=row["status"],
        row=row,
        folder=_relative(row["avatar_uri"], storage),
        quality=tuple(quality),
        stages=tuple((name, seconds, seconds / total) for name, seconds in stages),
    )


def _relative(uri: str | None, storage: Storage) -> str | None:
    root = storage.uri_of("").rstrip("/") + "/"
    return uri.removeprefix(root) if uri else None


def _chosen(table: pa.Table) -> pa.Table:
    """The rows that get a card: all, or of very many the failures first, in the table's order."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    if table.num_rows <= CARDS_AT_MOST:
        return table
    failed = pc.equal(table["status"], "failed").to_numpy()
    shown = np.concatenate([np.flatnonzero(failed)[: CARDS_AT_MOST // 2], np.flatnonzero(~failed)])
    return table.take(pa.array(np.sort(shown[:CARDS_AT_MOST])))


def _summary(table: pa.Table) -> dict[str, Any]:
    import pyarrow.compute as pc

    counts = {each["values"]: each["counts"] for each in table["status"].value_counts().to_pylist()}
    failed = table.filter(pc.equal(table["status"], "failed"))
    reasons = [
        (str(each["values"]), each["counts"])
        for each in failed["error_type"].value_counts().to_pylist()
    ]
    warned = pc.greater(pc.list_value_length(table["warnings"]), 0)
    return {
        "rows": table.num_rows,
        "counts": {name: counts.get(name, 0) for name in ("succeeded", "failed", "duplicate")},
        "reasons": sorted(reasons, key=lambda reason: -reason[1]),
        "mean_seconds": _mean(_succeeded(table)["seconds_total"]),
        "warnings": pc.sum(warned).as_py() or 0,
    }


def _stage_means(table: pa.Table) -> list[tuple[str, float]]:
    """Mean seconds per stage over finished avatars, in pipeline order."""
    finished = _succeeded(table)
    means = ((name.removeprefix("seconds_"), _mean(finished[name])) for name in _stages(table))
    return [(name, mean) for name, mean in means if mean is not None]


def _stages(table: pa.Table) -> list[str]:
    columns = table.column_names
    return [name for name in columns if name.startswith("seconds_") and name != "seconds_total"]


def _succeeded(table: pa.Table) -> pa.Table:
    import pyarrow.compute as pc

    return table.filter(pc.equal(table["status"], "succeeded"))


def _mean(column: pa.ChunkedArray) -> float | None:
    import pyarrow.compute as pc

    return pc.mean(column).as_py()
