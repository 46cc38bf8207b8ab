"""An evaluation's figures beside the manifest's rows, so that both can decide."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa

from fc4d_ray.errors import ConfigError
from fc4d_ray.evaluation.image_sets.runs import subject_names
from fc4d_ray.store.parquet import table_from_bytes

_KEYS = ("method", "subject", "images")


def with_scores(manifest: pa.Table, path: Path) -> pa.Table:
    """The manifest with the columns of ``per_subject.parquet`` appended, null where unmeasured.

    Raises ``ConfigError`` where the file is none of an evaluation's, or of several methods: whose
    figures are meant could not be told.
    """
    try:
        scores = table_from_bytes(path.read_bytes())
    except (OSError, pa.ArrowInvalid) as error:
        raise ConfigError(f"--scores {path} cannot be read: {error}") from error
    if not set(_KEYS) <= set(scores.column_names):
        raise ConfigError(f"--scores {path} is no per_subject.parquet of `fc4d eval`")
    methods = sorted(set(scores["method"].to_pylist()))
    if len(methods) != 1:
        raise ConfigError(
            f"--scores {path} holds {len(methods)} methods ({', '.join(methods)}); evaluate the "
            "run alone"
        )
    row_of = {subject: i for i, subject in enumerate(scores["subject"].to_pylist())}
    names = subject_names(manifest)
    indices = pa.array([row_of.get(name) for name in names], pa.int64())
    for column in scores.column_names:
        if column not in _KEYS and column not in manifest.column_names:
            values = scores[column].combine_chunks().take(indices)
            manifest = manifest.append_column(column, values)
    return manifest
