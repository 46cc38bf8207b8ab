"""FLAME's files: read without executing anything, checked, stored."""

from __future__ import annotations

import importlib.util
import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.sparse
import torch
from typer.testing import CliRunner

from fc4d_ray.cli import app
from fc4d_ray.errors import ConfigError, ModelFileError, UnsafePickle, WeightsMissing
from fc4d_ray.heads.flame_files import (
    MASK_NAMES,
    edition_of,
    import_flame,
    load_flame,
    read_flame_model,
    read_landmark_embedding,
    read_masks,
)
from fc4d_ray.heads.flame_regions import region_faces, skin_vertices, vertex_regions
from fc4d_ray.heads.rig import Region

SHARED = Path(__file__).resolve().parents[2].parent / "shared"
KIT = SHARED / "parity" / "flame"


class _Call:
    """Pickles as a call of ``function``; loading it with ``pickle`` would make that call."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self._call = (function, arguments)

    def __reduce__(self) -> tuple[Any, ...]:
        return self._call


@pytest.fixture(scope="module")
def members() -> dict[str, Any]:
    """The kit's model as the publishers' dict, its regressor sparse as theirs is."""
    if not KIT.is_dir():
        pytest.skip("the flame parity kit is not beside the repository")
    spec = importlib.util.spec_from_file_location("flame_synthetic", KIT / "synthetic.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    model = module.build(0)
    model["J_regressor"] = scipy.sparse.csc_matrix(model["J_regressor"])
    model["shapedirs"] = model["shapedirs"].astype(np.float32)
    return model | {"landmarks": module.landmark_embedding(0)}


@pytest.fixture(scope="module")
def folder(members, tmp_path_factory) -> Path:
    """A user's folder, under the usual names; the embedding holds torch tensors as theirs does."""
    folder = tmp_path_factory.mktemp("flame")
    model = {n: v for n, v in members.items() if n != "landmarks"}
    (folder / "flame2023.pkl").write_bytes(pickle.dumps(model, protocol=2))
    embedding = dict(members["landmarks"])
    for name in ("full_lmk_faces_idx", "full_lmk_bary_coords"):
        embedding[name] = torch.from_numpy(embedding[name])
    np.save(folder / "landmark_embedding_with_eyes.npy", np.array(embedding, object))
    masks = {name: np.arange(30 * i, 30 * i + 40) for i, name in enumerate(MASK_NAMES)}
    (folder / "FLAME_masks.pkl").write_bytes(pickle.dumps(masks, protocol=2))
    return folder


def test_a_folder_is_imported_and_read_back(folder, members, tmp_path) -> None:
    report = import_flame(folder, directory=tmp_path)
    assert report.edition == "flame2023" and report.has_landmarks and report.has_masks
    files = load_flame("flame2023", tmp_path)
    assert files.digest == report.digest and len(report.digest) == 64
    np.testing.assert_array_equal(files.arrays.template, members["v_template"])
    np.testing.assert_array_equal(files.arrays.joint_regressor, members["J_regressor"].toarray())
    np.testing.assert_array_equal(
        files.landmarks.faces, members["landmarks"]["full_lmk_faces_idx"][0]
    )
    assert files.landmarks.dynamic_faces.shape == (79, 17)
    assert set(files.masks) == set(MASK_NAMES)


def test_the_command_stores_among_the_assets(folder, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("FC4D_ASSETS", str(tmp_path))
    result = CliRunner().invoke(
        app, ["assets", "import", "flame", str(folder / "flame2023.pkl"), "--edition", "flame2020"]
    )
    assert result.exit_code == 0, result.output
    assert (tmp_path / "flame" / "flame2020.npz").is_file() and "sha256" in result.stdout
    assert load_flame("flame2020").edition == "flame2020"
    missing = CliRunner().invoke(app, ["assets", "import", "flame", str(tmp_path / "no.pkl")])
    assert missing.exit_code != 0 and not isinstance(missing.exception, FileNotFoundError)


def test_hostile_pickles_are_refused_by_name_and_nothing_runs(tmp_path) -> None:
    trap = tmp_path / "executed"
    payloads = {
        "posix.system": _Call(os.system, f"touch {trap}"),
        "builtins.eval": _Call(eval, f"open({str(trap)!r}, 'w')"),
        "builtins.exec": _Call(exec, f"open({str(trap)!r}, 'w')"),
        "io.open": _Call(open, str(trap), "w"),
        "os.putenv": _Call(os.makedirs, str(trap)),
        "subprocess.Popen": _Call(__import__("subprocess").Popen, ["touch", str(trap)]),
        "numpy.load": _Call(np.load, str(trap)),
    }
    for protocol in (0, 2, 4):
        for name, payload in payloads.items():
            path = tmp_path / f"flame2023_{protocol}.pkl"
            path.write_bytes(
                pickle.dumps({"v_template": payload, "f": np.zeros(3)}, protocol=protocol)
            )
            leaf = "makedirs" if name == "os.putenv" else name.rpartition(".")[2]
            with pytest.raises(UnsafePickle, match=rf"{leaf}'"):
                read_flame_model(path)
            with pytest.raises(UnsafePickle, match=rf"{leaf}'"):
                read_masks(path)
            npy = tmp_path / "landmark_embedding.npy"
            np.save(npy, np.array({"full_lmk_faces_idx": payload}, object))
            with pytest.raises(UnsafePickle, match=rf"{leaf}'"):
                read_landmark_embedding(npy)
    assert not trap.exists(), "a payload was executed"


@pytest.mark.skipif(not KIT.is_dir(), reason="the flame parity kit is not beside the repository")
@pytest.mark.parametrize("index", [0, 1, 2])
def test_the_kits_unsafe_files_are_refused(index) -> None:
    with pytest.raises(UnsafePickle, match="asks for"):
        read_flame_model(KIT / f"fixture_unsafe_{index}.pkl")


def test_another_edition_a_missing_basis_and_a_truncated_file_are_named(
    members, folder, tmp_path
) -> None:
    model = {n: v for n, v in members.items() if n != "landmarks"}

    def write(**changes: Any) -> Path:
        path = tmp_path / "model.pkl"
        changed = {n: v for n, v in (model | changes).items() if v is not None}
        path.write_bytes(pickle.dumps(changed, protocol=2))
        return path

    with pytest.raises(ModelFileError, match="v_template: expected shape .5023, 3., found .5118"):
        read_flame_model(write(v_template=np.zeros((5118, 3))))
    with pytest.raises(ModelFileError, match="no posedirs"):
        read_flame_model(write(posedirs=None))
    with pytest.raises(ModelFileError, match="shapedirs: expected shape"):
        read_flame_model(write(shapedirs=members["shapedirs"][..., :300]))
    with pytest.raises(ModelFileError, match="weights holds values"):
        read_flame_model(write(weights=np.full((5023, 5), np.nan)))
    with pytest.raises(ModelFileError, match="parents"):
        read_flame_model(write(kintree_table=np.zeros((2, 5), np.int64)))
    whole = (folder / "flame2023.pkl").read_bytes()
    cut = tmp_path / "flame2023.pkl"
    cut.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UnsafePickle, match="truncated"):
        read_flame_model(cut)
    stored = import_flame(folder, directory=tmp_path).path
    stored.write_bytes(stored.read_bytes()[:-5000])
    with pytest.raises(ModelFileError, match="damaged"):
        load_flame("flame2023", tmp_path)


def test_editions_are_told_by_name_and_the_one_without_jaw_is_refused(tmp_path) -> None:
    assert edition_of(Path("generic_model.pkl")) == "flame2020"
    assert edition_of(Path("flame2023_Open.pkl")) == "flame2023-open"
    with pytest.raises(ModelFileError, match="without jaw rotation"):
        edition_of(Path("flame2023_no_jaw.pkl"))
    with pytest.raises(ConfigError, match="--edition"):
        edition_of(Path("model.pkl"))
    with pytest.raises(ConfigError, match="flame2024"):
        import_flame(tmp_path, edition="flame2024")
    with pytest.raises(ConfigError, match="found none"):
        import_flame(tmp_path)
    with pytest.raises(WeightsMissing, match="assets import flame"):
        load_flame("flame2023", tmp_path)


def test_regions_follow_the_masks() -> None:
    masks = {
        "face": np.arange(0, 100), "scalp": np.arange(90, 200), "neck": np.arange(200, 260),
        "left_ear": np.arange(180, 190), "boundary": np.arange(250, 260),
        "left_eyeball": np.arange(300, 310), "lips": np.arange(40, 50),
    }  # fmt: skip
    region = vertex_regions(masks, 5143)
    assert (region[:100] == Region.FACE).all() and (region[100:180] == Region.SCALP).all()
    assert (region[180:190] == Region.EAR).all() and (region[250:260] == Region.BUST).all()
    assert (region[5023:] == Region.TEETH).all() and region[305] == Region.EYE
    skin = skin_vertices(masks, 5143)
    assert skin[:40].all() and not skin[40:50].any() and skin[95] and not skin[150]
    assert not skin[5023:].any() and not skin[300:310].any()
    faces = np.array([[0, 1, 2], [2, 3, 200], [40, 41, 42]])
    assert region_faces(faces, masks["face"]).tolist() == [0, 2]
