"""Folders of the GaussianAvatars program: local splats bound to faces, and FLAME parameters."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from fc4d_ray.avatar.formats.splat_table import read_splat_table, write_splat_table
from fc4d_ray.avatar.gaussians import Gaussians
from fc4d_ray.errors import StoreError

SPLATS_FILE = "point_cloud.ply"
PARAMETERS_FILE = "flame_param.npz"
_BINDING = "binding_0"


def write_gaussian_avatars(
    directory: Path, gaussians: Gaussians, parameters: Mapping[str, NDArray]
) -> None:
    """Write ``point_cloud.ply`` (local values, ``binding_0``) and ``flame_param.npz``.

    ``parameters`` are FLAME's, (T, d) each: expr, rotation, neck_pose, jaw_pose, eyes_pose,
    translation; shape (300,) and static_offset (V, 3). Stored as float32 under their names.
    """
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    arrays = gaussians.to_arrays()
    binding = arrays.pop("binding").astype(np.float32)
    write_splat_table(directory / SPLATS_FILE, **arrays, extra={_BINDING: binding})
    np.savez(
        directory / PARAMETERS_FILE,
        **{name: np.asarray(value, np.float32) for name, value in parameters.items()},
    )


def read_gaussian_avatars(directory: Path) -> tuple[Gaussians, dict[str, NDArray[np.float32]]]:
    """Splats and FLAME parameters; the latter empty where the folder holds none.

    Raises ``StoreError`` naming the file where one is damaged, or the splats are not bound.
    """
    directory = Path(directory)
    path = directory / SPLATS_FILE
    columns = read_splat_table(path)
    if _BINDING not in columns:
        raise StoreError(f"{path} holds no {_BINDING}: its splats are not bound to a mesh")
    binding = torch.from_numpy(columns.pop(_BINDING).round().astype(np.int64))
    names = ("positions", "log_scales", "quats", "opacity_logits", "sh0", "shN")
    gaussians = Gaussians(**{n: torch.from_numpy(columns[n]) for n in names}, binding=binding)
    return gaussians, _read_parameters(directory / PARAMETERS_FILE)


def _read_parameters(path: Path) -> dict[str, NDArray[np.float32]]:
    if not path.exists():
        return {}
    try:
        with np.load(path, allow_pickle=False) as file:
            return {name: file[name].astype(np.float32) for name in file.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise StoreError(f"{path} cannot be read: {error}") from error
