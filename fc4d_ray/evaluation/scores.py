"""From the subjects' figures to a table: one cell per method and metric, each with its N.

Methods are compared on the pictures for which all of them have a value: a face that one method's
render does not show is no ground to praise another. What was left out is counted in the cell.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from fc4d_ray.evaluation.image_sets.contract import ImageKey
from fc4d_ray.evaluation.metrics.bootstrap import Interval, bootstrap_mean, paired_difference
from fc4d_ray.evaluation.metrics.frechet import SMALL_SAMPLE, frechet_distance, kernel_distance

Level = Literal["image", "subject", "set"]


@dataclass(frozen=True)
class Metric:
    """A column of the tables."""

    key: str
    title: str
    higher_is_better: bool
    level: Level
    """What it is a figure of: a picture, a subject's pictures together, or all pictures."""
    needs: str | None = None
    """Extractor or loss without which the column is empty."""
    published: str | None = None
    """Field of ``PublishedRow`` that stands in this column."""
    absent: str = "nothing to measure it on"
    """Reason of an empty column whose needs are met."""


METRICS: tuple[Metric, ...] = (
    Metric("clip_i", "CLIP-I", True, "image", "clip", "clip_i"),
    Metric("clip_i_pair", "CLIP-I, pairs", True, "subject", "clip"),
    Metric("id_arcface", "ID", True, "image", "arcface", "id", "no face was found"),
    Metric("id_dlib_distance", "dlib distance", False, "image", "dlib", None, "no face was found"),
    Metric("fid", "FID", False, "set", "inception", "fid"),
    Metric("kid", "KID", False, "set", "inception"),
    Metric("psnr", "PSNR, dB", True, "image", None, None, "no true pictures are given"),
    Metric("ssim", "SSIM", True, "image", None, None, "no true pictures are given"),
    Metric("lpips", "LPIPS", False, "image", "lpips", None, "no true pictures are given"),
    Metric(
        "neighbour_psnr", "neighbour views, dB", True, "subject", None, None, "no depth is given"
    ),
    Metric(
        "neighbour_lpips", "neighbour views, LPIPS", False, "subject", "lpips", None,
        "no depth is given",
    ),
    Metric("akd_px", "AKD, px", False, "image", None, None, "no driver's landmarks are given"),
    Metric("face_behind", "faces behind", False, "image", None, None, "no view from behind"),
)  # fmt: skip


@dataclass(frozen=True)
class SubjectFigures:
    """What ``measure_subject`` wrote of one subject of one method."""

    method: str
    subject: str
    figures: Mapping[str, Any]
    images: Mapping[ImageKey, Mapping[str, Any]]
    models: Mapping[str, str]
    inception: NDArray[np.float32] | None = None
    """Features of the images in order, the reference's last where there is one."""

    @staticmethod
    def from_document(
        document: Mapping[str, Any], inception: NDArray[np.float32] | None = None
    ) -> SubjectFigures:
        """From the written JSON."""
        subject = document["subject"]
        images = {ImageKey(subject, row["view"], row["frame"]): row for row in document["images"]}
        return SubjectFigures(
            document["method"], subject, document["figures"], images, document["models"], inception
        )


@dataclass(frozen=True)
class Cell:
    """A figure with all that is needed to judge it."""

    value: float | None
    interval: Interval | None = None
    """Over subjects; FID and KID have none."""
    subjects: int = 0
    images: int = 0
    """Pictures (or subjects) that the value is taken over."""
    of: int = 0
    """Pictures (or subjects) there were."""
    note: str = ""
    """Why there is no value, or what to beware of."""


@dataclass(frozen=True)
class ScoreTable:
    """Every method's cells, and the differences to the first method."""

    methods: tuple[str, ...]
    cells: Mapping[tuple[str, str], Cell]
    """By (method, metric key)."""
    differences: Mapping[tuple[str, str], Interval]
    """First method minus the other, paired over subjects, by (other method, metric key)."""
    subjects: tuple[str, ...]
    """Common to all methods."""
    missing: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Subjects that other methods have, by method."""


def score(figures: Sequence[SubjectFigures], unavailable: Mapping[str, str]) -> ScoreTable:
    """The table of all methods; ``unavailable`` gives the reason by extractor.

    Raises ``ValueError`` for no figures at all, and where methods were measured with different
    models.
    """
    if not figures:
        raise ValueError("there is nothing to score")
    by_method: dict[str, dict[str, SubjectFigures]] = {}
    for one in figures:
        by_method.setdefault(one.method, {})[one.subject] = one
    _check_models(figures)
    common = set.intersection(*(set(subjects) for subjects in by_method.values()))
    subjects = tuple(s for s in next(iter(by_method.values())) if s in common)
    everyone = dict.fromkeys(one.subject for one in figures)
    cells: dict[tuple[str, str], Cell] = {}
    differences: dict[tuple[str, str], Interval] = {}
    for metric in METRICS:
        if metric.needs in unavailable:
            cells |= {
                (m, metric.key): Cell(None, note=unavailable[metric.needs]) for m in by_method
            }
            continue
        if metric.level == "set":
            cells |= _set_cells(metric, by_method, subjects)
            continue
        per_subject = _per_subject(metric, by_method, subjects)
        for method, (values, used, total) in per_subject.items():
            cells[method, metric.key] = _mean_cell(metric, values, used, total)
        first, *others = per_subject
        for other in others:
            found = paired_difference(per_subject[first][0], per_subject[other][0])
            if found is not None:
                differences[other, metric.key] = found
    return ScoreTable(
        tuple(by_method),
        cells,
        differences,
        subjects,
        {m: tuple(s for s in everyone if s not in known) for m, known in by_method.items()},
    )


def _check_models(figures: Sequence[SubjectFigures]) -> None:
    models = {tuple(sorted(one.models.items())) for one in figures}
    if len(models) > 1:
        raise ValueError(
            "the subjects were measured with different models; measure them again: "
            + "; ".join(str(dict(m)) for m in sorted(models))
        )


def _per_subject(
    metric: Metric,
    by_method: Mapping[str, Mapping[str, SubjectFigures]],
    subjects: Sequence[str],
) -> dict[str, tuple[NDArray[np.float64], int, int]]:
    """By method: the value of each subject (NaN: none), figures used, figures there were."""
    if metric.level == "subject":
        raw = {
            method: np.array([_value(known[s].figures, metric.key) for s in subjects], float)
            for method, known in by_method.items()
        }
        valid = np.logical_and.reduce([~np.isnan(v) for v in raw.values()])
        return {
            m: (np.where(valid, v, np.nan), int(valid.sum()), len(subjects)) for m, v in raw.items()
        }
    found: dict[str, tuple[NDArray[np.float64], int, int]] = {}
    shared = {
        s: [
            key
            for key in next(iter(by_method.values()))[s].images
            if all(
                not np.isnan(_value(known[s].images.get(key, {}), metric.key))
                for known in by_method.values()
            )
        ]
        for s in subjects
    }
    for method, known in by_method.items():
        means = np.full(len(subjects), np.nan)
        for i, s in enumerate(subjects):
            values = [_value(known[s].images[key], metric.key) for key in shared[s]]
            if values:
                means[i] = np.mean(values)
        total = sum(
            metric.key in row or metric.needs is not None
            for s in subjects
            for row in known[s].images.values()
        )
        found[method] = (means, sum(map(len, shared.values())), total)
    return found


def _mean_cell(metric: Metric, values: NDArray[np.float64], used: int, total: int) -> Cell:
    interval = bootstrap_mean(values)
    if interval is None:
        return Cell(None, images=0, of=total, note=metric.absent)
    return Cell(interval.mean, interval, interval.n, used, total)


def _set_cells(
    metric: Metric,
    by_method: Mapping[str, Mapping[str, SubjectFigures]],
    subjects: Sequence[str],
) -> dict[tuple[str, str], Cell]:
    """FID or KID of each method's pictures against the references of the same subjects.

    Only pictures that every method has take part, so that all have the same N.
    """
    measure = frechet_distance if metric.key == "fid" else kernel_distance
    usable = [
        s
        for s in subjects
        if all(
            known[s].inception is not None and known[s].figures.get("has_reference")
            for known in by_method.values()
        )
    ]
    cells = {}
    for method, known in by_method.items():
        features, references = [], []
        for s in usable:
            one = known[s]
            assert one.inception is not None
            shared = [
                i
                for i, key in enumerate(one.images)
                if all(key in other[s].images for other in by_method.values())
            ]
            features.append(one.inception[shared])
            references.append(one.inception[-1:])
        n = sum(map(len, features))
        if n < 2 or len(references) < 2:
            note = f"needs two subjects with references or more, found {len(references)}"
            cells[method, metric.key] = Cell(None, note=note)
            continue
        value = measure(np.concatenate(features), np.concatenate(references))
        note = f"{n} renders against {len(references)} portraits"
        if len(references) < SMALL_SAMPLE:
            note += f"; below {SMALL_SAMPLE} portraits it is mostly bias"
        cells[method, metric.key] = Cell(float(value), None, len(references), n, n, note)
    return cells


def _value(row: Mapping[str, Any], key: str) -> float:
    value = row.get(key)
    return np.nan if value is None else float(value)
