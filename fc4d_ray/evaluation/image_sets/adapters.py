"""Other systems' own output to image sets: which frame shows which view.

Each system is a ``NativeOutput``: what its files are and which azimuths its frames have. No system
is ever imported; where one leaves the azimuths open, the user gives them.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from fc4d_ray.errors import ConfigError
from fc4d_ray.evaluation.image_sets.contract import (
    ImageKey,
    ImageSet,
    InvalidImageSet,
    SetImage,
)
from fc4d_ray.evaluation.protocols import Protocol
from fc4d_ray.images import write_png
from fc4d_ray.publishing.video import read_video
from fc4d_ray.store.filesystem import Storage
from fc4d_ray.store.layout import safe_name

NEAREST_WITHIN_DEG = 10.0
"""A frame further from a view than this does not show it."""
_PICTURES = (".png", ".jpg", ".jpeg", ".webp")


@dataclass(frozen=True)
class NativeOutput:
    """How a system leaves its views of a subject."""

    title: str
    layout: str
    """What DIR has to look like, for people."""
    azimuths_deg: Callable[[int], Sequence[float]] | None
    """Azimuths of n frames in order; None where the user has to give them."""


def _full_turn_from_input(n: int) -> list[float]:
    """SV3D: steps of 360/n clockwise seen from above, the last frame is the input's view."""
    return [360.0 * (i + 1) / n for i in range(n)]


def _full_turn(n: int) -> list[float]:
    return [360.0 * i / n for i in range(n)]


NATIVE_OUTPUTS: Mapping[str, NativeOutput] = MappingProxyType(
    {
        "sv3d": NativeOutput(
            "SV3D (generative-models)",
            "one mp4 or folder of pictures per subject: 21 frames, the last is the input view",
            _full_turn_from_input,
        ),
        "panohead": NativeOutput(
            "PanoHead",
            "one mp4, or one folder of pictures, per subject, once around the head from the front",
            _full_turn,
        ),
        "portrait3d": NativeOutput(
            "Portrait3D",
            "one folder of refined views per subject; give --azimuths in the files' order",
            None,
        ),
        "gaussiancube": NativeOutput(
            "GaussianCube (as provided)",
            "one folder of pictures per subject; give --azimuths in the files' order",
            None,
        ),
        "aniportrait": NativeOutput(
            "AniPortrait", "one mp4 per subject; give the --azimuths of its frames", None
        ),
        "portrait4d-v2": NativeOutput(
            "Portrait4D-v2", "one folder of pictures per subject; give --azimuths", None
        ),
        "named": NativeOutput(
            "pictures named after the protocol's views",
            "<subject>/<view>.png",
            None,
        ),
    }
)


@dataclass(frozen=True)
class Imported:
    """The image set and what it lacks, a line each."""

    images: ImageSet
    missing: tuple[str, ...]


def import_outputs(
    system: str,
    directory: Path,
    out: Path,
    protocol: Protocol,
    azimuths_deg: Sequence[float] | None = None,
) -> Imported:
    """Pick the frame nearest to each view of the protocol for every subject below ``directory``.

    Azimuths follow this package's convention: 0 the front, positive where the camera sees the
    subject's left side. Check the sign of a system's turn once per version. Views without a frame
    within 10 degrees are listed, not filled.

    Raises ``ConfigError`` for an unknown system or azimuths that are needed and not given, and
    ``InvalidImageSet`` where a subject's frames do not match them or nothing is found.
    """
    if system not in NATIVE_OUTPUTS:
        raise ConfigError(f"no adapter {system!r}; known: {', '.join(NATIVE_OUTPUTS)}")
    native = NATIVE_OUTPUTS[system]
    if system != "named" and azimuths_deg is None and native.azimuths_deg is None:
        raise ConfigError(f"{native.title} does not tell its views: give --azimuths")
    images: list[SetImage] = []
    missing: list[str] = []
    subjects = list(_subjects(directory))
    if not subjects:
        raise InvalidImageSet(f"there is nothing in {directory}; expected: {native.layout}")
    for subject, source in subjects:
        if system == "named":
            chosen = _named_frames(source, protocol)
        else:
            chosen = _nearest_frames(_Frames.open(source), native, protocol, azimuths_deg, source)
        for view in protocol.views:
            if view.name not in chosen:
                missing.append(f"{subject}: no frame shows {view.name} ({view.azimuth_deg:g}°)")
                continue
            azimuth, write = chosen[view.name]
            path = f"{subject}/{view.name}.png"
            write(out / path)
            images.append(SetImage(ImageKey(subject, view.name), azimuth, view.elevation_deg, path))
    if not images:
        raise InvalidImageSet(f"no frame below {directory} shows a view of {protocol.name}")
    # The cameras are theirs: the nearest frame, another lens. So no camera set is claimed.
    result = ImageSet(native.title, Storage(str(out.absolute())), tuple(images), None)
    result.write()
    return Imported(result, tuple(missing))


@dataclass(frozen=True)
class _Frames:
    """A subject's frames in order, read when they are wanted."""

    count: int
    read: Callable[[int], NDArray[np.uint8]]

    @staticmethod
    def open(source: Path) -> _Frames:
        if source.is_file():
            frames, _ = read_video(source)
            return _Frames(len(frames), lambda i: frames[i])
        files = sorted(p for p in source.iterdir() if p.suffix.lower() in _PICTURES)
        return _Frames(len(files), lambda i: _read_picture(files[i]))


Chosen = dict[str, tuple[float, Callable[[Path], None]]]
"""By view name: the azimuth of the chosen frame and how it is written."""


def _nearest_frames(
    frames: _Frames,
    native: NativeOutput,
    protocol: Protocol,
    given: Sequence[float] | None,
    source: Path,
) -> Chosen:
    if frames.count == 0:
        raise InvalidImageSet(f"{source} holds no frames")
    if given is not None and len(given) != frames.count:
        raise InvalidImageSet(
            f"{source} has {frames.count} frames, --azimuths names {len(given)} angles"
        )
    assert given is not None or native.azimuths_deg is not None
    angles = np.asarray(given if given is not None else native.azimuths_deg(frames.count), float)
    chosen: Chosen = {}
    for view in protocol.views:
        away = np.abs((angles - view.azimuth_deg + 180) % 360 - 180)
        nearest = int(away.argmin())
        if away[nearest] <= NEAREST_WITHIN_DEG:
            azimuth = float((angles[nearest] + 180) % 360 - 180)
            chosen[view.name] = (
                azimuth,
                lambda path, i=nearest: write_png(path, frames.read(i)),
            )
    return chosen


def _named_frames(source: Path, protocol: Protocol) -> Chosen:
    if source.is_file():
        raise InvalidImageSet(f"{source} is no folder; expected <subject>/<view>.png")
    return {
        view.name: (view.azimuth_deg, lambda path, file=file: _copy(file, path))
        for view in protocol.views
        if (file := source / f"{view.name}.png").is_file()
    }


def _copy(file: Path, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(file, path)


def _read_picture(path: Path) -> NDArray[np.uint8]:
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(path) as picture:
            return np.asarray(picture.convert("RGBA" if "A" in picture.mode else "RGB"))
    except (UnidentifiedImageError, OSError) as error:
        raise InvalidImageSet(f"{path} is no picture: {error}") from error


def _subjects(directory: Path) -> Iterator[tuple[str, Path]]:
    """(subject, its folder or video), sorted by name."""
    if not directory.is_dir():
        raise ConfigError(f"{directory} is no folder")
    for path in sorted(directory.iterdir()):
        if path.is_dir() or path.suffix.lower() == ".mp4":
            yield safe_name(path.stem if path.is_file() else path.name), path
