"""The tables in the paper's layout, as rows of text: Markdown and the page show the same ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fc4d_ray.evaluation.metrics.bootstrap import Interval
from fc4d_ray.evaluation.published import PUBLISHED_ROWS
from fc4d_ray.evaluation.scores import METRICS, Cell, Metric, ScoreTable

_PLACES = {"fid": 2, "psnr": 2, "neighbour_psnr": 2, "akd_px": 2}


@dataclass(frozen=True)
class TextTable:
    """A table ready to be shown."""

    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...] = ()

    def to_markdown(self) -> str:
        """GitHub's table syntax, notes below."""
        lines = [
            f"### {self.title}",
            "",
            f"| {' | '.join(self.header)} |",
            f"|{' --- |' * len(self.header)}",
            *(f"| {' | '.join(cell.replace('|', '/') for cell in row)} |" for row in self.rows),
        ]
        if self.notes:
            lines += ["", *(f"- {note}" for note in self.notes)]
        return "\n".join(lines) + "\n"


def paper_table(scores: ScoreTable, published: str | None) -> TextTable:
    """CLIP-I, ID and FID as the paper prints them, its own rows above ours and marked so."""
    shown = [metric for metric in METRICS if metric.published is not None]
    header = ("method", *(_headed(metric) for metric in shown))
    rows: list[tuple[str, ...]] = [
        (
            f"{row.method} (published)",
            *(_formatted(metric, getattr(row, str(metric.published))) for metric in shown),
        )
        for row in PUBLISHED_ROWS.get(published or "", ())
    ]
    rows += [
        (method, *(_with_n(metric, scores.cells[method, metric.key]) for metric in shown))
        for method in scores.methods
    ]
    notes = [*_reasons(scores, shown)]
    if published in PUBLISHED_ROWS:
        notes.append(
            f"published: {published} of arXiv 2504.15179, on 100 FFHQ portraits, with angles and "
            "checkpoints it does not name; not comparable digit by digit"
        )
    title = "In the paper's layout" + (f" ({published})" if published else "")
    return TextTable(title, header, tuple(rows), tuple(notes))


def full_table(scores: ScoreTable) -> TextTable:
    """Every metric that has a value, with its interval over subjects and its N."""
    shown = [m for m in METRICS if _has_value(scores, m)]
    empty = [m for m in METRICS if m not in shown]
    rows = tuple(
        (
            _headed(metric),
            *(
                _with_interval(metric, scores.cells[method, metric.key])
                for method in scores.methods
            ),
        )
        for metric in shown
    )
    notes = [
        "means over subjects of means over their pictures; in brackets 95 % intervals by "
        "bootstrap over subjects; n = pictures (or subjects) used of those there were",
        *_reasons(scores, empty),
    ]
    for metric in shown:
        found = [scores.cells[method, metric.key].note for method in scores.methods]
        notes += [f"{metric.title}: {note}" for note in dict.fromkeys(filter(None, found))]
    return TextTable("All figures", ("metric", *scores.methods), rows, tuple(notes))


def difference_table(scores: ScoreTable) -> TextTable | None:
    """The first method minus each other one, paired over subjects; None for a single method."""
    first, *others = scores.methods
    if not others:
        return None
    rows = []
    for metric in METRICS:
        cells = [scores.differences.get((other, metric.key)) for other in others]
        if any(cell is not None for cell in cells):
            rows.append((_headed(metric), *(_signed(metric, cell) for cell in cells)))
    header = ("metric", *(f"{first} − {other}" for other in others))
    return TextTable("Differences", header, tuple(rows), ("95 % intervals, paired over subjects",))


def _has_value(scores: ScoreTable, metric: Metric) -> bool:
    return any(scores.cells[method, metric.key].value is not None for method in scores.methods)


def _reasons(scores: ScoreTable, metrics: Sequence[Metric]) -> list[str]:
    """Why columns are empty, metrics of one reason together."""
    by_reason: dict[str, list[str]] = {}
    for metric in metrics:
        for method in scores.methods:
            cell = scores.cells[method, metric.key]
            if cell.value is None:
                titles = by_reason.setdefault(cell.note, [])
                if metric.title not in titles:
                    titles.append(metric.title)
    return [f"not available: {', '.join(titles)}: {note}" for note, titles in by_reason.items()]


def _headed(metric: Metric) -> str:
    return f"{metric.title} {'↑' if metric.higher_is_better else '↓'}"


def _formatted(metric: Metric, value: float) -> str:
    return f"{value:.{_PLACES.get(metric.key, 4)}f}"


def _with_n(metric: Metric, cell: Cell) -> str:
    if cell.value is None:
        return "n/a"
    return f"{_formatted(metric, cell.value)} (n={cell.images})"


def _with_interval(metric: Metric, cell: Cell) -> str:
    if cell.value is None:
        return "n/a"
    n = f"n={cell.images}" + ("" if cell.images == cell.of else f" of {cell.of}")
    found = cell.interval
    if found is None or not np.isfinite(found.low):
        return f"{_formatted(metric, cell.value)}; {n}"
    low, high = _formatted(metric, found.low), _formatted(metric, found.high)
    return f"{_formatted(metric, cell.value)} [{low}, {high}]; {n}"


def _signed(metric: Metric, found: Interval | None) -> str:
    if found is None:
        return "n/a"
    places = _PLACES.get(metric.key, 4)
    if not np.isfinite(found.low):
        return f"{found.mean:+.{places}f}; n=1"
    return (
        f"{found.mean:+.{places}f} [{found.low:+.{places}f}, {found.high:+.{places}f}]; n={found.n}"
    )
