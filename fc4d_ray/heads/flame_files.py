"""FLAME's files: the publishers' own, read safely, and ours, one plain npz per edition.

Users bring the model (a Python 2 pickle with chumpy and scipy members, or an npz with the same
keys), the landmark embedding and the region masks. Nothing in them is executed
(``assets/safe_pickle.py``). ``import_flame`` checks them and stores what the package needs; the
digest of the stored arrays names the release, because parameters only mean something with it.
"""

from __future__ import annotations

import hashlib
import os
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fc4d_ray.assets.pickle_values import SparseMatrix
from fc4d_ray.assets.registry import assets_directory
from fc4d_ray.assets.safe_pickle import read_npy, read_pickle
from fc4d_ray.errors import ConfigError, ModelFileError, StoreError, WeightsMissing
from fc4d_ray.heads.flame import N_EXPRESSION, N_IDENTITY, PARENTS
from fc4d_ray.heads.flame_landmarks import LandmarkEmbedding
from fc4d_ray.heads.flame_teeth import FLAME_FACES, FLAME_JOINTS, FLAME_VERTICES, FlameArrays

EDITIONS = ("flame2020", "flame2023", "flame2023-open")
FORMAT = 1
MASK_NAMES = (
    "face", "neck", "scalp", "boundary", "right_eyeball", "left_eyeball", "right_ear", "left_ear",
    "forehead", "eye_region", "nose", "lips", "right_eye_region", "left_eye_region",
)  # fmt: skip
_MODEL_NAMES = {
    "generic_model": "flame2020",
    "flame2020": "flame2020",
    "flame2023": "flame2023",
    "flame2023_open": "flame2023-open",
    "flame2023open": "flame2023-open",
}
_ROOT_PARENTS = (-1, 4294967295)
_KEYS = ("v_template", "f", "shapedirs", "posedirs", "J_regressor", "weights", "kintree_table")


@dataclass(frozen=True)
class FlameFiles:
    """One edition with everything that belongs to it."""

    arrays: FlameArrays
    """5023 vertices, without teeth."""
    edition: str
    landmarks: LandmarkEmbedding | None = None
    masks: Mapping[str, NDArray[np.int64]] = field(default_factory=dict)
    """Vertex ids by region; empty where no mask file was imported."""

    @property
    def digest(self) -> str:
        """SHA-256 of the model's arrays: which release parameters belong to."""
        sha = hashlib.sha256()
        for name in FlameArrays.__dataclass_fields__:
            array = np.ascontiguousarray(getattr(self.arrays, name))
            sha.update(f"{name} {array.shape} {array.dtype.str}".encode())
            sha.update(array.tobytes())
        return sha.hexdigest()


def read_flame_model(path: Path) -> FlameArrays:
    """The model's arrays from a pickle of the publishers, or an npz with the same keys.

    Raises:
        UnsafePickle: the pickle asks for something that is no plain data, or is cut short.
        ModelFileError: no FLAME model of 5023 vertices, 300 + 100 bases and five joints.
        WeightsMissing: there is no such file.
    """
    members = _members(path, read_pickle)
    missing = [key for key in _KEYS if key not in members]
    if missing:
        raise ModelFileError(f"{path} is no FLAME model: it has no {', '.join(missing)}")
    shapes = {
        "v_template": (FLAME_VERTICES, 3),
        "f": (FLAME_FACES, 3),
        "shapedirs": (FLAME_VERTICES, 3, N_IDENTITY + N_EXPRESSION),
        "posedirs": (FLAME_VERTICES, 3, 9 * (FLAME_JOINTS - 1)),
        "J_regressor": (FLAME_JOINTS, FLAME_VERTICES),
        "weights": (FLAME_VERTICES, FLAME_JOINTS),
        "kintree_table": (2, FLAME_JOINTS),
    }
    found = {key: _array(path, key, members[key], shape) for key, shape in shapes.items()}
    parents = found["kintree_table"][0].astype(np.int64)
    if parents[0] not in _ROOT_PARENTS or tuple(parents[1:]) != PARENTS[1:]:
        raise ModelFileError(f"{path}: expected the joints' parents {PARENTS}, found {parents}")
    faces = found["f"].astype(np.int64)
    if faces.min() < 0 or faces.max() >= FLAME_VERTICES:
        raise ModelFileError(f"{path}: faces name vertices outside 0..{FLAME_VERTICES - 1}")
    if not np.allclose(found["weights"].sum(1), 1, atol=1e-4):
        raise ModelFileError(f"{path}: skinning weights must sum to one")
    return FlameArrays(
        found["v_template"], faces, found["shapedirs"], found["posedirs"],
        found["J_regressor"], found["weights"],
    )  # fmt: skip


def read_landmark_embedding(path: Path) -> LandmarkEmbedding:
    """The landmark embedding from the publishers' ``.npy`` or an npz with the same keys."""
    return LandmarkEmbedding.from_file_arrays(_members(path, read_npy), FLAME_FACES)


def read_masks(path: Path) -> dict[str, NDArray[np.int64]]:
    """Vertex ids by region from ``FLAME_masks.pkl`` or an npz with the same keys."""
    members = _members(path, read_pickle)
    missing = [name for name in MASK_NAMES if name not in members]
    if missing:
        raise ModelFileError(f"{path} is no FLAME mask file: it has no {', '.join(missing)}")
    masks = {name: np.asarray(members[name]).astype(np.int64).ravel() for name in MASK_NAMES}
    for name, ids in masks.items():
        if ids.size and not (ids.min() >= 0 and ids.max() < FLAME_VERTICES):
            raise ModelFileError(f"{path}: region {name} names vertices outside the model")
    return masks


def edition_of(path: Path) -> str:
    """Edition that a file's usual name stands for.

    Raises:
        ModelFileError: the edition without jaw rotation, which the tracker cannot use.
        ConfigError: the name tells nothing.
    """
    stem = path.stem.lower().replace("-", "_").replace(" ", "_")
    if "no_jaw" in stem:
        raise ModelFileError(
            f"{path.name} is the edition without jaw rotation in its scans; FLAME 2023 with jaw "
            "rotation (flame2023.pkl) is needed"
        )
    if stem in _MODEL_NAMES:
        return _MODEL_NAMES[stem]
    raise ConfigError(
        f"the name {path.name} does not tell the edition; say --edition {' or '.join(EDITIONS)}"
    )


@dataclass(frozen=True)
class ImportReport:
    """What an import stored."""

    path: Path
    edition: str
    digest: str
    has_landmarks: bool
    has_masks: bool


def import_flame(
    source: Path,
    *,
    edition: str | None = None,
    landmarks: Path | None = None,
    masks: Path | None = None,
    directory: Path | None = None,
) -> ImportReport:
    """Check a user's FLAME files and store them as ``flame/<edition>.npz`` among the assets.

    ``source`` is the model file, or a folder with it and the side files under their usual names.

    Raises ``UnsafePickle``, ``ModelFileError``, ``WeightsMissing`` or ``ConfigError``.
    """
    if edition is not None and edition not in EDITIONS:
        raise ConfigError(f"--edition must be one of {', '.join(EDITIONS)}, found {edition!r}")
    folder = source if source.is_dir() else source.parent
    model = _model_in(source, edition) if source.is_dir() else source
    edition = edition or edition_of(model)
    landmarks = landmarks or _first(folder, "*landmark_embedding*.np[yz]")
    masks = masks or _first(folder, "*FLAME_masks*.pkl")
    files = FlameFiles(
        read_flame_model(model),
        edition,
        read_landmark_embedding(landmarks) if landmarks else None,
        read_masks(masks) if masks else {},
    )
    path = (directory or assets_directory()) / "flame" / f"{edition}.npz"
    write_flame(files, path)
    return ImportReport(path, edition, files.digest, landmarks is not None, masks is not None)


def write_flame(files: FlameFiles, path: Path) -> None:
    """Write our npz; it appears under its name only when complete."""
    arrays: dict[str, Any] = {
        "format": np.array(FORMAT),
        "edition": np.array(files.edition),
        "digest": np.array(files.digest),
    }
    arrays |= {n: getattr(files.arrays, n) for n in FlameArrays.__dataclass_fields__}
    if files.landmarks is not None:
        for name in LandmarkEmbedding.__dataclass_fields__:
            if (value := getattr(files.landmarks, name)) is not None:
                arrays[f"landmarks.{name}"] = value
    arrays |= {f"mask.{name}": ids for name, ids in files.masks.items()}
    scratch = path.with_name(f".{path.name}.{os.getpid()}.npz")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        np.savez(scratch, **arrays)
        scratch.replace(path)
    except OSError as error:
        scratch.unlink(missing_ok=True)
        raise StoreError(f"cannot write {path}: {error.strerror}") from error


def flame_path(edition_or_path: str | Path, directory: Path | None = None) -> Path:
    """Where an imported edition lies; ``WeightsMissing`` where it is not."""
    path = Path(edition_or_path)
    if str(edition_or_path) in EDITIONS:
        path = (directory or assets_directory()) / "flame" / f"{edition_or_path}.npz"
    if not path.is_file():
        raise WeightsMissing(
            f"FLAME {edition_or_path} not found at {path}; get it from "
            "https://flame.is.tue.mpg.de (registration) and store it with "
            "`fc4d assets import flame PATH`"
        )
    return path


def load_flame(edition_or_path: str | Path, directory: Path | None = None) -> FlameFiles:
    """An imported edition by its name, or the npz itself by its path.

    Raises:
        WeightsMissing: it was not imported; the message says how.
        ModelFileError: the file is no import of this package, or damaged.
    """
    path = flame_path(edition_or_path, directory)
    try:
        with np.load(path, allow_pickle=False) as file:
            members = {name: file[name] for name in file.files}
        arrays = FlameArrays(*(members[n] for n in FlameArrays.__dataclass_fields__))
        version, digest = int(members["format"]), str(members["digest"])
        files = FlameFiles(
            arrays, str(members["edition"]), _stored_landmarks(members), _stored_masks(members)
        )
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise ModelFileError(f"{path} is no imported FLAME file or damaged: {error}") from error
    if version != FORMAT or files.digest != digest:
        raise ModelFileError(f"{path} is damaged or of another format; import FLAME again")
    return files


def _stored_landmarks(members: Mapping[str, NDArray]) -> LandmarkEmbedding | None:
    if "landmarks.faces" not in members:
        return None
    return LandmarkEmbedding(
        *(members.get(f"landmarks.{n}") for n in LandmarkEmbedding.__dataclass_fields__)
    )


def _stored_masks(members: Mapping[str, NDArray]) -> dict[str, NDArray]:
    return {n.removeprefix("mask."): a for n, a in members.items() if n.startswith("mask.")}


def _members(path: Path, read: Any) -> Mapping[str, Any]:
    if not path.is_file():
        raise WeightsMissing(f"there is no file {path}")
    if zipfile.is_zipfile(path) or path.suffix == ".npz":
        try:
            with np.load(path, allow_pickle=False) as file:
                return {name: file[name] for name in file.files}
        except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
            raise ModelFileError(f"{path} cannot be read: {error}") from error
    value = read(path)
    if not isinstance(value, Mapping):
        raise ModelFileError(f"{path}: expected a dict of arrays, found {type(value).__name__}")
    return value


def _array(path: Path, key: str, value: Any, shape: tuple[int, ...]) -> NDArray:
    array = value.to_dense() if isinstance(value, SparseMatrix) else np.asarray(value)
    if array.shape != shape:
        raise ModelFileError(
            f"{path}: {key}: expected shape {shape}, found {array.shape}: another edition or model"
        )
    if array.dtype.kind not in "fiu" or not np.isfinite(array).all():
        raise ModelFileError(f"{path}: {key} holds values that are no finite numbers")
    return array


def _model_in(folder: Path, edition: str | None) -> Path:
    found = {}
    for path in sorted(folder.glob("*.pkl")) + sorted(folder.glob("*.npz")):
        name = _MODEL_NAMES.get(path.stem.lower().replace("-", "_"))
        if name is not None and edition in (None, name):
            found.setdefault(name, path)
    if len(found) != 1:
        known = "generic_model.pkl, flame2023.pkl, flame2023_Open.pkl"
        raise ConfigError(
            f"{folder}: expected one of {known}, found "
            f"{', '.join(p.name for p in found.values()) or 'none'}; name the file itself"
        )
    return next(iter(found.values()))


def _first(folder: Path, pattern: str) -> Path | None:
    return next(iter(sorted(folder.glob(pattern))), None)
