"""A driving clip as the warp sees it: pose and expression of a face per frame, no picture.

Comes from the motion extractor or from a motion template. Templates are pickles of nested lists
and arrays in two generations of names, read through the allow-list; or the same as plain ``npz``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from fc4d_ray.assets.safe_pickle import read_checkpoint
from fc4d_ray.errors import ConfigError
from fc4d_ray.priors.video.liveportrait.keypoints import rotation_matrix
from fc4d_ray.priors.video.liveportrait.motion_extractor import FaceMotion

DEFAULT_FPS = 25.0
"""Rate of templates that name none."""

_ROTATION_TOLERANCE = 1e-2


@dataclass(frozen=True)
class KeypointMotion:
    """T frames of driving motion; float32."""

    name: str
    fps: float
    rotation: NDArray[np.float32]
    """(T, 3, 3), acting on row vectors."""
    expression: NDArray[np.float32]
    """(T, K, 3) offsets of the keypoints, before scaling."""
    translation: NDArray[np.float32]
    """(T, 3)."""
    scale: NDArray[np.float32]
    """(T, 1)."""
    eyes: NDArray[np.float32] | None = None
    """(T, 2) openness of the left and the right eye, where known."""
    lips: NDArray[np.float32] | None = None
    """(T, 1) openness of the lips, where known."""
    neutral: NDArray[np.float32] | None = None
    """(K, 3) expression that relative motion counts from; None takes the first frame's."""

    def __post_init__(self) -> None:
        if not np.isfinite(self.fps) or self.fps <= 0:
            raise ConfigError(f"driving clip {self.name}: fps must be positive, found {self.fps}")
        n = len(self.expression)
        if n == 0:
            raise ConfigError(f"driving clip {self.name} has zero frames")
        n_keypoints = self.expression.shape[1] if self.expression.ndim == 3 else 0
        expected: dict[str, tuple[int, ...]] = {
            "rotation": (n, 3, 3),
            "expression": (n, n_keypoints, 3),
            "translation": (n, 3),
            "scale": (n, 1),
            "eyes": (n, 2),
            "lips": (n, 1),
            "neutral": (n_keypoints, 3),
        }
        for field, shape in expected.items():
            value = getattr(self, field)
            if value is None and field in ("eyes", "lips", "neutral"):
                continue
            if value.shape != shape or n_keypoints == 0:
                raise ConfigError(
                    f"driving clip {self.name}: expected {field} {shape}, found {value.shape}"
                )
            if not np.isfinite(value).all():
                raise ConfigError(
                    f"driving clip {self.name}: {field} holds values that are no finite numbers"
                )
        if (self.scale <= 0).any():
            raise ConfigError(f"driving clip {self.name}: scale must be positive")
        product = self.rotation @ self.rotation.transpose(0, 2, 1)
        if np.abs(product - np.eye(3)).max() > _ROTATION_TOLERANCE:
            raise ConfigError(f"driving clip {self.name}: rotation is no rotation matrix")

    @property
    def n_frames(self) -> int:
        return len(self.expression)

    def chosen(self, frames: NDArray[np.integer]) -> KeypointMotion:
        """The same clip with some of its frames."""
        return replace(
            self,
            **{
                field: value[frames]
                for field, value in vars(self).items()
                if isinstance(value, np.ndarray) and field != "neutral"
            },
        )


def motion_from_faces(
    name: str,
    fps: float,
    faces: FaceMotion,
    eyes: NDArray | None = None,
    lips: NDArray | None = None,
) -> KeypointMotion:
    """What the extractor read off the frames of a driving video."""
    rotation = rotation_matrix(faces.pitch_deg, faces.yaw_deg, faces.roll_deg)
    return KeypointMotion(
        name,
        fps,
        *(
            value.float().cpu().numpy()
            for value in (rotation, faces.expression, faces.translation, faces.scale)
        ),
        eyes=eyes,
        lips=lips,
    )


def read_motion(path: Path) -> KeypointMotion:
    """A motion template: ``.pkl`` as LivePortrait writes it, or plain ``.npz``.

    Raises:
        ConfigError: no such template, fields missing or of unequal length.
        UnsafePickle: the pickle asks for anything but plain data; nothing was executed.
    """
    if not path.is_file():
        raise ConfigError(f"driving clip {path}: no such file")
    return _read_arrays(path) if path.suffix == ".npz" else _read_template(path)


def write_motion(motion: KeypointMotion, path: Path) -> None:
    """Write the plain ``npz`` form that ``read_motion`` reads."""
    arrays: dict[str, Any] = {
        "n_frames": np.int64(motion.n_frames),
        "fps": np.float32(motion.fps),
        "R": motion.rotation,
        "exp": motion.expression,
        "t": motion.translation,
        "scale": motion.scale,
    }
    if motion.eyes is not None:
        arrays["c_eyes"] = motion.eyes
    if motion.lips is not None:
        arrays["c_lip"] = motion.lips
    np.savez_compressed(path, **arrays)


def _read_arrays(path: Path) -> KeypointMotion:
    try:
        with np.load(path, allow_pickle=False) as arrays:
            fields = {name: arrays[name] for name in arrays.files}
    except (ValueError, OSError, EOFError) as error:
        raise ConfigError(f"driving clip {path}: no plain npz file ({error})") from error
    return _assembled(path, fields, float(fields.get("fps", DEFAULT_FPS)))


def _read_template(path: Path) -> KeypointMotion:
    content = read_checkpoint(path)
    frames = content.get("motion") if isinstance(content, Mapping) else None
    if not isinstance(frames, list) or not all(isinstance(frame, Mapping) for frame in frames):
        raise ConfigError(f"driving clip {path}: expected a template with a list 'motion'")
    if not frames:
        raise ConfigError(f"driving clip {path} has zero frames")
    fields = {
        name: _stacked(path, name, [_first(frame, aliases) for frame in frames])
        for name, aliases in {
            "R": ("R", "R_d"), "exp": ("exp",), "t": ("t",), "scale": ("scale",),
        }.items()
    }  # fmt: skip
    for name, aliases in {
        "c_eyes": ("c_eyes_lst", "c_d_eyes_lst"),
        "c_lip": ("c_lip_lst", "c_d_lip_lst"),
    }.items():
        ratios = _first(content, aliases)
        if ratios is not None and len(ratios):
            fields[name] = _stacked(path, name, list(ratios))
    return _assembled(path, fields, float(content.get("output_fps", DEFAULT_FPS)))


def _first(values: Mapping[str, Any], names: tuple[str, ...]) -> Any:
    return next((values[name] for name in names if name in values), None)


def _stacked(path: Path, name: str, frames: list[Any]) -> NDArray[np.float32]:
    """One row per frame; upstream keeps a batch axis of one on each."""
    if any(frame is None for frame in frames):
        raise ConfigError(f"driving clip {path}: not every frame has {name!r}")
    rows = [_plain_array(frame) for frame in frames]
    if len({row.size for row in rows}) != 1:
        raise ConfigError(f"driving clip {path}: {name!r} has frames of unequal size")
    return np.stack([row.reshape(-1) for row in rows])


def _plain_array(value: Any) -> NDArray[np.float32]:
    value = value.numpy() if isinstance(value, torch.Tensor) else value
    return np.asarray(value, np.float32)


def _assembled(path: Path, fields: Mapping[str, NDArray], fps: float) -> KeypointMotion:
    missing = [name for name in ("R", "exp", "t", "scale") if name not in fields]
    if missing:
        raise ConfigError(f"driving clip {path}: it lacks {', '.join(missing)}")
    n = len(fields["exp"])
    shapes = {"R": (n, 3, 3), "exp": (n, -1, 3), "t": (n, 3), "scale": (n, 1),
              "c_eyes": (n, 2), "c_lip": (n, 1)}  # fmt: skip
    shaped: dict[str, NDArray[np.float32] | None] = {}
    for name, shape in shapes.items():
        if name not in fields:
            shaped[name] = None
            continue
        try:
            value = np.asarray(fields[name], np.float32)
            shaped[name] = value.reshape(shape) if n else value
        except (ValueError, TypeError) as error:
            raise ConfigError(
                f"driving clip {path}: {name!r} of {fields[name].shape} for {n} frames"
            ) from error
    if n == 0:
        raise ConfigError(f"driving clip {path} has zero frames")
    return KeypointMotion(
        path.stem, fps, shaped["R"], shaped["exp"], shaped["t"], shaped["scale"],
        eyes=shaped["c_eyes"], lips=shaped["c_lip"],
    )  # fmt: skip
