"""The vertex table of 3DGS ``.ply`` files: names, order, and raw reading and writing.

Binary little endian, one element ``vertex``, float properties. Values are before activation; the
45 higher coefficients are channel-major (15 red, 15 green, 15 blue); rotations are wxyz.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fc4d_ray.avatar.spherical_harmonics import MAX_DEGREE, coefficient_count, degree_of
from fc4d_ray.errors import StoreError

_HIGHER = coefficient_count(MAX_DEGREE) - 1
_TYPES = {
    "float": "<f4", "float32": "<f4", "double": "<f8", "float64": "<f8",
    "uchar": "<u1", "uint8": "<u1", "char": "<i1", "int8": "<i1",
    "ushort": "<u2", "uint16": "<u2", "short": "<i2", "int16": "<i2",
    "uint": "<u4", "uint32": "<u4", "int": "<i4", "int32": "<i4",
}  # fmt: skip
_HEADER_LIMIT = 1 << 16


def write_splat_table(
    path: Path,
    *,
    positions: NDArray,  # (N, 3)
    sh0: NDArray,  # (N, 3)
    shN: NDArray,  # (N, K - 1, 3), any degree up to 3
    opacity_logits: NDArray,  # (N,)
    log_scales: NDArray,  # (N, 3)
    quats: NDArray,  # (N, 4)
    extra: Mapping[str, NDArray] | None = None,  # (N,) each, appended
) -> None:
    """Write a table with all 45 higher coefficients; degrees not there are zero.

    Raises ``StoreError`` where the file cannot be written.
    """
    n = len(positions)
    higher = np.zeros((n, _HIGHER, 3), np.float32)
    higher[:, : shN.shape[1]] = shN
    columns = [("x", "y", "z"), ("nx", "ny", "nz"), _numbered("f_dc_", 3)]
    columns += [_numbered("f_rest_", 3 * _HIGHER), ("opacity",)]
    columns += [_numbered("scale_", 3), _numbered("rot_", 4)]
    values = [positions, np.zeros((n, 3)), sh0, higher.transpose(0, 2, 1).reshape(n, 3 * _HIGHER)]
    values += [opacity_logits[:, None], log_scales, quats]
    for name, column in (extra or {}).items():
        columns.append((name,))
        values.append(np.asarray(column)[:, None])
    names = [name for group in columns for name in group]
    header = ["ply", "format binary_little_endian 1.0", f"element vertex {n}"]
    header += [f"property float {name}" for name in names] + ["end_header", ""]
    table = np.concatenate([np.asarray(v, "<f4") for v in values], 1)
    _write_atomically(Path(path), "\n".join(header).encode() + table.tobytes())


def read_splat_table(path: Path) -> dict[str, NDArray[np.float32]]:
    """Columns grouped under the names ``write_splat_table`` takes; others under their own.

    ``shN`` has the degree the file has coefficients for. Raises ``StoreError`` naming the file
    where it is absent, damaged or no splat file.
    """
    table = _read_vertices(Path(path))
    names = table.dtype.names or ()

    def group(wanted: tuple[str, ...]) -> NDArray[np.float32]:
        missing = [name for name in wanted if name not in names]
        if missing:
            raise StoreError(f"{path} is no splat file: it lacks {missing[0]}")
        return np.stack([table[name].astype(np.float32) for name in wanted], 1)

    n_rest = sum(name.startswith("f_rest_") for name in names)
    try:
        degree_of(n_rest // 3 + 1 if n_rest % 3 == 0 else -1)
    except ValueError as error:
        raise StoreError(f"{path} has {n_rest} f_rest columns, no degree does") from error
    rest = group(_numbered("f_rest_", n_rest)) if n_rest else np.zeros((len(table), 0), np.float32)
    higher = rest.reshape(len(table), 3, n_rest // 3)
    groups = {
        "positions": group(("x", "y", "z")),
        "sh0": group(_numbered("f_dc_", 3)),
        "shN": np.ascontiguousarray(higher.transpose(0, 2, 1)),
        "opacity_logits": group(("opacity",))[:, 0],
        "log_scales": group(_numbered("scale_", 3)),
        "quats": group(_numbered("rot_", 4)),
    }
    known = {"x", "y", "z", "nx", "ny", "nz", "opacity"}
    prefixes = ("f_dc_", "f_rest_", "scale_", "rot_")
    others = [name for name in names if name not in known and not name.startswith(prefixes)]
    return groups | {name: table[name].astype(np.float32) for name in others}


def _numbered(prefix: str, count: int) -> tuple[str, ...]:
    return tuple(f"{prefix}{i}" for i in range(count))


def _read_vertices(path: Path) -> NDArray:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise StoreError(f"cannot read {path}: {error.strerror}") from error
    end = data.find(b"end_header\n", 0, _HEADER_LIMIT)
    if not data.startswith(b"ply") or end < 0:
        raise StoreError(f"{path} is no ply file")
    lines = [line.split() for line in data[:end].decode("ascii", "replace").splitlines()]
    lines = [line for line in lines if line and line[0] not in ("comment", "obj_info")]
    if ["format", "binary_little_endian", "1.0"] not in lines:
        raise StoreError(f"{path} is not a binary little endian ply")
    elements = [line for line in lines if line[0] == "element"]
    if not elements or elements[0][1] != "vertex":
        raise StoreError(f"{path} does not start with vertices")
    first = lines.index(elements[0]) + 1
    last = lines.index(elements[1]) if len(elements) > 1 else len(lines)
    properties = [line for line in lines[first:last] if line[0] == "property"]
    if any(len(p) != 3 or p[1] not in _TYPES for p in properties):
        raise StoreError(f"{path} has vertex properties this reader does not know")
    count, dtype = int(elements[0][2]), np.dtype([(p[2], _TYPES[p[1]]) for p in properties])
    start = end + len(b"end_header\n")
    if len(data) - start < count * dtype.itemsize:
        raise StoreError(f"{path} is cut short: its header promises {count} splats")
    return np.frombuffer(data, dtype, count, start)


def _write_atomically(path: Path, data: bytes) -> None:
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        temporary.write_bytes(data)
        os.replace(temporary, path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise StoreError(f"cannot write {path}: {error.strerror}") from error
