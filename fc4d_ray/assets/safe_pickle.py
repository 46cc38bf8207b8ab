"""The one reader of pickles: tensors, arrays and plain values, by allow-list.

A pickle is a program; ``pickle.load`` and ``numpy.load(allow_pickle=True)`` run it. Here every
name in the stream is answered by a stand-in of our own (``pickle_values``, ``pickle_tensors``): no
module is imported and no function is called because a stream says so. A name outside the list
raises ``UnsafePickle`` at the moment it is looked up, before anything could be done with it.

Understood: numpy arrays and scalars of plain dtypes, scipy's csc and csr matrices, chumpy arrays
(FLAME's Python 2 pickles), torch tensors, storages and parameters; the containers are plain
pickles of protocol 0-5, torch's zip and pre-zip checkpoints, and ``.npy`` files with objects.
Classes a caller names in ``records`` are kept as inert ``Record`` values.
"""

from __future__ import annotations

import fnmatch
import io
import pickle
import zipfile
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from fc4d_ray.assets import pickle_tensors, pickle_values
from fc4d_ray.assets.pickle_tensors import (
    LEGACY_MAGIC,
    LEGACY_PROTOCOL,
    LegacyStorages,
    ZipStorages,
)
from fc4d_ray.assets.pickle_values import Record, SparseMatrix, record_type
from fc4d_ray.errors import UnsafePickle

__all__ = ["Record", "SparseMatrix", "UnsafePickle", "read_checkpoint", "read_npy", "read_pickle"]

Source = Path | bytes
_MALFORMED = (
    AttributeError,
    EOFError,
    ImportError,
    IndexError,
    KeyError,
    OverflowError,
    RecursionError,
    TypeError,
    UnicodeError,
    ValueError,
    MemoryError,
    pickle.UnpicklingError,
    zipfile.BadZipFile,
)


def read_pickle(source: Source, *, records: Collection[str] = ()) -> Any:
    """Value of a plain pickle.

    Args:
        source: a file or its bytes; Python 2 strings are read as latin-1.
        records: dotted names of classes or functions, ``fnmatch`` patterns allowed, that may occur
            in the stream and are returned as ``Record`` (name, arguments, state) instead of being
            refused. Nothing of these names is imported either.

    Returns:
        dicts, lists, tuples, sets, strings, numbers, numpy arrays, torch tensors,
        ``SparseMatrix`` and ``Record``.

    Raises:
        UnsafePickle: the stream names something else, or is malformed.
    """
    return _guarded(source, lambda file: _load(file, records, None))


def read_checkpoint(source: Source, *, records: Collection[str] = ()) -> Any:
    """Value of a torch checkpoint (zip or pre-zip ``torch.save``) or of a plain pickle.

    Tensors that share a storage in the file share it in the result; all are on the CPU and none
    requires a gradient.
    Arguments, result and errors as in ``read_pickle``.
    """

    def read(file: BinaryIO) -> Any:
        if zipfile.is_zipfile(file):
            with zipfile.ZipFile(file) as archive:
                storages = ZipStorages(archive)
                return _load(io.BytesIO(storages.stream()), records, storages.lookup)
        file.seek(0)
        is_legacy = _starts_legacy_checkpoint(file)
        file.seek(0)
        return _load_legacy(file, records) if is_legacy else _load(file, records, None)

    return _guarded(source, read)


def read_npy(source: Source, *, records: Collection[str] = ()) -> Any:
    """Value of a ``.npy`` file, object arrays included; one holding a single object gives that.

    Arguments and errors as in ``read_pickle``.
    """

    def read(file: BinaryIO) -> Any:
        version = np.lib.format.read_magic(file)
        header = {
            (1, 0): np.lib.format.read_array_header_1_0,
            (2, 0): np.lib.format.read_array_header_2_0,
        }.get(version)
        if header is None:
            raise UnsafePickle(f"expected a .npy file of version 1 or 2, found {version}")
        shape, _, dtype = header(file)
        if not dtype.hasobject:
            file.seek(0)
            return np.lib.format.read_array(file, allow_pickle=False)
        value = _load(file, records, None)
        return value.item() if shape == () and isinstance(value, np.ndarray) else value

    return _guarded(source, read)


class _Unpickler(pickle.Unpickler):
    """C unpickler whose every look-up is answered from our own tables."""

    def __init__(
        self,
        file: BinaryIO,
        records: Collection[str],
        storages: Callable[[Any], Any] | None,
    ) -> None:
        super().__init__(file, fix_imports=False, encoding="latin1")
        self._records = records
        self._storages = storages
        self._types: dict[str, type] = {}
        self._names = pickle_values.names() | pickle_tensors.names(_load_nested_storage)

    def find_class(self, module: str, name: str) -> Any:
        dotted = f"{module}.{name}"
        if dotted in self._names:
            return self._names[dotted]
        is_record = any(fnmatch.fnmatchcase(dotted, pattern) for pattern in self._records)
        if is_record or module.split(".")[0] == "chumpy":
            return self._types.setdefault(dotted, record_type(dotted))
        raise UnsafePickle(
            f"the pickle asks for {dotted!r}, which is not among the names that hold plain data; "
            "nothing was executed"
        )

    def persistent_load(self, pid: Any) -> Any:
        if self._storages is None:
            raise UnsafePickle("the pickle refers to data outside itself (a persistent id)")
        return self._storages(pid)


def _load(file: BinaryIO, records: Collection[str], storages: Callable[[Any], Any] | None) -> Any:
    return pickle_values.resolve(_Unpickler(file, records, storages).load())


def _starts_legacy_checkpoint(file: BinaryIO) -> bool:
    expected = pickle.dumps(LEGACY_MAGIC, protocol=2)
    return file.read(len(expected)) == expected


def _load_legacy(file: BinaryIO, records: Collection[str]) -> Any:
    """Pre-zip ``torch.save``: magic, protocol, system, object, storage keys, raw storages."""
    magic, protocol, system = (_load(file, (), None) for _ in range(3))
    if magic != LEGACY_MAGIC or protocol != LEGACY_PROTOCOL:
        raise UnsafePickle("expected a torch checkpoint, found another magic number")
    if not system.get("little_endian", True):
        raise UnsafePickle("the checkpoint was written on a big-endian machine")
    storages = LegacyStorages(file)
    value = _load(file, records, storages.lookup)
    storages.fill(_load(file, (), None))
    return value


def _load_nested_storage(data: bytes) -> Any:
    """The storage that a plain pickle of a tensor embeds as a pre-zip checkpoint of its own."""
    return _load_legacy(io.BytesIO(data), ())


def _guarded(source: Source, read: Callable[[BinaryIO], Any]) -> Any:
    where = "the given bytes" if isinstance(source, bytes) else str(source)
    try:
        if isinstance(source, bytes):
            return read(io.BytesIO(source))
        with Path(source).open("rb") as file:
            return read(file)
    except UnsafePickle as error:
        raise UnsafePickle(f"{where}: {error}") from None
    except _MALFORMED as error:
        kind = type(error).__name__
        raise UnsafePickle(f"{where}: malformed or truncated pickle ({kind}: {error})") from error
