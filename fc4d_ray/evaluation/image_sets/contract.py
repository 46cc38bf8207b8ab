"""The folder every method is read from, ours included. The evaluator imports no baseline.

::

    <method folder>/manifest.json
    <method folder>/<subject>/<view>[_f<frame>].png     RGB or RGBA, any size
    <references>/<subject>.png                          the portrait; RGBA where it has a matte

``manifest.json``: ``format``, ``method``, ``version``, ``camera_set`` (None: not told), and under
``images`` one object per picture with ``subject``, ``view``, ``azimuth_deg``, ``elevation_deg``,
``frame`` (None: at rest), ``path`` relative to the manifest, and optionally ``truth`` (a picture of
the real person from there), ``depth`` + ``depth_unit_m`` + ``camera`` (for cross-view agreement)
and ``driver_landmarks`` (68 points in pixels of the picture, where the driving signal puts them).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from fc4d_ray.errors import InputError
from fc4d_ray.store.digests import readable_json
from fc4d_ray.store.filesystem import Storage
from fc4d_ray.store.layout import safe_name

FORMAT = "fc4d-image-set/1"
MANIFEST = "manifest.json"


class InvalidImageSet(InputError):
    """A method's folder does not keep to the contract; the message says where."""


@dataclass(frozen=True, order=True)
class ImageKey:
    """Which picture of a protocol this is; methods are compared key by key."""

    subject: str
    view: str
    frame: int = -1
    """-1 at rest."""


def picture_name(key: ImageKey) -> str:
    """``<subject>/<view>[_f<frame>].png``, the layout's own name of a picture."""
    frame = "" if key.frame < 0 else f"_f{key.frame:04d}"
    return f"{key.subject}/{key.view}{frame}.png"


@dataclass(frozen=True)
class SetImage:
    """One picture of a method."""

    key: ImageKey
    azimuth_deg: float
    elevation_deg: float
    path: str
    """Relative to the manifest."""
    truth: str | None = None
    depth: str | None = None
    depth_unit_m: float | None = None
    camera: Mapping[str, Any] | None = None
    driver_landmarks: tuple[tuple[float, float], ...] | None = None

    def to_json(self) -> dict[str, Any]:
        """The manifest's object; what is None is left out."""
        values = {
            "subject": self.key.subject,
            "view": self.key.view,
            "frame": None if self.key.frame < 0 else self.key.frame,
            "azimuth_deg": self.azimuth_deg,
            "elevation_deg": self.elevation_deg,
            "path": self.path,
            "truth": self.truth,
            "depth": self.depth,
            "depth_unit_m": self.depth_unit_m,
            "camera": self.camera,
            "driver_landmarks": self.driver_landmarks,
        }
        return {name: value for name, value in values.items() if value is not None}


@dataclass(frozen=True)
class ImageSet:
    """The pictures of one method."""

    method: str
    storage: Storage
    """Root that the paths are relative to."""
    images: tuple[SetImage, ...]
    camera_set: Mapping[str, Any] | None
    """Of the protocol they were made for; None where the maker did not tell."""
    version: str = ""

    @property
    def subjects(self) -> tuple[str, ...]:
        """In the manifest's order, each once."""
        return tuple(dict.fromkeys(image.key.subject for image in self.images))

    def write(self) -> None:
        """Put ``manifest.json`` beside the pictures."""
        document = {
            "format": FORMAT,
            "method": self.method,
            "version": self.version,
            "camera_set": self.camera_set,
            "images": [image.to_json() for image in self.images],
        }
        self.storage.replace(MANIFEST, readable_json(document))


def read_image_set(address: str, method: str | None = None) -> ImageSet:
    """A method's folder; ``method`` gives it another name.

    Raises ``InvalidImageSet`` where the manifest is missing, damaged or of another format, names a
    picture twice, or names none at all. Whether the pictures exist is seen when they are read.
    """
    storage = Storage(address.rstrip("/"))
    where = storage.uri_of(MANIFEST)
    try:
        document = storage.read_json(MANIFEST)
    except FileNotFoundError as error:
        raise InvalidImageSet(
            f"there is no {where}; `fc4d baseline` makes one from a system's own output"
        ) from error
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        raise InvalidImageSet(f"{where} is not of format {FORMAT}")
    images = tuple(
        image_from_json(item, f"{where}, image {i}") for i, item in _listed(document, where)
    )
    check_keys(images, where)
    name = method or str(document.get("method") or "unnamed")
    return ImageSet(name, storage, images, document.get("camera_set"), str(document.get("version")))


def check_keys(images: Iterable[SetImage], where: str) -> None:
    """``InvalidImageSet`` where two pictures have the same key, or there is none."""
    seen: dict[ImageKey, str] = {}
    for image in images:
        if image.key in seen:
            raise InvalidImageSet(
                f"{where}: {image.path} and {seen[image.key]} are both view {image.key.view} "
                f"of {image.key.subject}"
            )
        seen[image.key] = image.path
    if not seen:
        raise InvalidImageSet(f"{where}: there are no images")


def _listed(document: Mapping[str, Any], where: str) -> Iterable[tuple[int, Any]]:
    images = document.get("images")
    if not isinstance(images, list):
        raise InvalidImageSet(f"{where}: images must be a list")
    return enumerate(images)


def image_from_json(item: Any, where: str) -> SetImage:
    """One of the manifest's objects; ``where`` names it in the ``InvalidImageSet`` it may raise."""
    try:
        frame = item.get("frame")
        landmarks = item.get("driver_landmarks")
        return SetImage(
            key=ImageKey(
                safe_name(str(item["subject"])),
                safe_name(str(item["view"])),
                -1 if frame is None else int(frame),
            ),
            azimuth_deg=float(item["azimuth_deg"]),
            elevation_deg=float(item.get("elevation_deg", 0.0)),
            path=_below(str(item["path"])),
            truth=None if item.get("truth") is None else _below(str(item["truth"])),
            depth=None if item.get("depth") is None else _below(str(item["depth"])),
            depth_unit_m=None if item.get("depth") is None else float(item["depth_unit_m"]),
            camera=item.get("camera"),
            driver_landmarks=None
            if landmarks is None
            else tuple((float(x), float(y)) for x, y in landmarks),
        )
    except KeyError as error:
        raise InvalidImageSet(f"{where}: {error.args[0]} is missing") from error
    except InvalidImageSet as error:
        raise InvalidImageSet(f"{where}: {error}") from error
    except Exception as error:  # StoreError of an unsafe name, a wrong type anywhere
        raise InvalidImageSet(f"{where}: {error}") from error


def _below(path: str) -> str:
    """A relative path that stays inside the method's folder."""
    if path.startswith("/") or "\\" in path or "://" in path or ".." in path.split("/"):
        raise InvalidImageSet(f"{path!r} leads out of the method's folder")
    return path
