from __future__ import annotations

import collections
import io
import json
import os
import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.sparse
import torch

from fc4d_ray.assets.safe_pickle import (
    Record,
    SparseMatrix,
    UnsafePickle,
    read_checkpoint,
    read_npy,
    read_pickle,
)

SHARED = Path(__file__).resolve().parents[2].parent / "shared"
FLAME = SHARED / "parity" / "flame"
PANOHEAD_TINY = SHARED / "parity" / "panohead" / "tiny_released_format.pkl"
needs_flame = pytest.mark.skipif(not FLAME.is_dir(), reason="FLAME parity files not at hand")
PANOHEAD_RECORDS = (
    "torch_utils.persistence._reconstruct_persistent_obj",
    "dnnlib.util.EasyDict",
    "torch.nn.modules.*",
    "training.volumetric_rendering.ray_sampler.RaySampler",
)


class _Planted:
    """Pickles as a call of ``function``."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self._call = (function, arguments)

    def __reduce__(self) -> tuple[Any, ...]:
        return self._call


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_plain_values_and_arrays_survive(protocol: int) -> None:
    value = {
        "float": np.arange(6, dtype=">f8").reshape(2, 3),
        "fortran": np.asfortranarray(np.arange(6, dtype=np.uint16).reshape(2, 3)),
        "text": np.array(["ab", "c"]),
        "mask": np.array([True, False]),
        "empty": np.zeros((0, 3), np.float32),
        "scalar": np.float32(1.5),
        "objects": np.array([{"a": 1}, None], dtype=object),
        "plain": [1, -(2**70), 2.5, "x", b"y", None, True, (1, 2), {3, "z"}],
        "ordered": collections.OrderedDict(a=1),
    }
    read = read_pickle(pickle.dumps(value, protocol=protocol))
    assert list(read) == list(value)
    for key in ("float", "fortran", "text", "mask", "empty"):
        np.testing.assert_array_equal(read[key], value[key])
        assert read[key].dtype == value[key].dtype
    assert read["scalar"] == 1.5 and read["scalar"].dtype == np.float32
    assert read["objects"].tolist() == [{"a": 1}, None]
    assert read["plain"] == value["plain"]
    assert type(read["ordered"]) is dict and read["ordered"] == {"a": 1}


@pytest.mark.parametrize("kind", [scipy.sparse.csc_matrix, scipy.sparse.csr_matrix])
def test_sparse_matrices_give_scipys_dense_values(kind: Any) -> None:
    matrix = kind(scipy.sparse.random(7, 11, density=0.3, random_state=3))
    read = read_pickle(pickle.dumps(matrix))
    assert isinstance(read, SparseMatrix)
    np.testing.assert_array_equal(read.to_dense(), matrix.toarray())


@needs_flame
@pytest.mark.parametrize("name", ["fixture_chumpy_p0", "fixture_chumpy_p2"])
def test_python2_chumpy_fixture(name: str) -> None:
    read = read_pickle(FLAME / f"{name}.pkl")
    with np.load(FLAME / "fixture_expected.npz") as expected:
        assert expected.files
        for key in expected.files:
            value = read[key]
            value = value.to_dense() if isinstance(value, SparseMatrix) else value
            np.testing.assert_array_equal(value, expected[key], err_msg=key)
    assert read["bs_style"] == "lbs"


@needs_flame
@pytest.mark.parametrize(
    ("index", "name"), [(0, "__builtin__.eval"), (1, "posix.system"), (2, "numpy.load")]
)
def test_unsafe_fixture_is_refused_by_name(index: int, name: str) -> None:
    with pytest.raises(UnsafePickle, match=name):
        read_pickle(FLAME / f"fixture_unsafe_{index}.pkl")


@pytest.mark.parametrize(
    "function",
    [os.system, eval, exec, os.rename, getattr, __import__, np.load, torch.load, io.open],
    ids=lambda function: function.__name__,
)
@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_calls_are_refused_and_never_made(tmp_path: Path, function: Any, protocol: int) -> None:
    canary = tmp_path / "canary"
    canary.write_text("here")
    before = sorted(tmp_path.iterdir())
    data = pickle.dumps({"x": _Planted(function, f"rm -f {canary}")}, protocol=protocol)
    with pytest.raises(UnsafePickle, match="asks for"):
        read_pickle(data)
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize(
    "stream",
    [
        b"cnumpy\nndarray.tofile\n.",  # an attribute of an allowed name
        b"c_codecs\nencode\n.",  # a function as the value
        b"c_codecs\nencode\n(X\x01\x00\x00\x00aX\x05\x00\x00\x00utf-8tR.",  # another codec
        b"Pid\n.",  # persistent id in a plain pickle
        b"\x80\x04]\x94h\x00a.",  # a list that contains itself
        b"\x80\x02X\x05",  # truncated
        b"",
    ],
)
def test_malformed_streams_are_refused(stream: bytes) -> None:
    with pytest.raises(UnsafePickle):
        read_pickle(stream)


def test_allowed_functions_cannot_be_modified_by_a_stream() -> None:
    stream = b"c_codecs\nencode\n}X\x01\x00\x00\x00aK\x01sb0N."
    with pytest.raises(UnsafePickle, match="modify a function"):
        read_pickle(stream)


def test_random_damage_gives_a_value_or_unsafe_pickle() -> None:
    good = pickle.dumps({"a": np.arange(8.0), "b": torch.arange(4.0), "c": [1, "x"]}, protocol=2)
    random = np.random.default_rng(0)
    refused = 0
    for _ in range(400):
        damaged = bytearray(good)
        for position in random.integers(0, len(good), 3):
            damaged[position] = random.integers(0, 256)
        try:
            read_pickle(bytes(damaged))
        except UnsafePickle:
            refused += 1
    assert refused > 100


@pytest.mark.parametrize("is_zip", [True, False], ids=["zip", "legacy"])
def test_checkpoints_equal_what_torch_saved(tmp_path: Path, is_zip: bool) -> None:
    module = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4))
    base = torch.arange(12.0).reshape(3, 4)
    saved = {
        "state": module.state_dict(),
        "half": torch.randn(5).half(),
        "brain": torch.randn(5).bfloat16(),
        "strided": base.t()[1:],
        "base": base,
        "parameter": torch.nn.Parameter(torch.ones(2)),
        "empty": torch.empty(0, 3),
        "mask": torch.tensor([True, False]),
        "epoch": 7,
        "size": base.shape,
    }
    torch.save(saved, tmp_path / "model.pt", _use_new_zipfile_serialization=is_zip)
    read = read_checkpoint(tmp_path / "model.pt")
    for key, value in module.state_dict().items():
        assert torch.equal(read["state"][key], value) and read["state"][key].dtype == value.dtype
    for key in ("half", "brain", "strided", "base", "parameter", "empty", "mask"):
        assert torch.equal(read[key], saved[key]) and read[key].dtype == saved[key].dtype
    assert read["epoch"] == 7 and read["size"] == (3, 4)
    assert read["base"].data_ptr() + 4 == read["strided"].data_ptr(), "storage no longer shared"


@pytest.mark.parametrize("is_zip", [True, False], ids=["zip", "legacy"])
def test_checkpoints_with_code_are_refused(tmp_path: Path, is_zip: bool) -> None:
    content = {"w": torch.ones(2), "x": _Planted(os.system, "false")}
    torch.save(content, tmp_path / "model.pt", _use_new_zipfile_serialization=is_zip)
    with pytest.raises(UnsafePickle, match="system"):
        read_checkpoint(tmp_path / "model.pt")


def test_tensor_beyond_its_storage_is_refused(tmp_path: Path) -> None:
    torch.save(torch.arange(4.0), tmp_path / "good.pt")
    with (
        zipfile.ZipFile(tmp_path / "good.pt") as good,
        zipfile.ZipFile(tmp_path / "bad.pt", "w") as bad,
    ):
        for name in good.namelist():
            data = good.read(name)
            if name.endswith("data.pkl"):  # size (4,) -> (5,)
                assert data.count(b"K\x04\x85") == 1
                data = data.replace(b"K\x04\x85", b"K\x05\x85")
            bad.writestr(name, data)
    with pytest.raises(UnsafePickle, match="beyond its storage"):
        read_checkpoint(tmp_path / "bad.pt")


def test_legacy_checkpoint_cannot_reserve_more_than_its_file(tmp_path: Path) -> None:
    torch.save(torch.arange(4.0), tmp_path / "good.pt", _use_new_zipfile_serialization=False)
    data = (tmp_path / "good.pt").read_bytes()
    marker = b"cpuq\x04K\x04"
    assert data.count(marker) == 1, "the layout of torch's legacy files has changed"
    bad = data.replace(marker, b"cpuq\x04J\xff\xff\xff\x7f")
    with pytest.raises(UnsafePickle, match="more values than the file"):
        read_checkpoint(bad)


def test_object_npy_with_tensors(tmp_path: Path) -> None:
    content = {"idx": np.arange(3), "bary": torch.ones(3, 3)}
    np.save(tmp_path / "embedding.npy", np.array(content, dtype=object), allow_pickle=True)
    read = read_npy(tmp_path / "embedding.npy")
    np.testing.assert_array_equal(read["idx"], [0, 1, 2])
    assert torch.equal(read["bary"], torch.ones(3, 3))
    np.save(tmp_path / "plain.npy", np.eye(2))
    np.testing.assert_array_equal(read_npy(tmp_path / "plain.npy"), np.eye(2))


@pytest.mark.skipif(not PANOHEAD_TINY.is_file(), reason="PanoHead parity files not at hand")
def test_panohead_release_reads_as_inert_records() -> None:
    with pytest.raises(UnsafePickle, match="_reconstruct_persistent_obj"):
        read_pickle(PANOHEAD_TINY)
    generator = read_pickle(PANOHEAD_TINY, records=PANOHEAD_RECORDS)["G_ema"]
    assert isinstance(generator, Record)
    (meta,) = generator.arguments
    assert meta["class_name"] == "TriPlaneGenerator"
    state = meta["state"]
    assert state["rendering_kwargs"]

    def tensors(module: dict[str, Any]) -> int:
        found = 0
        for group in ("_parameters", "_buffers"):
            found += sum(isinstance(v, torch.Tensor) for v in module[group].values())
        for child in module["_modules"].values():
            child_state = child.arguments[0]["state"] if child.arguments else child.state
            found += tensors(child_state)
        return found

    keys = json.loads((PANOHEAD_TINY.parent / "keys_tiny.json").read_text())
    n_expected = len(keys)
    assert tensors(state) == n_expected


def test_records_are_kept_only_for_allowed_names() -> None:
    data = pickle.dumps({"when": _Planted(Path, "a", "b")})
    with pytest.raises(UnsafePickle, match="pathlib"):
        read_pickle(data)
    record = read_pickle(data, records=["pathlib.Path"])["when"]
    assert record == Record("pathlib.Path", ("a", "b"))
