"""A finished avatar: splats, the rig that moves them, and one file that holds both."""

from __future__ import annotations

import importlib
import json
import os
import uuid
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Any, Protocol, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fc4d_ray.avatar.binding import Attachment, WorldSplats, face_frames, local_to_world
from fc4d_ray.avatar.gaussians import Gaussians
from fc4d_ray.avatar.splatting import render_splats
from fc4d_ray.avatar.stretch import triangle_shape
from fc4d_ray.cameras import Camera
from fc4d_ray.errors import StoreError
from fc4d_ray.heads.protocol import PosableMesh

FILE_NAME = "rig.npz"
FORMAT_VERSION = 2


class Rig(PosableMesh, Protocol):
    """A head that can be stored as plain arrays; ``from_arrays`` is its static inverse."""

    @property
    def kind(self) -> str:
        """Name the class is registered under."""

    def to_arrays(self) -> dict[str, NDArray]:
        """Everything the rig needs, no pickled objects."""


RIG_CLASSES: Mapping[str, str | type] = MappingProxyType(
    {"anny": "fc4d_ray.heads.rig:HeadRig", "flame": "fc4d_ray.heads.flame_rig:FlameRig"}
)
"""Class of each kind of rig, or ``module:class`` to import when one is loaded."""


@dataclass(frozen=True)
class Avatar:
    """Splats bound to a rig; animated by the rig's parameters alone."""

    gaussians: Gaussians
    """With baked offsets."""
    rig: Rig
    metadata: Mapping[str, Any] = field(default_factory=dict)
    """JSON values that travel with the avatar: its id, licence, how it was made."""
    attachment: Attachment = "similarity"
    """How the splats follow their triangles; that which they were trained with."""

    def __post_init__(self) -> None:
        if self.attachment not in get_args(Attachment):
            raise ValueError(
                f"attachment must be one of {get_args(Attachment)}, found {self.attachment!r}"
            )

    @torch.no_grad()
    def splats(self, parameters: Mapping[str, Tensor]) -> WorldSplats:
        """World-space splats for one frame of parameters, (d,) or (1, d) each.

        Parameters left out are zero. A rig with other parameters that knows what ARKit actions
        mean takes ``actions`` and ``neck`` as well. Raises ``ValueError`` on unknown names and
        wrong sizes.
        """
        vertices = self.rig.pose(self._complete(parameters))[0].to(self.gaussians.device)
        faces = torch.as_tensor(self.rig.faces).long().to(self.gaussians.device)
        rest = None if self._rest_shape is None else self._rest_shape.to(faces.device)
        frames = face_frames(vertices, faces, rest)
        frames = frames.gather(self.gaussians.binding)
        return local_to_world(self.gaussians, frames)

    @torch.no_grad()
    def render(
        self,
        camera: Camera,
        parameters: Mapping[str, Tensor],
        background: tuple[float, float, float] | None = None,
    ) -> Tensor:
        """Picture (H, W, 4) float in [0, 1].

        Over a ``background`` the colours are composited; without one they are straight (not
        premultiplied), ready for a PNG, and 0 where alpha is 0.
        """
        splats = self.splats(parameters)
        colour = splats.means.new_tensor(background or (0.0, 0.0, 0.0))
        drawn = render_splats(splats, camera, colour)
        alpha = drawn.alpha[..., None]
        image = drawn.image
        if background is None:
            image = torch.where(alpha > 0, image / alpha.clamp_min(1e-6), 0)
        return torch.cat([image, alpha], -1).clamp(0, 1)

    def save(self, directory: Path) -> Path:
        """Write ``rig.npz`` into a directory and return its path; equal avatars, equal bytes."""
        path = Path(directory) / FILE_NAME
        arrays: dict[str, Any] = {
            "format_version": np.array(FORMAT_VERSION, np.int32),
            "kind": np.array(self.rig.kind),
            "attachment": np.array(self.attachment),
            "metadata": np.array(json.dumps(dict(self.metadata), sort_keys=True)),
        }
        arrays |= {f"rig.{name}": value for name, value in self.rig.to_arrays().items()}
        arrays |= {f"splats.{name}": value for name, value in self.gaussians.to_arrays().items()}
        temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
        try:
            with open(temporary, "wb") as file:
                np.savez_compressed(file, **arrays)
            os.replace(temporary, path)
        except OSError as error:
            temporary.unlink(missing_ok=True)
            raise StoreError(f"cannot write avatar {path}: {error.strerror}") from error
        return path

    @staticmethod
    def load(directory: Path, rig_classes: Mapping[str, str | type] = RIG_CLASSES) -> Avatar:
        """Read ``rig.npz`` of a directory, or the file itself.

        Raises ``StoreError`` naming the file where it is absent, damaged or of another format.
        """
        path = Path(directory)
        path = path / FILE_NAME if path.is_dir() else path
        arrays = _read_arrays(path)
        version = int(arrays.get("format_version", np.array(-1)))
        if version != FORMAT_VERSION:
            raise StoreError(
                f"{path} is no avatar of format {FORMAT_VERSION} (found {version}); "
                "publish it again with this version"
            )
        kind = str(arrays["kind"])
        if kind not in rig_classes:
            raise StoreError(f"{path} needs a rig of kind {kind!r}; known: {sorted(rig_classes)}")
        try:
            rig = _resolve(rig_classes[kind]).from_arrays(_with_prefix(arrays, "rig."))
            gaussians = Gaussians.from_arrays(_with_prefix(arrays, "splats."))
            metadata = json.loads(str(arrays["metadata"]))
            attachment = str(arrays["attachment"])
        except (KeyError, ValueError) as error:
            raise StoreError(f"avatar {path} is incomplete or damaged: {error}") from error
        if len(gaussians) and not 0 <= int(gaussians.binding.min()) <= int(
            gaussians.binding.max()
        ) < len(rig.faces):
            raise StoreError(f"avatar {path} binds splats to faces its rig does not have")
        if attachment not in get_args(Attachment):
            raise StoreError(f"avatar {path} attaches its splats in an unknown way: {attachment!r}")
        return Avatar(gaussians, rig, metadata, attachment)

    @cached_property
    def _rest_shape(self) -> Tensor | None:
        """``triangle_shape`` (F, 3) of the rig with all parameters zero, where it matters."""
        if self.attachment == "similarity":
            return None
        neutral = self.rig.pose(self._complete({}))[0]
        return triangle_shape(neutral, torch.as_tensor(self.rig.faces).long())

    def _complete(self, parameters: Mapping[str, Tensor]) -> dict[str, Tensor]:
        sizes = dict(self.rig.parameter_sizes)
        if "actions" in parameters and "actions" not in sizes:
            parameters = self._from_motion(parameters)
        unknown = set(parameters) - set(sizes)
        if unknown:
            raise ValueError(f"unknown parameters {sorted(unknown)}; the rig has {sorted(sizes)}")
        complete = {}
        for name, size in sizes.items():
            value = parameters.get(name)
            value = torch.zeros(size) if value is None else torch.as_tensor(value)
            if value.numel() != size:
                raise ValueError(f"parameter {name} has {value.numel()} values, expected {size}")
            complete[name] = value.reshape(1, size).float()
        return complete

    def _from_motion(self, parameters: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The rig's own parameters for ``actions`` and ``neck``; others given win."""
        convert = getattr(self.rig, "parameters_from_motion", None)
        if convert is None:
            raise ValueError(f"a rig of kind {self.rig.kind!r} takes no ARKit actions")
        neck = torch.as_tensor(parameters.get("neck", torch.zeros(3))).reshape(1, 3)
        moved = convert(torch.as_tensor(parameters["actions"]).reshape(1, -1), neck)
        return moved | {n: v for n, v in parameters.items() if n not in ("actions", "neck")}


def _read_arrays(path: Path) -> dict[str, NDArray]:
    try:
        with np.load(path, allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    except FileNotFoundError as error:
        raise StoreError(f"no avatar at {path}") from error
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, AttributeError) as error:
        raise StoreError(f"avatar {path} cannot be read: {error}") from error


def _with_prefix(arrays: Mapping[str, NDArray], prefix: str) -> dict[str, NDArray]:
    return {n.removeprefix(prefix): a for n, a in arrays.items() if n.startswith(prefix)}


def _resolve(entry: str | type) -> Any:
    if not isinstance(entry, str):
        return entry
    module, name = entry.split(":")
    return getattr(importlib.import_module(module), name)
