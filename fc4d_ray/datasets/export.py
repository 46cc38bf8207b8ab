"""Exports of chosen avatars: a Hugging Face dataset folder, or WebDataset shards.

Both carry the manifest's columns with every avatar and a dataset card. Files are read from wherever
the run lies and written shard by shard, so memory holds one shard at most.
"""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import pyarrow as pa

from fc4d_ray.datasets.card import dataset_card
from fc4d_ray.errors import ConfigError, StoreError
from fc4d_ray.store.filesystem import Storage
from fc4d_ray.store.parquet import table_to_bytes

Format = Literal["huggingface", "webdataset"]
FORMATS: tuple[str, ...] = ("huggingface", "webdataset")
PICTURES = ("preview.png", "reference.png")
"""Of each avatar; shown as images by viewers of datasets."""
AVATAR_FILES = ("rig.npz", "avatar.ply")
SHARD_ROWS = 500


@dataclass(frozen=True)
class Exported:
    """What was written."""

    rows: int
    shards: tuple[str, ...]
    missing: tuple[str, ...]
    """Files an avatar should have and does not, each with its address."""


def export_dataset(
    table: pa.Table,
    out: str,
    format: Format,
    *,
    name: str,
    condition: str | None = None,
    shard_rows: int = SHARD_ROWS,
) -> Exported:
    """Write the finished avatars of a manifest (rows of other status are left out).

    Raises ``ConfigError`` where the table holds none or the options make no sense, ``StoreError``
    where ``out`` holds something already.
    """
    if format not in FORMATS:
        raise ConfigError(f"--format must be one of {', '.join(FORMATS)}, found {format!r}")
    if not 1 <= shard_rows <= 100_000:
        raise ConfigError(f"--shard-rows must be in 1..100000, found {shard_rows}")
    rows = [row for row in table.to_pylist() if row["status"] == "succeeded"]
    if not rows:
        raise ConfigError("there is no finished avatar to export")
    storage = Storage(out.rstrip("/"))
    if storage.names(""):
        raise StoreError(f"{out} is not empty: export into a new folder")
    missing: list[str] = []
    write = _write_parquet if format == "huggingface" else _write_tar
    count = -(-len(rows) // shard_rows)
    shards = []
    for index in range(count):
        part = rows[index * shard_rows : (index + 1) * shard_rows]
        shards.append(write(storage, part, index, count, missing))
    storage.replace("README.md", dataset_card(rows, name, condition, _LAYOUTS[format]).encode())
    return Exported(len(rows), tuple(shards), tuple(missing))


_LAYOUTS: Mapping[str, str] = {
    "huggingface": (
        "`data/train-*.parquet`: one row per avatar with the manifest's columns, `preview` and "
        "`reference` as images, `rig_npz` and `avatar_ply` as bytes. "
        '`datasets.load_dataset("path/to/this/folder")` reads it.'
    ),
    "webdataset": (
        "`shard-*.tar`: per avatar `<id>.json` (the manifest's columns), `<id>.preview.png`, "
        "`<id>.reference.png`, `<id>.rig.npz` and `<id>.avatar.ply`."
    ),
}


def _write_parquet(
    storage: Storage, rows: Sequence[Mapping[str, Any]], index: int, count: int, missing: list[str]
) -> str:
    """One shard whose metadata tells the ``datasets`` library which columns are pictures."""
    columns: dict[str, list[Any]] = {name: [row[name] for row in rows] for name in rows[0]}
    files = [dict(_files_of(row, missing)) for row in rows]
    for picture in PICTURES:
        columns[picture.removesuffix(".png")] = [
            None if found.get(picture) is None else {"bytes": found[picture], "path": picture}
            for found in files
        ]
    for file in AVATAR_FILES:
        columns[file.replace(".", "_")] = [found.get(file) for found in files]
    table = pa.table({name: _column(name, values) for name, values in columns.items()})
    path = f"data/train-{index:05d}-of-{count:05d}.parquet"
    storage.replace(path, table_to_bytes(table.replace_schema_metadata(_features(table.schema))))
    return path


def _column(name: str, values: list[Any]) -> pa.Array:
    if name in {picture.removesuffix(".png") for picture in PICTURES}:
        return pa.array(values, pa.struct([("bytes", pa.binary()), ("path", pa.string())]))
    if name in {file.replace(".", "_") for file in AVATAR_FILES}:
        return pa.array(values, pa.large_binary())
    return pa.array(values)


def _features(schema: pa.Schema) -> dict[bytes, bytes]:
    """The columns as the ``datasets`` library describes them in files it writes itself."""
    pictures = {picture.removesuffix(".png") for picture in PICTURES}
    features = {
        field.name: {"_type": "Image"} if field.name in pictures else _feature(field.type)
        for field in schema
    }
    return {b"huggingface": json.dumps({"info": {"features": features}}).encode()}


def _feature(kind: pa.DataType) -> dict[str, Any]:
    if pa.types.is_list(kind):
        return {"feature": _feature(kind.value_type), "_type": "List"}
    names = {"double": "float64", "float": "float32"}
    return {"dtype": names.get(str(kind), str(kind)), "_type": "Value"}


def _write_tar(
    storage: Storage, rows: Sequence[Mapping[str, Any]], index: int, count: int, missing: list[str]
) -> str:
    """One shard; equal avatars give equal bytes."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for row in rows:
            key = row["avatar_id"]
            _add(archive, f"{key}.json", json.dumps(_plain(row), sort_keys=True).encode())
            for file, data in _files_of(row, missing):
                _add(archive, f"{key}.{file}", data)
    path = f"shard-{index:06d}.tar"
    storage.replace(path, buffer.getvalue())
    return path


def _files_of(row: Mapping[str, Any], missing: list[str]) -> Iterator[tuple[str, bytes]]:
    published = Storage(str(row["avatar_uri"]).rstrip("/"))
    for file in (*PICTURES, *AVATAR_FILES):
        try:
            yield file, published.read(file)
        except FileNotFoundError:
            missing.append(published.uri_of(file))


def _add(archive: tarfile.TarFile, name: str, data: bytes) -> None:
    entry = tarfile.TarInfo(name)
    entry.size = len(data)
    archive.addfile(entry, io.BytesIO(data))


def _plain(row: Mapping[str, Any]) -> dict[str, Any]:
    """JSON's own types; times as ISO 8601."""
    return {
        name: value.isoformat() if hasattr(value, "isoformat") else value
        for name, value in row.items()
    }
