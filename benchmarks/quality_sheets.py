"""Contact sheets of measured avatars: every view that counts, labelled with its figure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fc4d_ray.avatar.avatar import Avatar
from fc4d_ray.cameras import orbit_camera
from fc4d_ray.evaluation.avatar_quality import EXPRESSION_AZIMUTHS_DEG, SIZE, AvatarStills
from fc4d_ray.evaluation.focal_length import FOCAL_FACTORS
from fc4d_ray.evaluation.held_out import HeldOutView
from fc4d_ray.evaluation.wholeness import WHOLE_ALPHA, measured_region, surface_image
from fc4d_ray.publishing.sheet import Tile, compose_sheet

_FRONT_DEG = (0, 30, -30, 45, -45, 60, -60)
_AROUND_DEG = (90, -90, 180)
_WINDOW_PX = (66, 40, 446, 496)
_HOLE = (230, 20, 20)
_ACTED = {"jaw open": "lip_growth", "eyes shut": "blink_fall", "smile": "smile_distance"}
"""Measured expressions and where their figure stands."""


def quality_sheet(
    avatar: Avatar,
    stills: AvatarStills,
    portrait: NDArray[np.uint8],
    figures: Mapping[str, Any],
    name: str,
) -> NDArray[np.uint8]:
    """(h, w, 3): the portrait, the turned views, the acted ones, the lenses and the holes."""
    distances = figures["identity"]["id_distances"]
    front = [
        _tile(stills.at(azimuth), f"{azimuth:+d}°{_figure(distances[f'{azimuth:+d}'])}")
        for azimuth in _FRONT_DEG
    ]
    around = [_tile(stills.at(azimuth), f"{azimuth:+d}°") for azimuth in _AROUND_DEG]
    lenses = [
        _tile(
            stills.through_lens(factor),
            f"focal x{factor:g}{_figure(figures['focal_length']['distances'][f'{factor:g}'])}",
        )
        for factor in FOCAL_FACTORS
        if factor != 1
    ]
    wholeness = figures["wholeness"]
    worst = wholeness["worst_azimuth_deg"]
    holes = _tile(holes_image(avatar, worst), f"holes {worst:+g}°{_figure(wholeness['worst'], 4)}")
    rows = [front, [*around, *lenses, holes], _acted(stills, figures["expressions"])]
    caption = f"{name}   silhouette IoU {figures['silhouette_iou']}"
    return compose_sheet(Tile(portrait, "input"), rows, caption)


def _acted(stills: AvatarStills, acted: Mapping[str, Any]) -> list[Tile]:
    tiles = []
    for expression, key in _ACTED.items():
        for azimuth in EXPRESSION_AZIMUTHS_DEG:
            value = acted[key][f"{azimuth:+d}"]
            value = value["mean"] if isinstance(value, Mapping) else value
            label = f"{expression} {azimuth:+d}°{_figure(value)}"
            tiles.append(_tile(stills.acting(expression, azimuth), label))
    return tiles


def holes_image(avatar: Avatar, azimuth_deg: float) -> NDArray[np.uint8]:
    """(512, 512, 3) alpha in grey, with the pixels that ought to be whole and are not in red."""
    alpha, points = surface_image(avatar.splats({}), orbit_camera(azimuth_deg, size=SIZE))
    region = measured_region(alpha, points)
    grey = np.rint(255 - 100 * alpha - 60 * region).astype(np.uint8)
    picture = np.repeat(grey[..., None], 3, -1)
    picture[region & (alpha <= WHOLE_ALPHA)] = _HOLE
    return picture


def truth_sheet(portrait: NDArray[np.uint8], views: list[HeldOutView], name: str) -> NDArray:
    """(h, w, 3): the avatar above the truth, view by view."""
    mine = [_tile(_levels(view.picture), f"{view.azimuth_deg:+g}°") for view in views]
    true = [_tile(_levels(view.truth), "truth") for view in views]
    return compose_sheet(Tile(portrait, "input"), [mine, true], name)


def _tile(image: NDArray[np.uint8], label: str) -> Tile:
    left, top, right, bottom = _WINDOW_PX
    return Tile(image[top:bottom, left:right], label)


def _levels(picture: NDArray[np.floating]) -> NDArray[np.uint8]:
    return np.rint(picture.clip(0, 1) * 255).astype(np.uint8)


def _figure(value: float | None, digits: int = 2) -> str:
    return "" if value is None else f"  {value:.{digits}f}"
