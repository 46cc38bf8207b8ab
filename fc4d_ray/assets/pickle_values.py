"""Stand-ins for the numpy, scipy, chumpy and standard-library names found in data pickles.

A stand-in only stores what the stream gives it; ``resolve`` turns the finished graph into plain
values. See ``safe_pickle`` for why.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fc4d_ray.errors import UnsafePickle

_PLAIN_DTYPE = re.compile(r"[<>|=]?([?biufc]\d{0,2}|[SU]\d+|O\d?)")
_PLAIN_KEYS = (str, bytes, int, float, bool, type(None), np.generic)


@dataclass(frozen=True)
class Record:
    """An object of a class that was never loaded: its name and what the stream stored."""

    name: str
    """Dotted name, as in the stream."""
    arguments: tuple[Any, ...] = ()
    """Constructor or call arguments."""
    state: Any = None
    """What the object would have got for ``__setstate__``, usually its ``__dict__``."""
    items: dict[Any, Any] = field(default_factory=dict)
    """Entries, where the class is a dict."""
    elements: list[Any] = field(default_factory=list)
    """Elements, where the class is a list."""


@dataclass(frozen=True)
class SparseMatrix:
    """A scipy compressed matrix, as its four members."""

    layout: str
    """``csc`` or ``csr``."""
    data: NDArray
    indices: NDArray
    indptr: NDArray
    shape: tuple[int, int]

    def to_dense(self) -> NDArray:
        """(rows, columns) array; repeated entries add up, as scipy does it."""
        n_major = self.shape[1] if self.layout == "csc" else self.shape[0]
        major = np.repeat(np.arange(n_major), np.diff(self.indptr))
        rows, columns = (self.indices, major) if self.layout == "csc" else (major, self.indices)
        dense = np.zeros(self.shape, self.data.dtype)
        np.add.at(dense, (rows, columns), self.data)
        return dense


class Builder:
    """A call the stream may make. Refuses to be modified by a BUILD instruction."""

    __slots__ = ("_call",)

    def __init__(self, call: Callable[..., Any]) -> None:
        self._call = call

    def __call__(self, *arguments: Any) -> Any:
        return self._call(*arguments)

    def __setstate__(self, state: Any) -> None:
        raise UnsafePickle("the pickle tries to modify a function")


class StandIn:
    """Base of what find_class gives for a class: keeps all it is told, does nothing."""

    dotted = ""

    def __new__(cls, *arguments: Any) -> StandIn:
        self = object.__new__(cls)
        self.arguments = arguments
        self.state = None
        self.items = {}
        self.elements = []
        return self

    def __init__(self, *arguments: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        self.state = state

    def __setitem__(self, key: Any, value: Any) -> None:
        self.items[key] = value

    def append(self, value: Any) -> None:
        self.elements.append(value)


class _OrderedDict(dict):
    """``OrderedDict``; a state dict's ``_metadata`` attribute arrives as state and is dropped."""

    def __setstate__(self, state: Any) -> None:
        pass


class _Object(StandIn):
    """``object``, the base Python 2 pickles name."""


class _NdArray(StandIn):
    """An array; its state is (version, shape, dtype, fortran order, data)."""


class _Dtype(StandIn):
    """A dtype; its argument is the type code, its state holds the byte order."""


class _Csc(StandIn):
    dotted = "csc"


class _Csr(StandIn):
    dotted = "csr"


def record_type(dotted: str) -> type[StandIn]:
    """A new stand-in class that resolves to ``Record`` (or to a value, for known chumpy types)."""
    return type("RecordStandIn", (StandIn,), {"dotted": dotted})


def names() -> dict[str, Any]:
    """What each allowed name of these libraries is answered with. A new table per read."""
    table: dict[str, Any] = {
        "_codecs.encode": Builder(_encode),
        "collections.OrderedDict": _OrderedDict,
        "numpy.ndarray": _NdArray,
        "numpy.dtype": _Dtype,
    }
    for package in ("numpy.core", "numpy._core"):
        table[f"{package}.multiarray._reconstruct"] = Builder(_reconstruct)
        table[f"{package}.multiarray.scalar"] = Builder(_scalar)
        table[f"{package}.numeric._frombuffer"] = Builder(_from_buffer)
    for module in ("__builtin__", "builtins"):
        table[f"{module}.bytes"] = Builder(_no_bytes)
        table[f"{module}.object"] = _Object
        table[f"{module}.set"] = Builder(_plain_set)
    for module in ("copy_reg", "copyreg"):
        table[f"{module}._reconstructor"] = Builder(_new_object)
    for layout, stand_in in (("csc", _Csc), ("csr", _Csr)):
        table[f"scipy.sparse.{layout}.{layout}_matrix"] = stand_in
        table[f"scipy.sparse._{layout}.{layout}_matrix"] = stand_in
    return table


def resolve(value: Any) -> Any:
    """The loaded graph with every stand-in replaced by the value it describes.

    Shared nodes stay shared.

    Raises:
        UnsafePickle: a stand-in was not given what it needs, or the graph contains itself.
    """
    return _Resolver().value(value)


class _Resolver:
    def __init__(self) -> None:
        self._done: dict[int, Any] = {}
        self._open: set[int] = set()

    def value(self, node: Any) -> Any:
        if not isinstance(node, list | tuple | dict | StandIn):
            if isinstance(node, type | Builder):
                raise UnsafePickle("the pickle stores a class or function as a value")
            return node
        key = id(node)
        if key not in self._done:
            if key in self._open:
                raise UnsafePickle("the pickle's data contains itself")
            self._open.add(key)
            self._done[key] = self._resolve(node)
            self._open.discard(key)
        return self._done[key]

    def _resolve(self, node: Any) -> Any:
        if isinstance(node, list):
            return [self.value(item) for item in node]
        if isinstance(node, tuple):
            return tuple(self.value(item) for item in node)
        if isinstance(node, dict):
            return self._mapping(node)
        if isinstance(node, _NdArray):
            return self._array(node)
        if isinstance(node, _Csc | _Csr):
            return self._sparse(node)
        if node.dotted == "chumpy.ch.Ch":
            return np.asarray(self._chumpy_state(node, "x")[0])
        if node.dotted == "chumpy.reordering.Select":
            a, indices, shape = self._chumpy_state(node, "a", "idxs", "preferred_shape")
            return np.asarray(a).ravel()[indices].reshape(shape)
        if type(node) in (_Object, _Dtype):
            raise UnsafePickle("the pickle stores a bare object or dtype")
        return Record(
            node.dotted,
            self.value(node.arguments),
            self.value(node.state),
            self._mapping(node.items),
            self.value(node.elements),
        )

    def _mapping(self, node: Mapping[Any, Any]) -> dict[Any, Any]:
        resolved = {}
        for key, item in node.items():
            key = self.value(key)
            if not isinstance(key, (*_PLAIN_KEYS, tuple)):
                raise UnsafePickle(f"a dict key of type {type(key).__name__} in the pickle")
            resolved[key] = self.value(item)
        return resolved

    def _array(self, node: _NdArray) -> NDArray:
        if not isinstance(node.state, tuple) or len(node.state) not in (4, 5):
            raise UnsafePickle("an array without shape, dtype and data")
        shape, dtype, is_fortran, data = node.state[-4:]
        dtype = _plain_dtype(dtype)
        if dtype.hasobject:
            flat = np.empty(len(data), object)
            for i, item in enumerate(data):
                flat[i] = self.value(item)
        else:
            if isinstance(data, str):
                data = data.encode("latin1")
            flat = np.frombuffer(data, dtype).copy()
        return flat.reshape(shape, order="F" if is_fortran else "C")

    def _sparse(self, node: StandIn) -> SparseMatrix:
        state = self.value(node.state)
        if not isinstance(state, dict):
            raise UnsafePickle("a sparse matrix without its members")
        shape = state.get("_shape", state.get("shape"))
        return SparseMatrix(
            node.dotted, state["data"], state["indices"], state["indptr"], tuple(shape)
        )

    def _chumpy_state(self, node: StandIn, *keys: str) -> list[Any]:
        if not isinstance(node.state, dict) or any(key not in node.state for key in keys):
            raise UnsafePickle(f"a {node.dotted} without {' and '.join(keys)}")
        return [self.value(node.state[key]) for key in keys]


def _plain_dtype(dtype: Any) -> np.dtype:
    if not isinstance(dtype, _Dtype) or not dtype.arguments:
        raise UnsafePickle("an array whose dtype is no dtype")
    code = dtype.arguments[0]
    if not isinstance(code, str) or not _PLAIN_DTYPE.fullmatch(code):
        raise UnsafePickle(f"an array of dtype {code!r}: only plain numbers and strings are read")
    order = dtype.state[1] if isinstance(dtype.state, tuple) and len(dtype.state) > 1 else "="
    resolved = np.dtype(code)
    return resolved.newbyteorder(order) if order in ("<", ">") else resolved


def _reconstruct(kind: Any, shape: Any, code: Any) -> _NdArray:
    if kind is not _NdArray:
        raise UnsafePickle("an array subclass in the pickle")
    return _NdArray()


def _from_buffer(buffer: Any, dtype: Any, shape: Any, order: Any) -> NDArray:
    return np.frombuffer(buffer, _plain_dtype(dtype)).copy().reshape(shape, order=order)


def _scalar(dtype: Any, data: Any) -> Any:
    if isinstance(data, str):
        data = data.encode("latin1")
    resolved = _plain_dtype(dtype)
    if resolved.hasobject:
        raise UnsafePickle("an object scalar in the pickle")
    return np.frombuffer(data, resolved)[0]


def _encode(text: Any, encoding: Any = "latin1") -> bytes:
    if not isinstance(text, str) or encoding not in ("latin1", "latin-1"):
        raise UnsafePickle("_codecs.encode with anything but latin-1 text")
    return text.encode("latin1")


def _no_bytes() -> bytes:
    """``bytes()``: how protocols below 3 write an empty byte string."""
    return b""


def _plain_set(values: Any = ()) -> set[Any]:
    if not all(isinstance(value, _PLAIN_KEYS) for value in values):
        raise UnsafePickle("a set of anything but plain values")
    return set(values)


def _new_object(kind: Any, base: Any, state: Any) -> StandIn:
    if not (isinstance(kind, type) and issubclass(kind, StandIn)) or base is not _Object:
        raise UnsafePickle("copyreg._reconstructor with anything but a plain class")
    return kind()
