"""Driving signals in FLAME's parameters: as trackers write them, and how they reach either head.

Read are VHAP's result (one npz per sequence), the folders made of it for avatar training (one npz
per time step under ``flame_param/``, NeRSemble's layout among them), and what this package writes,
which is VHAP's form. Coefficients mean something only with the FLAME release they were found with.
"""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from fc4d_ray.errors import ConfigError
from fc4d_ray.heads.expression_conversion import ExpressionConversion
from fc4d_ray.heads.flame import FlameModel
from fc4d_ray.priors.video.motion import ACTION_NAMES, MotionClip

DEFAULT_FPS = 25.0
"""Rate assumed where a file names none."""
_STORED = {
    "expr": ("expr", 100), "rotation": ("rotation", 3), "neck": ("neck_pose", 3),
    "jaw": ("jaw_pose", 3), "eyes": ("eyes_pose", 6), "translation": ("translation", 3),
}  # fmt: skip
"""Our name, the name in files, and the full width."""
_PARAMETER_FOLDER = "flame_param"


@dataclass(frozen=True)
class FlameMotion:
    """T frames of FLAME parameters at a constant rate."""

    name: str
    fps: float
    parameters: Mapping[str, NDArray[np.float32]]
    """``expr`` (T, E), ``rotation``, ``neck``, ``jaw``, ``translation`` (T, 3), ``eyes`` (T, 6)"""
    shape: NDArray[np.float32] | None = None
    """(S,) identity of whoever was tracked; driving does not use it."""

    def __post_init__(self) -> None:
        if not np.isfinite(self.fps) or self.fps <= 0:
            raise ConfigError(f"FLAME motion {self.name}: fps must be positive, found {self.fps}")
        count = self.n_frames
        if count == 0:
            raise ConfigError(f"FLAME motion {self.name}: there are no frames")
        for name, (_, width) in _STORED.items():
            value = self.parameters.get(name)
            if value is None:
                raise ConfigError(f"FLAME motion {self.name}: {name} is missing")
            fits = value.shape == (count, width) or (
                name == "expr" and value.ndim == 2 and len(value) == count
            )
            if not fits:
                raise ConfigError(
                    f"FLAME motion {self.name}: expected {name} ({count}, {width}), "
                    f"found {value.shape}"
                )
            if not np.isfinite(value).all():
                frame = int(np.argwhere(~np.isfinite(value))[0][0])
                raise ConfigError(f"FLAME motion {self.name}: {name} is no number in frame {frame}")

    @property
    def n_frames(self) -> int:
        return len(self.parameters["expr"])

    def to_clip(self, conversion: ExpressionConversion, model: FlameModel) -> MotionClip:
        """The same motion as ARKit actions; the head's own turn is left out, the neck's kept.

        ``model`` is the FLAME release the parameters belong to, with its mean identity.
        Raises ``ConfigError`` where the conversion's actions are not ARKit's.
        """
        if conversion.action_names != ACTION_NAMES:
            raise ConfigError("the conversion is not one between ARKit's actions and FLAME")
        tensors = {n: torch.from_numpy(np.asarray(v)) for n, v in self.parameters.items()}
        actions, _ = conversion.to_actions(model, tensors)
        neck = np.asarray(self.parameters["neck"], np.float32)
        return MotionClip(self.name, self.fps, actions.clip(0, 1), neck)


def flame_motion_from_clip(clip: MotionClip, conversion: ExpressionConversion) -> FlameMotion:
    """FLAME parameters of an ARKit clip."""
    found = conversion.to_flame(torch.from_numpy(clip.actions))
    zeros = np.zeros((clip.n_frames, 3), np.float32)
    parameters = {n: v.numpy() for n, v in found.items()}
    parameters |= {"neck": clip.neck, "rotation": zeros, "translation": zeros}
    return FlameMotion(clip.name, clip.fps, parameters)


def read_flame_motion(path: Path, fps: float | None = None) -> FlameMotion:
    """A sequence file of VHAP's, or a folder with one file per time step.

    Raises ``ConfigError`` where it is neither, lacks a parameter, or holds no numbers.
    """
    if path.is_dir():
        return _read_folder(path, fps)
    arrays = _arrays(path)
    rate = fps or float(arrays.get("fps", DEFAULT_FPS))
    return FlameMotion(path.stem, rate, _parameters(path, arrays), _shape(arrays))


def write_flame_motion(motion: FlameMotion, path: Path) -> None:
    """Write VHAP's form, with the rate beside it."""
    arrays = {
        stored: np.asarray(motion.parameters[n], np.float32) for n, (stored, _) in _STORED.items()
    }
    if motion.shape is not None:
        arrays["shape"] = motion.shape
    arrays |= {
        "timestep_id": np.arange(motion.n_frames),
        "n_processed_frames": np.array(motion.n_frames),
        "fps": np.array(motion.fps),
    }
    np.savez(path, **arrays)


def _read_folder(path: Path, fps: float | None) -> FlameMotion:
    folder = path / _PARAMETER_FOLDER if (path / _PARAMETER_FOLDER).is_dir() else path
    steps = sorted(folder.glob("[0-9]*.npz"))
    if not steps:
        raise ConfigError(
            f"{path}: expected a file of FLAME parameters, or a folder with "
            f"{_PARAMETER_FOLDER}/00000.npz and so on"
        )
    frames = [_parameters(step, _arrays(step)) for step in steps]
    joined = {}
    for name in _STORED:
        widths = {frame[name].shape[1] for frame in frames}
        if len(widths) != 1:
            raise ConfigError(f"{path}: {name} differs in width from frame to frame: {widths}")
        joined[name] = np.concatenate([frame[name] for frame in frames])
    return FlameMotion(path.name, fps or DEFAULT_FPS, joined, _shape(_arrays(steps[0])))


def _parameters(path: Path, arrays: Mapping[str, NDArray]) -> dict[str, NDArray[np.float32]]:
    found = {}
    for name, (stored, width) in _STORED.items():
        if stored not in arrays:
            raise ConfigError(f"{path} holds no FLAME motion: {stored} is missing")
        value = np.asarray(arrays[stored], np.float32)
        found[name] = value[None] if value.ndim == 1 else value
        if found[name].ndim != 2 or (name != "expr" and found[name].shape[1] != width):
            raise ConfigError(f"{path}: expected {stored} (T, {width}), found {value.shape}")
    return found


def _shape(arrays: Mapping[str, NDArray]) -> NDArray[np.float32] | None:
    return np.asarray(arrays["shape"], np.float32).ravel() if "shape" in arrays else None


def _arrays(path: Path) -> dict[str, NDArray]:
    try:
        with np.load(path, allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, AttributeError) as error:
        raise ConfigError(f"{path} cannot be read as FLAME motion: {error}") from error
