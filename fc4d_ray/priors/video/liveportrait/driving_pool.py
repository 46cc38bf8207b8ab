"""What avatars are driven by: a pool of clips of several kinds, and a seeded choice from it.

Kinds: motion templates (``.pkl``, ``.npz``), ARKit clips (shipped names or Live Link Face
``.csv``), videos, and folders of any of these. A folder whose videos are named ``cam_<serial>`` is
one take seen by many cameras, as NeRSemble stores it: only the frontal camera's is taken.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from fc4d_ray.assets.registry import file_digest
from fc4d_ray.errors import ConfigError
from fc4d_ray.priors.video.motion import shipped_clip_names

Kind = Literal["template", "actions", "video"]

SUFFIXES: dict[str, Kind] = {
    ".pkl": "template",
    ".npz": "template",
    ".csv": "actions",
    ".mp4": "video",
    ".mov": "video",
    ".mkv": "video",
    ".avi": "video",
    ".webm": "video",
}
NERSEMBLE_FRONTAL_CAMERA = "222200037"
"""Serial number of the camera in front of the subject in NeRSemble's rig."""

_LAYOUT_FOLDERS = ("sequences", "images", "videos")
_BACKGROUND = "BACKGROUND"


@dataclass(frozen=True)
class DrivingSource:
    """One clip of the pool."""

    name: str
    """Names the clip's folder; no two of a pool are equal."""
    kind: Kind
    path: Path | None
    """None for the clips that come with the package."""

    def digest(self) -> str:
        """Of the file's bytes; of name, size and date for videos, which may be large."""
        if self.path is None:
            return self.name
        if self.kind != "video":
            return file_digest(self.path)
        status = self.path.stat()
        return f"{self.path.name}:{status.st_size}:{status.st_mtime_ns}"


def open_pool(
    entries: Sequence[str], frontal_camera: str, at_least: int = 1
) -> tuple[DrivingSource, ...]:
    """Every clip that ``entries`` (names, files, folders) stand for, in their order.

    Raises ``ConfigError`` for an entry that is none of these, an empty folder, two equal names, or
    fewer than ``at_least`` clips.
    """
    sources: list[DrivingSource] = []
    for entry in entries:
        if entry in shipped_clip_names():
            sources.append(DrivingSource(entry, "actions", None))
            continue
        path = Path(entry).expanduser()
        if path.is_dir():
            found = list(_within(path, frontal_camera))
            if not found:
                raise ConfigError(f"video.pool: no driving clip in folder {path}")
            sources += found
        elif path.is_file() and path.suffix.lower() in SUFFIXES:
            sources.append(DrivingSource(path.stem, SUFFIXES[path.suffix.lower()], path))
        else:
            raise ConfigError(
                f"video.pool: {entry!r} is no shipped clip ({', '.join(shipped_clip_names())}), "
                f"no folder and no file of a known kind ({', '.join(SUFFIXES)})"
            )
    names = [source.name for source in sources]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ConfigError(f"video.pool: more than one clip is named {', '.join(twice)}")
    if len(sources) < at_least:
        raise ConfigError(f"video.clips is {at_least}, but video.pool holds {len(sources)} clips")
    return tuple(sources)


def choose_clips(pool: Sequence[DrivingSource], count: int, seed: int) -> tuple[DrivingSource, ...]:
    """``count`` different clips of the pool, drawn by ``seed``, in the pool's order."""
    drawn = np.random.default_rng(seed).permutation(len(pool))[:count]
    return tuple(pool[i] for i in sorted(drawn))


def pool_digest(pool: Sequence[DrivingSource]) -> str:
    """Digest of everything that a choice from the pool depends on."""
    parts = [f"{source.name}={source.digest()}" for source in pool]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def _within(folder: Path, frontal_camera: str) -> Iterator[DrivingSource]:
    for path in sorted(folder.rglob("*")):
        kind = SUFFIXES.get(path.suffix.lower())
        if kind is None or not path.is_file():
            continue
        parts = path.relative_to(folder).parts[:-1]
        if _BACKGROUND in parts:
            continue
        named = [part for part in parts if part not in _LAYOUT_FOLDERS]
        if path.stem.startswith("cam_"):
            if path.stem != f"cam_{frontal_camera}":
                continue
            named = named or [folder.name]
        else:
            named.append(path.stem)
        yield DrivingSource("_".join(named), kind, path)
