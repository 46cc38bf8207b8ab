"""The files of a finished evaluation: tables, Parquet, figures and the page, below its protocol."""

from __future__ import annotations

import importlib.metadata
import platform
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fc4d_ray import __version__
from fc4d_ray.errors import ConfigError
from fc4d_ray.evaluation.image_sets.preparation import prepare_image
from fc4d_ray.evaluation.image_sets.runs import REFERENCES, encode_png
from fc4d_ray.evaluation.protocols import Protocol
from fc4d_ray.evaluation.report.frames import per_image_table, per_subject_table
from fc4d_ray.evaluation.report.page import Plot, Sheet, render_page
from fc4d_ray.evaluation.report.plots import (
    angle_plot,
    distribution_plot,
    failure_plot,
    identity_metric,
)
from fc4d_ray.evaluation.report.sheets import rank_subjects, subject_sheet
from fc4d_ray.evaluation.report.tables import (
    TextTable,
    difference_table,
    full_table,
    paper_table,
)
from fc4d_ray.evaluation.scores import METRICS, Metric
from fc4d_ray.evaluation.timing import read_timing, timing_table
from fc4d_ray.pipeline.evaluation import Evaluation, Source, method_folder
from fc4d_ray.store.digests import readable_json
from fc4d_ray.store.filesystem import Storage
from fc4d_ray.store.parquet import table_to_bytes

_PACKAGES = ("clean-fid", "dlib-bin", "insightface", "lpips", "numpy", "scipy", "torch")


def write_evaluation(evaluation: Evaluation, out: Storage, stamp: str = "") -> str:
    """Write all files below ``out/<protocol>/`` and return the page's address.

    ``stamp`` stands on page and tables where the figures are of no real models.
    """
    folder = evaluation.protocol.name
    tables = [
        paper_table(evaluation.table, evaluation.protocol.published),
        full_table(evaluation.table),
    ]
    differences = difference_table(evaluation.table)
    tables += [differences] if differences is not None else []
    out.replace(f"{folder}/per_image.parquet", table_to_bytes(per_image_table(evaluation.figures)))
    out.replace(
        f"{folder}/per_subject.parquet", table_to_bytes(per_subject_table(evaluation.figures))
    )
    out.replace(f"{folder}/metrics.json", readable_json(metrics_document(evaluation, stamp)))
    out.replace(f"{folder}/metrics.md", _markdown(evaluation, tables, stamp).encode())
    metric = identity_metric(evaluation.figures)
    page = render_page(
        title=evaluation.protocol.title,
        summary=_summary(evaluation),
        tables=tables,
        plots=_plots(evaluation, metric),
        sheets=[] if metric is None else _sheets(evaluation, metric, out),
        failures=[(f.method, f.subject, f.error_type, f.message) for f in evaluation.failures],
        stamp=stamp,
    )
    out.replace(f"{folder}/report.html", page.encode())
    return out.uri_of(f"{folder}/report.html")


def metrics_document(evaluation: Evaluation, stamp: str = "") -> dict[str, Any]:
    """Everything of the tables for machines, with what it was measured with."""
    table = evaluation.table
    return {
        "stamp": stamp,
        "protocol": evaluation.protocol.name,
        "camera_set": evaluation.protocol.camera_set,
        "models": dict(evaluation.figures[0].models),
        "unavailable": dict(evaluation.unavailable),
        "environment": {
            "fc4d-ray": __version__,
            "python": platform.python_version(),
            **{name: _version(name) for name in _PACKAGES},
        },
        "subjects": list(table.subjects),
        "missing_subjects": {method: list(names) for method, names in table.missing.items()},
        "failures": [vars(failure) for failure in evaluation.failures],
        "methods": {
            method: {metric.key: _cell(table.cells[method, metric.key]) for metric in METRICS}
            for method in table.methods
        },
    }


def _cell(cell: Any) -> dict[str, Any]:
    interval = None
    if cell.interval is not None and np.isfinite(cell.interval.low):
        interval = [cell.interval.low, cell.interval.high]
    return {
        "value": cell.value,
        "interval": interval,
        "subjects": cell.subjects,
        "images": cell.images,
        "of": cell.of,
        "note": cell.note,
    }


def _markdown(evaluation: Evaluation, tables: list[TextTable], stamp: str) -> str:
    lines = [f"# {evaluation.protocol.title}", ""]
    if stamp:
        lines += [f"**{stamp}**", ""]
    lines += [f"- {name}: {value}" for name, value in _summary(evaluation)]
    lines += ["", *(table.to_markdown() for table in tables)]
    if evaluation.failures:
        lines.append("### What could not be evaluated\n")
        lines += [
            f"- {f.method}/{f.subject}: {f.error_type}: {f.message}" for f in evaluation.failures
        ]
    return "\n".join(lines) + "\n"


def _summary(evaluation: Evaluation) -> list[tuple[str, str]]:
    protocol, table = evaluation.protocol, evaluation.table
    lines = [
        ("protocol", f"{protocol.name}, camera set {protocol.digest[:12]}"),
        ("views", ", ".join(f"{v.name} {v.azimuth_deg:+g}°" for v in protocol.views)),
        ("pictures", f"{protocol.size} × {protocol.size}, background {protocol.background}"),
        ("methods", ", ".join(table.methods)),
        ("subjects", str(len(table.subjects))),
    ]
    if protocol.clips:
        lines.append(
            ("clips", f"{', '.join(protocol.clips)}, {protocol.frames_per_clip} frames of each")
        )
    for method, names in table.missing.items():
        if names:
            lines.append((f"not in {method}", ", ".join(names)))
    models = evaluation.figures[0].models
    lines.append(("measured with", ", ".join(sorted(set(models.values()) - {"none"}))))
    return lines


def _plots(evaluation: Evaluation, metric: Metric | None) -> list[Plot]:
    plots = []
    if metric is not None:
        plots += [
            Plot(
                f"{metric.title} by azimuth: mean and quartiles",
                angle_plot(evaluation.figures, metric),
            ),
            Plot(f"{metric.title} by subject", distribution_plot(evaluation.figures, metric)),
        ]
    if evaluation.failures:
        reasons = Counter(failure.error_type for failure in evaluation.failures)
        plots.append(Plot("what could not be evaluated", failure_plot(reasons)))
    return plots


def _sheets(evaluation: Evaluation, metric: Metric, out: Storage) -> list[Sheet]:
    sheets = []
    for method in evaluation.table.methods:
        mine = [one for one in evaluation.figures if one.method == method]
        for ranked in rank_subjects(mine, metric):
            title = f"{method}, {ranked.place}: {ranked.subject}, {metric.title} {ranked.value:.3f}"
            reference = _reference(evaluation, out, ranked.subject)
            picture = subject_sheet(ranked, reference, evaluation.protocol, "")
            png = encode_png(picture)
            name = f"sheets/{method_folder(method)}-{ranked.place}.png"
            out.replace(f"{evaluation.protocol.name}/{name}", png)
            sheets.append(Sheet(title, png))
    return sheets


def _reference(evaluation: Evaluation, out: Storage, subject: str) -> NDArray[np.uint8] | None:
    protocol = evaluation.protocol
    for source in evaluation.sources:
        name = f"images/{method_folder(source.name)}/{REFERENCES}/{subject}.png"
        try:
            return prepare_image(out.read(name), protocol.size, protocol.background, name)
        except FileNotFoundError:
            continue
    return None


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def write_timing(protocol: Protocol, sources: Sequence[Source], out: Storage) -> str:
    """Table 6 from the runs' manifests, as ``metrics.md``, ``metrics.json`` and the page."""
    baselines = [source.name for source in sources if not source.is_run]
    if baselines or not sources:
        raise ConfigError(
            "protocol timing reads runs' own records: name outputs of fc4d run"
            + (f", not pictures ({', '.join(baselines)})" if baselines else "")
        )
    timings = [read_timing(source.name, source.address) for source in sources]
    table = timing_table(timings)
    summary = [("protocol", protocol.name)]
    text = f"# {protocol.title}\n\n{table.to_markdown()}"
    document = {"protocol": protocol.name, "runs": [vars(timing) for timing in timings]}
    out.replace(f"{protocol.name}/metrics.md", text.encode())
    out.replace(f"{protocol.name}/metrics.json", readable_json(document))
    page = render_page(protocol.title, summary, [table], [], [], [])
    out.replace(f"{protocol.name}/report.html", page.encode())
    return out.uri_of(f"{protocol.name}/report.html")
