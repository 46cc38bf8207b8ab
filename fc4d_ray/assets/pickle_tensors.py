"""Stand-ins for torch's names in pickles, and the two containers ``torch.save`` has written.

Layouts: since torch 1.6 a zip of uncompressed entries, ``<root>/data.pkl`` holding the object and
``<root>/data/<key>`` one storage each; before, a concatenation of pickles followed by the storages
(8-byte element count, then raw little-endian values).
"""

from __future__ import annotations

import struct
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, BinaryIO

from fc4d_ray.assets.pickle_values import Builder, StandIn
from fc4d_ray.errors import UnsafePickle

if TYPE_CHECKING:
    import torch

LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
LEGACY_PROTOCOL = 1001

_STORAGE_DTYPES = {
    "BFloat16Storage": "bfloat16",
    "BoolStorage": "bool",
    "ByteStorage": "uint8",
    "CharStorage": "int8",
    "ComplexDoubleStorage": "complex128",
    "ComplexFloatStorage": "complex64",
    "DoubleStorage": "float64",
    "FloatStorage": "float32",
    "HalfStorage": "float16",
    "IntStorage": "int32",
    "LongStorage": "int64",
    "ShortStorage": "int16",
}


class _StorageType(StandIn):
    """A storage class; stands for its element type."""

    dtype_name = ""


@dataclass
class Storage:
    """Memory that tensors are views of: a flat tensor of the storage's element type."""

    flat: torch.Tensor


def names(load_legacy: Callable[[bytes], Any]) -> dict[str, Any]:
    """What torch's names are answered with; ``load_legacy`` reads a nested pre-zip checkpoint."""

    def load_from_bytes(data: Any) -> Storage:
        if not isinstance(data, bytes):
            raise UnsafePickle("torch.storage._load_from_bytes without bytes")
        storage = load_legacy(data)
        if not isinstance(storage, Storage):
            raise UnsafePickle("torch.storage._load_from_bytes that holds no storage")
        return storage

    table: dict[str, Any] = {
        "torch._utils._rebuild_tensor": Builder(_rebuild_tensor),
        "torch._utils._rebuild_tensor_v2": Builder(_rebuild_tensor),
        "torch._utils._rebuild_parameter": Builder(_rebuild_parameter),
        "torch.storage._load_from_bytes": Builder(load_from_bytes),
        "torch.Size": Builder(_plain_size),
        "torch.device": Builder(_plain_device),
    }
    for name, dtype in _STORAGE_DTYPES.items():
        table[f"torch.{name}"] = type("StorageTypeStandIn", (_StorageType,), {"dtype_name": dtype})
    return table


class ZipStorages:
    """Storages of a zip checkpoint, read as they are referred to."""

    def __init__(self, archive: zipfile.ZipFile) -> None:
        self._archive = archive
        self._cache: dict[str, Storage] = {}
        pickles = [n for n in archive.namelist() if n == "data.pkl" or n.endswith("/data.pkl")]
        if len(pickles) != 1:
            raise UnsafePickle("a zip without exactly one data.pkl is no torch checkpoint")
        self._root = pickles[0].removesuffix("data.pkl")
        order = f"{self._root}byteorder"
        if order in archive.namelist() and self._read(order) != b"little":
            raise UnsafePickle("the checkpoint was written on a big-endian machine")

    def stream(self) -> bytes:
        """The pickle of the saved object."""
        return self._read(f"{self._root}data.pkl")

    def lookup(self, pid: Any) -> Storage:
        dtype, key, n_elements = _parse_storage_id(pid)
        if key not in self._cache:
            data = self._read(f"{self._root}data/{key}")
            if len(data) != n_elements * dtype.itemsize:
                raise UnsafePickle(f"storage {key} has {len(data)} bytes, not {n_elements} values")
            self._cache[key] = _storage(bytearray(data), dtype)
        return self._typed(key, dtype)

    def _typed(self, key: str, dtype: torch.dtype) -> Storage:
        storage = self._cache[key]
        if storage.flat.dtype != dtype:
            raise UnsafePickle(f"storage {key} is referred to with two element types")
        return storage

    def _read(self, name: str) -> bytes:
        info = self._archive.getinfo(name)
        if info.compress_type != zipfile.ZIP_STORED:
            raise UnsafePickle(f"{name} is compressed, which torch.save never does")
        return self._archive.read(info)


class LegacyStorages:
    """Storages of a pre-zip checkpoint: reserved while unpickling, filled from the file's tail."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._buffers: dict[str, bytearray] = {}
        self._cache: dict[str, Storage] = {}
        position = file.tell()
        self._unreserved = file.seek(0, 2) - position
        file.seek(position)

    def lookup(self, pid: Any) -> Storage:
        dtype, key, n_elements = _parse_storage_id(pid)
        if key not in self._cache:
            n_bytes = n_elements * dtype.itemsize
            self._unreserved -= n_bytes
            if self._unreserved < 0:
                raise UnsafePickle("the checkpoint declares more values than the file can hold")
            self._buffers[key] = bytearray(n_bytes)
            self._cache[key] = _storage(self._buffers[key], dtype)
        if self._cache[key].flat.dtype != dtype:
            raise UnsafePickle(f"storage {key} is referred to with two element types")
        return self._cache[key]

    def fill(self, keys: Any) -> None:
        """Read the raw values, in the order of the file's key list."""
        if not isinstance(keys, list) or set(keys) != set(self._buffers):
            raise UnsafePickle("the checkpoint's storage list does not match its tensors")
        for key in keys:
            (n_elements,) = struct.unpack("<q", self._file.read(8))
            buffer = self._buffers[key]
            if n_elements != self._cache[key].flat.numel():
                raise UnsafePickle(f"storage {key} has another size than declared")
            if self._file.readinto(buffer) != len(buffer):
                raise UnsafePickle(f"storage {key} is cut short")


def _storage(buffer: bytearray, dtype: torch.dtype) -> Storage:
    import torch

    if not buffer:
        return Storage(torch.empty(0, dtype=dtype))
    return Storage(torch.frombuffer(buffer, dtype=dtype))


def _parse_storage_id(pid: Any) -> tuple[torch.dtype, str, int]:
    """(element type, key, number of elements) of a persistent id that torch.save writes."""
    import torch

    if not isinstance(pid, tuple) or len(pid) not in (5, 6) or pid[0] != "storage":
        raise UnsafePickle("a persistent id that is no torch storage")
    _, kind, key, _location, n_elements = pid[:5]
    if not (isinstance(kind, type) and issubclass(kind, _StorageType)):
        raise UnsafePickle("a torch storage of unknown type")
    if len(pid) == 6 and pid[5] is not None:
        raise UnsafePickle("a torch storage that is a view of another one")
    if not isinstance(key, str) or not isinstance(n_elements, int) or n_elements < 0:
        raise UnsafePickle("a torch storage with an invalid key or size")
    return getattr(torch, kind.dtype_name), key, n_elements


def _rebuild_tensor(
    storage: Any,
    offset: Any,
    size: Any,
    stride: Any,
    requires_grad: Any = False,
    backward_hooks: Any = None,
    metadata: Any = None,
) -> torch.Tensor:
    """The view of ``storage``; torch itself would enlarge a storage that is too small."""
    if not isinstance(storage, Storage):
        raise UnsafePickle("a tensor without a storage")
    whole = (offset, *size, *stride)
    if len(size) != len(stride) or any(not isinstance(n, int) or n < 0 for n in whole):
        raise UnsafePickle("a tensor with an invalid size or stride")
    is_empty = any(n == 0 for n in size)
    last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
    if not is_empty and last >= storage.flat.numel():
        raise UnsafePickle("a tensor that reaches beyond its storage")
    if is_empty:
        return storage.flat[:0].reshape(tuple(size))
    return storage.flat.as_strided(tuple(size), tuple(stride), offset)


def _rebuild_parameter(data: Any, requires_grad: Any, backward_hooks: Any) -> torch.Tensor:
    import torch

    if not isinstance(data, torch.Tensor):
        raise UnsafePickle("a parameter without a tensor")
    return data


def _plain_size(values: Any = ()) -> tuple[int, ...]:
    return tuple(values)


def _plain_device(*arguments: Any) -> str:
    return ":".join(str(argument) for argument in arguments)
