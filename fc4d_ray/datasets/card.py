"""The dataset card: what is in it, under which licences, and how it was made.

Licences are those of the input table's column; where there is none the card says so instead of
inventing one. The figures are the manifest's own.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from fc4d_ray import __version__

LICENCE_COLUMNS = ("licence", "license")
"""Column of the input table that states a portrait's licence."""
_FIGURES = ("id_distance_0", "id_distance_30", "id_distance_45", "silhouette_iou")


def licences(rows: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    """How many avatars come from portraits under each licence; ``not stated`` for the rest."""
    found: Counter[str] = Counter()
    for row in rows:
        stated = next((str(row[name]) for name in LICENCE_COLUMNS if row.get(name)), "not stated")
        found[stated] += 1
    return dict(found.most_common())


def dataset_card(
    rows: Sequence[Mapping[str, Any]], name: str, condition: str | None, files: str
) -> str:
    """Markdown with a YAML header, as the Hugging Face hub reads it.

    ``files`` describes the layout in a sentence; ``condition`` is what chose the rows.
    """
    stated = licences(rows)
    tag = "other" if len(stated) != 1 or "not stated" in stated else next(iter(stated))
    digests = Counter(str(row.get("config_digest")) for row in rows)
    lines = [
        "---",
        f"pretty_name: {name}",
        f"license: {_yaml_text(tag)}",
        f"size_categories: [{_size_category(len(rows))}]",
        "tags: [3d, avatar, gaussian-splatting, synthetic]",
        "---",
        "",
        f"# {name}",
        "",
        f"{len(rows)} animatable 4D head avatars, made from single portraits by FC4D-Ray "
        f"{__version__}.",
        "",
        files,
        "",
        "## Licences of the portraits",
        "",
        "| licence | avatars |",
        "| --- | --- |",
        *(f"| {licence.replace('|', '/')} | {count} |" for licence, count in stated.items()),
        "",
    ]
    if "not stated" in stated:
        lines += [
            f"For {stated['not stated']} of them the input table stated no licence: clear the "
            "rights before you pass them on.",
            "",
        ]
    lines += ["## Figures", "", "| figure | mean | n |", "| --- | --- | --- |"]
    for figure in _FIGURES:
        values = [row[figure] for row in rows if row.get(figure) is not None]
        mean = f"{sum(values) / len(values):.3f}" if values else "n/a"
        lines.append(f"| {figure} | {mean} | {len(values)} |")
    lines += [
        "",
        "## How it was made",
        "",
        *(f"- configuration {digest}: {count} avatars" for digest, count in digests.most_common()),
        f"- chosen by: `{condition}`" if condition else "- every finished avatar of the run",
        "",
    ]
    return "\n".join(lines)


def _size_category(count: int) -> str:
    for limit, label in ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K")):
        if count < limit:
            return label
    return "100K<n<1M" if count < 1_000_000 else "n>1M"


def _yaml_text(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
