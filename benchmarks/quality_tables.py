"""Markdown tables of what ``embedded_quality.py`` measured."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from statistics import fmean
from typing import Any

from fc4d_ray.evaluation.criteria import CRITERIA, missed, verdicts
from fc4d_ray.store.manifest import STAGES

_MISSED = " ✗"
_NOTHING = "–"


def quality_markdown(results: Mapping[str, Any]) -> str:
    """Every table of a result, with a line on how each is to be read."""
    parts = []
    portraits = results["portraits"]
    if portraits:
        parts += ["## Portraits", _legend(), identity_table(portraits)]
        parts += [motion_table(portraits), "### Cost", cost_table(portraits)]
    people = results.get("synthetic", [])
    if people:
        parts += ["## Synthetic people", "Figures against the portrait, as above."]
        parts += [identity_table(people), motion_table(people)]
        parts += ["### The people themselves, measured the same way", _ceiling_legend()]
        parts += [ceiling_table(people)]
        parts += ["### Against ground truth", _truth_legend(), truth_table(people)]
        parts += ["### Cost", cost_table(people)]
    if results["failed"]:
        parts += ["## Failed"]
        parts += ["\n".join(f"- {f['name']}: {f['reason']}" for f in results["failed"])]
    return "\n\n".join(parts) + "\n"


def identity_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Likeness and looks, one line per portrait."""
    header = [
        "portrait", "seen from", "0°", "±30°", "±45°", "±60°", "own angle", "faces behind",
        "silhouette IoU", "matte confidence", "whole, worst of 24", "at", "verdict",
    ]  # fmt: skip
    lines = []
    for row in rows:
        summary = row["summary"]
        cell = _cells(summary)
        misses = missed(summary)
        lines.append(
            [
                row["name"],
                f"{summary['azimuth_deg']:+.0f}°",
                *(cell(key, "{:.3f}") for key in ("id_0", "id_30", "id_45", "id_60", "id_own")),
                cell("faces_behind", "{:d}"),
                cell("silhouette_iou", "{:.3f}"),
                _number(row["matte_confidence"], "{:.2f}"),
                cell("whole", "{:.2%}"),
                f"{summary['whole_azimuth_deg']:+.0f}°",
                "pass" if not misses else "missed: " + ", ".join(misses),
            ]
        )
    return markdown_table(header, lines)


def motion_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """What the face does, view by view."""
    header = [
        "portrait", "lips part 0°, +30°, −30°", "eyes shut 0°, +30°, −30°",
        "identity smiling 0°, +30°, −30°", "focal ×0.5, ×1, ×2", "spread",
    ]  # fmt: skip
    lines = []
    for row in rows:
        acted, focal = row["figures"]["expressions"], row["figures"]["focal_length"]
        verdict = verdicts(row["summary"])
        blinks = [fall and fall["mean"] for fall in acted["blink_fall"].values()]
        lines.append(
            [
                row["name"],
                _list(acted["lip_growth"].values(), "{:.2f}", verdict["lips"]),
                _list(blinks, "{:.0%}", verdict["blink"]),
                _list(acted["smile_distance"].values(), "{:.2f}", verdict["smile"]),
                _list(focal["distances"].values(), "{:.3f}", None),
                _cells(row["summary"])("focal", "{:.3f}"),
            ]
        )
    return markdown_table(header, lines)


def cost_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Seconds per stage as the records have them."""
    header = ["portrait", *STAGES, "seconds together", "peak memory, GiB"]
    lines = [
        [
            row["name"],
            *(_number(row["costs"]["seconds"].get(stage), "{:.0f}") for stage in STAGES),
            f"{row['costs']['seconds_total']:.0f}",
            _cells(row["summary"])("peak_memory_gib", "{:.2f}"),
        ]
        for row in rows
    ]
    return markdown_table(header, lines)


def ceiling_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """What renders of the true people score against their own portraits."""
    header = [
        "person", "0°", "±30°", "±45°", "0° from +40°, −40°",
        "lips part 0°, +30°, −30°", "eyes shut 0°, +30°, −30°", "identity smiling 0°, +30°, −30°",
    ]  # fmt: skip
    lines = []
    for row in rows:
        measured = row["truth"]["measured"]
        identity, acted = measured["identity"], measured["expressions"]
        blinks = [fall and fall["mean"] for fall in acted["blink_fall"].values()]
        lines.append(
            [
                row["name"],
                *(_number(identity[f"id_distance_{angle}"], "{:.3f}") for angle in (0, 30, 45)),
                _list(measured["turned"].values(), "{:.3f}", None),
                _list(acted["lip_growth"].values(), "{:.2f}", None),
                _list(blinks, "{:.0%}", None),
                _list(acted["smile_distance"].values(), "{:.2f}", None),
            ]
        )
    return markdown_table(header, lines)


def truth_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """PSNR / SSIM of the head per held-out view, and surface errors, with the mean of all."""
    azimuths = list(rows[0]["truth"]["views"])
    header = ["person", *(f"{azimuth}°" for azimuth in azimuths), "surface", "mean head's"]
    lines = [
        [
            row["name"],
            *(
                f"{view['head']['psnr']:.1f} / {view['head']['ssim']:.3f}"
                for view in row["truth"]["views"].values()
            ),
            f"{row['truth']['surface_error_mm']:.2f} mm",
            f"{row['truth']['mean_head_error_mm']:.2f} mm",
        ]
        for row in rows
    ]
    means, shared = (
        [
            " / ".join(
                form.format(fmean(row["truth"]["views"][azimuth][part][key] for row in rows))
                for key, form in (("psnr", "{:.1f}"), ("ssim", "{:.3f}"))
            )
            for azimuth in azimuths
        ]
        for part in ("head", "shared")
    )
    errors = [
        f"{fmean(row['truth'][key] for row in rows):.2f} mm"
        for key in ("surface_error_mm", "mean_head_error_mm")
    ]
    last = [["**mean**", *means, *errors], ["**mean, where both show it**", *shared, "", ""]]
    return markdown_table(header, [*lines, *last])


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Plain Markdown, one line per row."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _legend() -> str:
    rules = "; ".join(f"{c.title} {c.rule}" for c in CRITERIA)
    return (
        f"Wanted: {rules}. {_MISSED.strip()} marks what misses its bound, {_NOTHING} what could "
        "not be measured (no face found). The bounds of 0.3 at 0°, of ±30° and of ±45° are for "
        "portraits within 20° of frontal, those of the own angle and of 0.5 at 0° for the others."
    )


def _ceiling_legend() -> str:
    return (
        "Where the detector finds no face on the true person, or does not see the true lips part "
        "and the true eyes shut, the line above says nothing of the avatar. *0° from ±40°* is the "
        "true person's distance from the front to a portrait of the same person from there."
    )


def _truth_legend() -> str:
    return (
        "PSNR in dB / SSIM of the head above the chin on white, in views that were never seen, and "
        "in the last line where both the avatar and the truth show something; mean distance of the "
        "fitted from the true skin, beside that of the model's mean head."
    )


def _cells(summary: Mapping[str, Any]) -> Callable[[str, str], str]:
    verdict = verdicts(summary)

    def cell(figure: str, form: str) -> str:
        mark = _MISSED if verdict.get(figure) is False else ""
        return _number(summary[figure], form) + mark

    return cell


def _number(value: float | None, form: str) -> str:
    return _NOTHING if value is None else form.format(value)


def _list(values: Any, form: str, verdict: bool | None) -> str:
    return ", ".join(_number(value, form) for value in values) + (
        _MISSED if verdict is False else ""
    )
