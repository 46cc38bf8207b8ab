"""Plots of an evaluation as SVG text: identity by angle, its distribution, what failed."""

from __future__ import annotations

import io
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from fc4d_ray.evaluation.scores import METRICS, Metric, SubjectFigures

IDENTITY = ("id_arcface", "id_dlib_distance")
"""In order of preference: the field's, then the one that needs no download."""


def identity_metric(figures: Sequence[SubjectFigures]) -> Metric | None:
    """The identity measure these figures have; None without any."""
    for key in IDENTITY:
        if any(row.get(key) is not None for one in figures for row in one.images.values()):
            return next(metric for metric in METRICS if metric.key == key)
    return None


def angle_plot(figures: Sequence[SubjectFigures], metric: Metric) -> str:
    """Mean and quartiles of a figure by azimuth, one line per method."""
    values: dict[str, dict[float, list[float]]] = defaultdict(lambda: defaultdict(list))
    for one in figures:
        for row in one.images.values():
            if row.get(metric.key) is not None:
                azimuth = (row["azimuth_deg"] + 180) % 360 - 180
                values[one.method][azimuth].append(row[metric.key])
    figure, axes = _axes()
    for method, by_angle in values.items():
        angles = sorted(by_angle)
        means = [np.mean(by_angle[a]) for a in angles]
        low, high = ([np.percentile(by_angle[a], q) for a in angles] for q in (25, 75))
        (line,) = axes.plot(angles, means, marker="o", markersize=4, label=method)
        axes.fill_between(angles, low, high, alpha=0.15, color=line.get_color(), linewidth=0)
    axes.set_xlabel("azimuth, degrees (positive: the subject's left)")
    axes.set_ylabel(metric.title)
    axes.legend(frameon=False)
    return _svg(figure)


def distribution_plot(figures: Sequence[SubjectFigures], metric: Metric) -> str:
    """Sorted per-subject means, one line per method."""
    figure, axes = _axes()
    by_method: dict[str, list[float]] = defaultdict(list)
    for one in figures:
        found = [row[metric.key] for row in one.images.values() if row.get(metric.key) is not None]
        if found:
            by_method[one.method].append(float(np.mean(found)))
    for method, means in by_method.items():
        share = (np.arange(len(means)) + 0.5) / len(means)
        axes.plot(
            sorted(means), share, marker="o", markersize=4, label=f"{method} (n={len(means)})"
        )
    axes.set_xlabel(f"{metric.title}, mean of a subject's pictures")
    axes.set_ylabel("share of subjects")
    axes.set_ylim(0, 1)
    axes.legend(frameon=False)
    return _svg(figure)


def failure_plot(reasons: Mapping[str, int]) -> str:
    """Bars of how often each error came."""
    figure, axes = _axes(height=0.6 + 0.35 * max(len(reasons), 1))
    names = [name for name, _ in Counter(reasons).most_common()][::-1]
    axes.barh(names, [reasons[name] for name in names], color="#b5523b")
    axes.set_xlabel("subjects")
    return _svg(figure)


def _axes(height: float = 3.2) -> tuple[Any, Any]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, height), layout="constrained")
    axes = figure.subplots()
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25)
    return figure, axes


def _svg(figure: Any) -> str:
    import matplotlib

    buffer = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": "fc4d", "svg.fonttype": "none"}):
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    text = buffer.getvalue()
    return text[text.index("<svg") :]
