"""Per-image and per-subject values as Arrow tables of a fixed schema; null where unmeasured."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from fc4d_ray.evaluation.scores import METRICS, SubjectFigures

if TYPE_CHECKING:
    import pyarrow as pa


def per_image_table(figures: Sequence[SubjectFigures]) -> pa.Table:
    """One row per picture: which it is, where it lies, and every figure of a picture."""
    import pyarrow as pa

    keys = [metric.key for metric in METRICS if metric.level == "image"]
    schema = pa.schema(
        [
            ("method", pa.string()),
            ("subject", pa.string()),
            ("view", pa.string()),
            ("frame", pa.int32()),
            ("azimuth_deg", pa.float64()),
            ("elevation_deg", pa.float64()),
            ("uri", pa.string()),
            ("image", pa.string()),
            *((key, pa.float64()) for key in keys),
        ]
    )
    rows = [
        {
            "method": one.method,
            "subject": one.subject,
            "view": key.view,
            "frame": None if key.frame < 0 else key.frame,
            **{name: row.get(name) for name in ("azimuth_deg", "elevation_deg", "uri", "image")},
            **{name: _plain(row.get(name)) for name in keys},
        }
        for one in figures
        for key, row in one.images.items()
    ]
    return pa.Table.from_pylist(rows, schema=schema)


def per_subject_table(figures: Sequence[SubjectFigures]) -> pa.Table:
    """One row per subject and method: means over its pictures, and how many had a value."""
    import pyarrow as pa

    fields: list[tuple[str, pa.DataType]] = [
        ("method", pa.string()),
        ("subject", pa.string()),
        ("images", pa.int32()),
    ]
    for metric in METRICS:
        if metric.level == "image":
            fields += [(metric.key, pa.float64()), (f"{metric.key}_valid", pa.int32())]
        elif metric.level == "subject":
            fields.append((metric.key, pa.float64()))
    rows = []
    for one in figures:
        row: dict[str, object] = {
            "method": one.method, "subject": one.subject, "images": len(one.images),
        }  # fmt: skip
        for metric in METRICS:
            if metric.level == "subject":
                row[metric.key] = _plain(one.figures.get(metric.key))
            elif metric.level == "image":
                values = [_plain(image.get(metric.key)) for image in one.images.values()]
                valid = [value for value in values if value is not None]
                row[metric.key] = float(np.mean(valid)) if valid else None
                row[f"{metric.key}_valid"] = len(valid)
        rows.append(row)
    return pa.Table.from_pylist(rows, schema=pa.schema(fields))


def _plain(value: object) -> float | None:
    return None if value is None else float(value)  # type: ignore[arg-type]
