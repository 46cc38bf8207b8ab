"""Driving motion: what the face does over time, independent of whose face it is.

A clip holds the 52 ARKit actions and a neck rotation per frame. Files are Live Link Face CSV, the
format of Apple's face capture app: one row per frame, PascalCase action names, a time code
``HH:MM:SS:FF.fff``, head rotation as HeadYaw, HeadPitch and HeadRoll in radians.

Head angles here are turns about the head frame's axes (docs/conventions.md), applied roll first,
then pitch, then yaw: positive yaw turns the face to the subject's left, positive pitch bows it,
positive roll leans it onto the subject's right shoulder.
"""

from __future__ import annotations

import csv
import difflib
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from fc4d_ray.errors import ConfigError

ACTION_NAMES: tuple[str, ...] = tuple(
    """
    browDownLeft browDownRight browInnerUp browOuterUpLeft browOuterUpRight cheekPuff
    cheekSquintLeft cheekSquintRight eyeBlinkLeft eyeBlinkRight eyeLookDownLeft eyeLookDownRight
    eyeLookInLeft eyeLookInRight eyeLookOutLeft eyeLookOutRight eyeLookUpLeft eyeLookUpRight
    eyeSquintLeft eyeSquintRight eyeWideLeft eyeWideRight jawForward jawLeft jawOpen jawRight
    mouthClose mouthDimpleLeft mouthDimpleRight mouthFrownLeft mouthFrownRight mouthFunnel
    mouthLeft mouthLowerDownLeft mouthLowerDownRight mouthPressLeft mouthPressRight mouthPucker
    mouthRight mouthRollLower mouthRollUpper mouthShrugLower mouthShrugUpper mouthSmileLeft
    mouthSmileRight mouthStretchLeft mouthStretchRight mouthUpperUpLeft mouthUpperUpRight
    noseSneerLeft noseSneerRight tongueOut
    """.split()  # noqa: SIM905
)
"""ARKit's actions in the order of every (…, 52) array: alphabetical."""

LIVE_LINK_FPS = 60.0
"""Rate of the capture app, assumed where a file is too short to tell."""

_HEAD_COLUMNS = ("HeadYaw", "HeadPitch", "HeadRoll")
_EYE_COLUMNS = tuple(
    f"{side}Eye{axis}" for side in ("Left", "Right") for axis in ("Yaw", "Pitch", "Roll")
)
_COMMON_FPS = (10.0, 12.0, 15.0, 20.0, 24.0, 25.0, 30.0, 48.0, 50.0, 60.0, 90.0, 100.0, 120.0)
_WORST_ACTION = 2.0
"""Capture noise leaves [0, 1] by a little; values beyond this are no action weights."""


@dataclass(frozen=True)
class MotionClip:
    """One driving signal: T frames at a constant rate, sampled at ``i / fps`` seconds."""

    name: str
    fps: float
    actions: NDArray[np.float32]
    """(T, 52) in [0, 1], columns as ``ACTION_NAMES``."""
    neck: NDArray[np.float32]
    """(T, 3) axis-angle in radians, head frame."""

    def __post_init__(self) -> None:
        if not np.isfinite(self.fps) or self.fps <= 0:
            raise ConfigError(f"motion clip {self.name}: fps must be positive, found {self.fps}")
        n_frames = len(self.actions)
        if n_frames == 0 or self.actions.shape != (n_frames, len(ACTION_NAMES)):
            raise ConfigError(
                f"motion clip {self.name}: expected actions (T, {len(ACTION_NAMES)}), "
                f"found {self.actions.shape}"
            )
        if self.neck.shape != (n_frames, 3):
            raise ConfigError(
                f"motion clip {self.name}: expected neck ({n_frames}, 3), found {self.neck.shape}"
            )
        if not (np.isfinite(self.actions).all() and np.isfinite(self.neck).all()):
            raise ConfigError(f"motion clip {self.name}: values that are no finite numbers")
        if self.actions.min() < 0 or self.actions.max() > 1:
            raise ConfigError(f"motion clip {self.name}: actions outside [0, 1]")

    @property
    def n_frames(self) -> int:
        return len(self.actions)

    @property
    def duration_s(self) -> float:
        """Time from the first to the last frame."""
        return (self.n_frames - 1) / self.fps

    def resampled(self, fps: float) -> MotionClip:
        """The same motion at another rate, interpolated linearly, same first frame.

        Axis-angle vectors are interpolated component-wise: exact to 1e-4 rad for the turns below
        30 degrees per second that a head makes.
        """
        if fps == self.fps:
            return self
        n_frames = int(np.floor(self.duration_s * fps + 1e-6)) + 1
        times_s = np.arange(n_frames) / fps
        return replace(
            self,
            fps=fps,
            actions=_interpolate(self.actions, times_s * self.fps),
            neck=_interpolate(self.neck, times_s * self.fps),
        )

    def parameters(self, frame: int) -> dict[str, NDArray[np.float32]]:
        """Head parameters of one frame: ``actions`` (1, 52) and ``neck`` (1, 3)."""
        return {
            "actions": self.actions[frame : frame + 1],
            "neck": self.neck[frame : frame + 1],
        }


def action_vector(weights: Mapping[str, float]) -> NDArray[np.float32]:
    """(52,) weights in canonical order; actions not named are zero.

    Raises:
        ConfigError: an unknown name, or a weight outside [0, 1].
    """
    vector = np.zeros(len(ACTION_NAMES), np.float32)
    for name, weight in weights.items():
        if name not in ACTION_NAMES:
            close = difflib.get_close_matches(name, ACTION_NAMES, n=3, cutoff=0.5)
            hint = f"; did you mean {', '.join(close)}?" if close else ""
            raise ConfigError(f"unknown action {name!r}{hint}")
        if not 0.0 <= weight <= 1.0:
            raise ConfigError(f"action {name}: expected a weight in [0, 1], found {weight}")
        vector[ACTION_NAMES.index(name)] = weight
    return vector


def shipped_clip_names() -> tuple[str, ...]:
    """Names of the clips that come with the package, in alphabetical order."""
    folder = resources.files(__package__) / "clips"
    names = (Path(entry.name) for entry in folder.iterdir())
    return tuple(sorted(name.stem for name in names if name.suffix == ".csv"))


def load_clip(name_or_path: str | Path) -> MotionClip:
    """A shipped clip by its name, or any Live Link Face CSV by its path."""
    name = str(name_or_path)
    if name in shipped_clip_names():
        with resources.as_file(resources.files(__package__) / "clips" / f"{name}.csv") as path:
            return read_live_link(path)
    if not Path(name_or_path).is_file():
        raise ConfigError(
            f"motion clip {name!r}: no such file, and none of the shipped clips "
            f"({', '.join(shipped_clip_names())})"
        )
    return read_live_link(Path(name_or_path))


def read_live_link(path: Path, fps: float | None = None) -> MotionClip:
    """Read a Live Link Face CSV.

    Args:
        path: the file; its stem becomes the clip's name.
        fps: frames per second; by default counted from the time codes.

    Actions are clamped to [0, 1], missing head angles are zero, eye angles are not read (the
    eyeLook actions say the same).

    Raises:
        ConfigError: not such a file, an action's column is missing, or a value is no number.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = list(csv.DictReader(file))
    except (UnicodeDecodeError, csv.Error) as error:
        raise ConfigError(f"motion clip {path}: no CSV file ({error})") from error
    if not rows:
        raise ConfigError(f"motion clip {path}: expected a header and at least one frame")
    columns = [_live_link_column(name) for name in ACTION_NAMES]
    missing = [column for column in columns if column not in rows[0]]
    if missing:
        raise ConfigError(f"motion clip {path}: no column {', '.join(missing)}")
    actions = np.array([[_number(path, i, row, c) for c in columns] for i, row in enumerate(rows)])
    if np.abs(actions).max() > _WORST_ACTION:
        raise ConfigError(
            f"motion clip {path}: actions must lie in [0, 1], found {np.abs(actions).max():g}"
        )
    has_head = all(column in rows[0] for column in _HEAD_COLUMNS)
    head = np.array(
        [
            [_number(path, i, row, column) if has_head else 0.0 for column in _HEAD_COLUMNS]
            for i, row in enumerate(rows)
        ]
    )
    return MotionClip(
        name=path.stem,
        fps=fps or _fps_of([row.get("Timecode") or "" for row in rows]),
        actions=actions.clip(0, 1).astype(np.float32),
        neck=Rotation.from_euler("YXZ", head).as_rotvec().astype(np.float32),
    )


def write_live_link(clip: MotionClip, path: Path) -> None:
    """Write ``clip`` as Live Link Face CSV; angles and weights keep four decimals."""
    head = Rotation.from_rotvec(clip.neck).as_euler("YXZ")
    columns = [_live_link_column(name) for name in ACTION_NAMES]
    header = ["Timecode", "BlendshapeCount", *columns, *_HEAD_COLUMNS, *_EYE_COLUMNS]
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        for timecode, weights, angles in zip(
            _timecodes(clip.n_frames, clip.fps), clip.actions, head, strict=True
        ):
            values = [*weights, *angles, *np.zeros(len(_EYE_COLUMNS))]
            writer.writerow([timecode, len(values), *(_compact(value) for value in values)])


def _live_link_column(action: str) -> str:
    return action[0].upper() + action[1:]


def _number(path: Path, row_index: int, row: Mapping[str, str | None], column: str) -> float:
    try:
        value = float(row[column] or "")
    except ValueError:
        value = np.nan
    if not np.isfinite(value):
        raise ConfigError(
            f"motion clip {path}: row {row_index + 1}, column {column}: "
            f"expected a number, found {row[column]!r}"
        )
    return value


def _fps_of(timecodes: list[str]) -> float:
    """Rate at which frames were counted: the most rows that share one second.

    A capture that drops frames still fills some second; the count is rounded to a common rate.
    """
    per_second = Counter(timecode.rsplit(":", 1)[0] for timecode in timecodes)
    if len(per_second) < 2 or "" in per_second:
        return LIVE_LINK_FPS
    counted = max(per_second.values())
    return min(_COMMON_FPS, key=lambda fps: abs(fps - counted))


def _timecodes(n_frames: int, fps: float) -> Iterator[str]:
    for frame in range(n_frames):
        seconds, position = divmod(frame, round(fps))
        minutes, seconds = divmod(seconds, 60)
        yield f"{minutes // 60:02d}:{minutes % 60:02d}:{seconds:02d}:{position:02d}.000"


def _compact(value: float) -> str:
    text = f"{value:.4f}".rstrip("0").rstrip(".")
    return "0" if text in ("-0", "") else text


def _interpolate(values: NDArray[np.float32], positions: NDArray) -> NDArray[np.float32]:
    """Rows of ``values`` (T, d) at fractional indices (N,)."""
    low = np.floor(positions + 1e-9).astype(int).clip(0, len(values) - 1)
    high = np.minimum(low + 1, len(values) - 1)
    weight = (positions - low).clip(0, 1)[:, None].astype(np.float32)
    return (1 - weight) * values[low] + weight * values[high]
