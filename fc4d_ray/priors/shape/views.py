"""What every shape prior gives: coarse views with depth, cameras, and a way to write them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fc4d_ray.cameras import Camera
from fc4d_ray.images import read_depth, read_png, write_depth, write_png

REFERENCE = "reference"


@dataclass(frozen=True)
class ShapeView:
    """One coarse view."""

    name: str
    azimuth_deg: float
    camera: Camera
    rgba: NDArray[np.uint8]  # [H, W, 4], straight alpha
    depth: NDArray[np.float32]  # [H, W] metres, 0 = nothing
    material: NDArray[np.uint8] | None = None
    """(H, W) of ``surface_colour.Material``, 0 = nothing; None where the prior cannot tell."""


@dataclass(frozen=True)
class NamedCamera:
    """A camera of the shape stage's ``cameras.json``."""

    name: str
    azimuth_deg: float
    camera: Camera
    depth_unit_m: float


def write_views(directory: Path, views: list[ShapeView]) -> None:
    """``cameras.json``, ``views/``, ``depth/`` and, where known, ``materials/``."""
    cameras = []
    for view in views:
        write_png(directory / "views" / f"{view.name}.png", view.rgba)
        unit = write_depth(directory / "depth" / f"{view.name}.png", view.depth)
        if view.material is not None:
            write_png(directory / "materials" / f"{view.name}.png", view.material)
        cameras.append(
            {
                "name": view.name,
                "azimuth_deg": view.azimuth_deg,
                "depth_unit_m": unit,
                **view.camera.to_json(),
            }
        )
    (directory / "cameras.json").write_text(json.dumps(cameras, indent=1))


def read_cameras(directory: Path) -> list[NamedCamera]:
    """The cameras of a shape artifact, in order; the last one is the portrait's own."""
    return [
        NamedCamera(c["name"], c["azimuth_deg"], Camera.from_json(c), c["depth_unit_m"])
        for c in json.loads((directory / "cameras.json").read_text())
    ]


def read_views(directory: Path) -> list[ShapeView]:
    """Everything ``write_views`` wrote."""
    views = []
    for named in read_cameras(directory):
        material = directory / "materials" / f"{named.name}.png"
        views.append(
            ShapeView(
                named.name,
                named.azimuth_deg,
                named.camera,
                read_png(directory / "views" / f"{named.name}.png"),
                read_depth(directory / "depth" / f"{named.name}.png", named.depth_unit_m),
                read_png(material) if material.exists() else None,
            )
        )
    return views
