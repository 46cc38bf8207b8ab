"""Columns of the manifest, plain Arrow types with a version."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pyarrow as pa

MANIFEST_SCHEMA_VERSION = 1
STAGES = ("ingest", "shape", "image", "video", "track", "train", "publish")
QUALITY_COLUMNS = (
    "id_distance_0",
    "id_distance_30",
    "id_distance_45",
    "silhouette_iou",
    "tracking_error",
)


def manifest_schema(stages: Sequence[str] = STAGES) -> pa.Schema:
    """Columns that every manifest has; the input tables' own follow them."""
    import pyarrow as pa

    text, number = pa.string(), pa.float64()
    fields = [
        pa.field("avatar_id", text),
        pa.field("source_uri", text, nullable=False),
        pa.field("status", text, nullable=False),
        pa.field("failed_stage", text),
        pa.field("error_type", text),
        pa.field("error_message", text),
        pa.field("trace_uri", text),
        pa.field("avatar_uri", text),
        pa.field("duplicate_of", text),
        pa.field("config_digest", text),
        pa.field("plan_digest", text),
        pa.field("n_splats", pa.int64()),
        *(pa.field(name, number) for name in QUALITY_COLUMNS),
        pa.field("seconds_total", number),
        *(pa.field(f"seconds_{stage}", number) for stage in stages),
        pa.field("warnings", pa.list_(text)),
        pa.field("created_at", pa.timestamp("ms", tz="UTC")),
    ]
    return pa.schema(fields, {b"fc4d.manifest_schema": str(MANIFEST_SCHEMA_VERSION).encode()})
