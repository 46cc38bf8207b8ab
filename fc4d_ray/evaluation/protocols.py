"""Protocols as data: which views of which expressions are compared, and on what ground.

A protocol is a YAML file (``configs/protocols/``). Its camera set is part of every result: figures
measured with different sets never stand in one table.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

from fc4d_ray.cameras import ORBIT_FOV_DEG, ORBIT_RADIUS_M
from fc4d_ray.config_source import ConfigSource, profile_directory
from fc4d_ray.errors import ConfigError
from fc4d_ray.store.digests import DIGEST_CHARACTERS, digest_json

Kind = Literal["images", "timing"]
SMALLEST_SIZE, LARGEST_SIZE = 32, 2048


@dataclass(frozen=True)
class View:
    """A named camera on the orbit."""

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    name: str
    azimuth_deg: float
    """Positive: the subject turned so that the camera sees its left side."""
    elevation_deg: float = 0.0


@dataclass(frozen=True)
class Protocol:
    """What is rendered of every subject and compared."""

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    name: str
    title: str
    kind: Kind = "images"
    """``timing`` compares what runs took and renders nothing."""
    views: tuple[View, ...] = ()
    clips: tuple[str, ...] = ()
    """Shipped motion clips or Live Link CSV files; without any the avatars are at rest."""
    frames_per_clip: int = 4
    """Frames taken of each clip, evenly spread."""
    size: int = 512
    """Side of every image in pixels."""
    background: tuple[int, int, int] = (255, 255, 255)
    """What renders and references are composited on."""
    fov_deg: float = ORBIT_FOV_DEG
    radius_m: float = ORBIT_RADIUS_M
    published: str | None = None
    """Table of the paper whose rows stand beside ours, marked as published."""

    def __post_init__(self) -> None:
        def require(condition: bool, option: str, rule: str) -> None:
            if not condition:
                raise ConfigError(f"protocol {self.name}: {option} must be {rule}")

        if self.kind == "images":
            require(bool(self.views), "views", "one view or more")
        names = [view.name for view in self.views]
        require(len(set(names)) == len(names), "views", "of different names")
        require(SMALLEST_SIZE <= self.size <= LARGEST_SIZE, "size", "within 32..2048 px")
        require(1 <= self.frames_per_clip <= 1000, "frames_per_clip", "within 1..1000")
        require(all(0 <= level <= 255 for level in self.background), "background", "0..255")

    @property
    def camera_set(self) -> dict[str, Any]:
        """What has to be equal for two results to be compared."""
        return {
            "views": [[v.name, v.azimuth_deg, v.elevation_deg] for v in self.views],
            "size": self.size,
            "background": list(self.background),
            "fov_deg": self.fov_deg,
            "radius_m": self.radius_m,
            "clips": list(self.clips),
            "frames_per_clip": self.frames_per_clip if self.clips else 1,
        }

    @property
    def digest(self) -> str:
        """Digest of the camera set."""
        return digest_json(self.camera_set)[:DIGEST_CHARACTERS]

    def view(self, name: str) -> View:
        """``ConfigError`` where there is none of that name."""
        for view in self.views:
            if view.name == name:
                return view
        raise ConfigError(
            f"protocol {self.name} has no view {name!r}; it has "
            + ", ".join(view.name for view in self.views)
        )


def protocol_names() -> tuple[str, ...]:
    """Protocols that come with the package."""
    return tuple(sorted(path.stem for path in _directory().glob("*.yaml")))


def load_protocol(name_or_path: str) -> Protocol:
    """A protocol by its name or from a YAML file. Raises ``ConfigError`` where it is unusable."""
    from pydantic import TypeAdapter, ValidationError

    known = name_or_path in protocol_names()
    path = _directory() / f"{name_or_path}.yaml" if known else Path(name_or_path)
    if not path.is_file():
        raise ConfigError(
            f"there is no protocol {name_or_path!r}: neither a file nor one of "
            + ", ".join(protocol_names())
        )
    source = ConfigSource.read(path)
    try:
        return TypeAdapter(Protocol).validate_python(source.values)
    except ValidationError as error:
        problems = [
            f"{source.where(p['loc'])}: {'.'.join(map(str, p['loc']))}: {p['msg']}"
            for p in error.errors()
        ]
        raise ConfigError("\n".join(problems)) from error


def _directory() -> Path:
    return profile_directory() / "protocols"
