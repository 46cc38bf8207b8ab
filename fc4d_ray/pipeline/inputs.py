"""INPUTS of ``fc4d run`` to one table of rows: files, folders, globs, prefixes, tables."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fc4d_ray.errors import ConfigError, InvalidAnnotation, UnreadableSource
from fc4d_ray.pipeline.sources import identify, read_source
from fc4d_ray.store.parquet import table_from_bytes

if TYPE_CHECKING:
    import pyarrow as pa

IMAGE_SUFFIXES = frozenset(
    f".{name}"
    for name in (
        *("jpg", "jpeg", "jpe", "jfif", "png", "webp", "bmp", "dib", "tif", "tiff", "gif"),
        *("avif", "jp2", "ppm", "pgm", "pbm", "pnm", "tga"),
    )
)
TABLE_SUFFIXES = frozenset((".csv", ".parquet", ".pq"))
OWN_PREFIX = "fc4d:"
"""Columns of the stored table of rows that are ours and not the user's."""

_GLOB_CHARACTERS = frozenset("*?[")


@dataclass(frozen=True)
class InputRow:
    """One portrait to be made an avatar of."""

    index: int
    source_uri: str
    avatar_id: str | None
    """None where the source could not be read."""
    face_box: Any = None
    landmarks: Any = None
    error_type: str | None = None
    error_message: str | None = None
    columns: dict[str, Any] | None = None
    """The input table's own columns."""


@dataclass(frozen=True)
class Inputs:
    """All rows of a run."""

    table: pa.Table
    """The user's columns, and ours (``fc4d:source_uri``, ``fc4d:avatar_id``, …)."""

    def __len__(self) -> int:
        return self.table.num_rows

    def rows(self) -> Iterator[InputRow]:
        """The rows, in order."""
        index = 0
        for batch in self.table.to_batches(max_chunksize=4096):
            for values in batch.to_pylist():
                own = {name: values.pop(OWN_PREFIX + name) for name in _OWN_FIELDS}
                own["face_box"] = json.loads(own["face_box"]) if own["face_box"] else None
                own["landmarks"] = json.loads(own["landmarks"]) if own["landmarks"] else None
                yield InputRow(index=index, columns=values, **own)
                index += 1

    def first_rows(self) -> list[InputRow]:
        """Readable rows, each avatar once: the first row of every id."""
        seen: set[str] = set()
        first = []
        for row in self.rows():
            if row.avatar_id is not None and row.avatar_id not in seen:
                seen.add(row.avatar_id)
                first.append(row)
        return first


_OWN_FIELDS = (
    "source_uri",
    "avatar_id",
    "face_box",
    "landmarks",
    "error_type",
    "error_message",
)


def user_columns(table: pa.Table) -> list[str]:
    """Names of the columns the user's own tables brought."""
    return [name for name in table.column_names if not name.startswith(OWN_PREFIX)]


def collect_inputs(arguments: Sequence[str], *, parallel: int = 8) -> Inputs:
    """Expand, read and identify every portrait.

    Raises ``ConfigError`` for arguments that cannot be portraits at all (a table without ``uri``,
    a folder without images). A portrait that cannot be read is a row with an error.
    """
    import pyarrow as pa

    tables = [_expand(argument) for argument in arguments]
    if not tables or not any(table.num_rows for table in tables):
        raise ConfigError("no portraits in " + (", ".join(arguments) or "the inputs"))
    try:
        table = pa.concat_tables(tables, promote_options="permissive")
    except pa.ArrowException as error:
        raise ConfigError(f"the input tables' columns do not fit together: {error}") from error
    return Inputs(_identified(table, parallel))


def identify_again(table: pa.Table, *, parallel: int = 8) -> Inputs:
    """Rows of an earlier run, with their sources read anew."""
    names = [OWN_PREFIX + "source_uri", *user_columns(table)]
    return Inputs(_identified(table.select(names), parallel))


def _expand(argument: str) -> pa.Table:
    """Table with ``fc4d:source_uri`` and, for tables, the user's columns."""
    suffix = Path(argument).suffix.lower()
    if suffix in TABLE_SUFFIXES and not _GLOB_CHARACTERS & set(argument):
        return _read_table(argument, suffix)
    if "://" in argument and not argument.startswith("file://"):
        return _plain_table(_expand_remote(argument))
    return _plain_table(_expand_local(argument.removeprefix("file://")))


def _plain_table(uris: list[str]) -> pa.Table:
    import pyarrow as pa

    return pa.table({OWN_PREFIX + "source_uri": pa.array(uris, pa.string())})


def _expand_local(argument: str) -> list[str]:
    path = Path(argument).expanduser().absolute()
    if path.is_dir():
        found = [p for p in sorted(path.rglob("*")) if _is_visible_image(p, path)]
        if not found:
            raise ConfigError(f"the folder {argument} holds no images")
        return [str(p) for p in found]
    if not path.exists() and _GLOB_CHARACTERS & set(argument):
        import glob

        found = [Path(p) for p in sorted(glob.glob(str(path), recursive=True))]
        found = [p for p in found if p.is_file()]
        if not found:
            raise ConfigError(f"nothing matches {argument}")
        return [str(p) for p in found]
    if not path.exists() and not path.suffix:
        raise ConfigError(f"there is no file or folder {argument}")
    return [str(path)]


def _is_visible_image(path: Path, folder: Path) -> bool:
    hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
    return not hidden and path.suffix.lower() in IMAGE_SUFFIXES and path.is_file()


def _expand_remote(argument: str) -> list[str]:
    from fsspec.core import url_to_fs

    try:
        filesystem, path = url_to_fs(argument)
        if _GLOB_CHARACTERS & set(path):
            found = filesystem.glob(path)
        elif Path(path).suffix.lower() in IMAGE_SUFFIXES:
            return [argument]
        else:
            found = filesystem.find(path)
    except Exception as error:
        # Storage libraries share no base class; at this point any failure means the same.
        raise ConfigError(f"cannot list {argument}: {type(error).__name__}: {error}") from error
    images = sorted(p for p in found if Path(p).suffix.lower() in IMAGE_SUFFIXES)
    if not images:
        raise ConfigError(f"no images below {argument}")
    return [filesystem.unstrip_protocol(p) for p in images]


def _read_table(argument: str, suffix: str) -> pa.Table:
    import fsspec
    import pyarrow as pa

    try:
        with fsspec.open(argument, "rb") as file:
            data = file.read()
        table = _read_csv(data) if suffix == ".csv" else table_from_bytes(data)
    except (OSError, pa.ArrowException) as error:
        raise ConfigError(f"cannot read the input table {argument}: {error}") from error
    if "uri" not in table.column_names:
        raise ConfigError(
            f"the input table {argument} has no column 'uri' "
            f"(it has: {', '.join(table.column_names) or 'none'})"
        )
    reserved = [name for name in table.column_names if name.startswith(OWN_PREFIX)]
    if reserved or len(set(table.column_names)) != table.num_columns:
        raise ConfigError(f"the input table {argument} has reserved or repeated column names")
    uris = [_resolve(str(uri or ""), argument) for uri in table["uri"].to_pylist()]
    table = table.replace_schema_metadata(None)
    return table.append_column(OWN_PREFIX + "source_uri", pa.array(uris, pa.string()))


def _read_csv(data: bytes) -> pa.Table:
    import pyarrow as pa
    from pyarrow import csv

    # Single-threaded: see table_from_bytes.
    return csv.read_csv(pa.BufferReader(data), csv.ReadOptions(use_threads=False))


def _resolve(uri: str, table: str) -> str:
    """A table's relative paths start at the table; those that do not exist there, here."""
    if not uri or "://" in uri or Path(uri).is_absolute():
        return uri.removeprefix("file://")
    if "://" in table:
        return f"{table.rsplit('/', 1)[0]}/{uri}"
    beside = Path(table).expanduser().absolute().parent / uri
    here = Path(uri).absolute()
    return str(here if here.exists() and not beside.exists() else beside)


def _identified(table: pa.Table, parallel: int) -> pa.Table:
    """Add our columns: read every source once for its id."""
    from concurrent.futures import ThreadPoolExecutor

    import pyarrow as pa

    annotations = {
        name: table[name].to_pylist() if name in table.column_names else [None] * table.num_rows
        for name in ("face_box", "landmarks")
    }
    uris = table[OWN_PREFIX + "source_uri"].to_pylist()
    with ThreadPoolExecutor(parallel) as pool:
        identified = list(
            pool.map(_identify_row, uris, annotations["face_box"], annotations["landmarks"])
        )
    for name in _OWN_FIELDS[1:]:
        column = pa.array([row.get(name) for row in identified], pa.string())
        table = table.append_column(OWN_PREFIX + name, column)
    return table


def _identify_row(uri: str, face_box: Any, landmarks: Any) -> dict[str, str | None]:
    try:
        box = _annotation("face_box", face_box)
        points = _annotation("landmarks", landmarks)
        if not uri:
            raise UnreadableSource("the row has an empty uri")
        avatar_id = identify(read_source(uri), box, points)
    except (InvalidAnnotation, UnreadableSource) as error:
        return {"error_type": type(error).__name__, "error_message": str(error)}
    return {
        "avatar_id": avatar_id,
        "face_box": json.dumps(box) if box is not None else None,
        "landmarks": json.dumps(points) if points is not None else None,
    }


def _annotation(name: str, value: Any) -> Any:
    """A list, or JSON text of one; None where the cell is empty."""
    if value is None or (isinstance(value, str) and not value.strip()):
        return None
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except ValueError as error:
            raise InvalidAnnotation(f"{name} is no JSON: {error}") from error
        if value is None:
            return None
    if not isinstance(value, list):
        raise InvalidAnnotation(f"{name} must be a list, found {type(value).__name__}")
    try:
        json.dumps(value, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise InvalidAnnotation(f"{name} must hold finite numbers: {error}") from error
    return value
