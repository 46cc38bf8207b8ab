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
    cards = [_card(row, storage) for row in table.to_pylist()]
    return environment.get_template(TEMPLATE.name).render(
        cards=cards,
        summary=_summary(cards),
        stage_means=_stage_means(cards),
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


def _summary(cards: list[Card]) -> dict[str, Any]:
    statuses = [card.status for card in cards]
    reasons: dict[str, int] = {}
    for card in cards:
        if card.status == "failed":
            reasons[card.row["error_type"]] = reasons.get(card.row["error_type"], 0) + 1
    totals = [c.row["seconds_total"] for c in cards if c.status == "succeeded"]
    return {
        "rows": len(cards),
        "counts": {name: statuses.count(name) for name in ("succeeded", "failed", "duplicate")},
        "reasons": sorted(reasons.items(), key=lambda item: -item[1]),
        "mean_seconds": sum(totals) / len(totals) if totals else None,
        "warnings": sum(1 for card in cards if card.row["warnings"]),
    }


def _stage_means(cards: list[Card]) -> list[tuple[str, float]]:
    """Mean seconds per stage over finished avatars, in pipeline order."""
    sums: dict[str, list[float]] = {}
    for card in cards:
        if card.status == "succeeded":
            for name, seconds, _ in card.stages:
                sums.setdefault(name, []).append(seconds)
    return [(name, sum(values) / len(values)) for name, values in sums.items()]
