"""Contact sheets: best, median and worst subject of a method, beside their portraits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fc4d_ray.evaluation.image_sets.preparation import prepare_image
from fc4d_ray.evaluation.protocols import Protocol
from fc4d_ray.evaluation.scores import Metric, SubjectFigures
from fc4d_ray.publishing.sheet import SheetStyle, Tile, compose_sheet
from fc4d_ray.store.filesystem import Storage

MOST_TILES = 9
"""Views shown of one subject."""
TILE_PX = 192


@dataclass(frozen=True)
class Ranked:
    """A subject with its place among the method's."""

    place: str
    subject: str
    value: float
    figures: SubjectFigures


def rank_subjects(figures: Sequence[SubjectFigures], metric: Metric) -> list[Ranked]:
    """Best, median and worst of one method's subjects; fewer where it has fewer than three."""
    scored = []
    for one in figures:
        found = [row[metric.key] for row in one.images.values() if row.get(metric.key) is not None]
        if found:
            scored.append((float(np.mean(found)), one))
    scored.sort(key=lambda item: item[0], reverse=metric.higher_is_better)
    if not scored:
        return []
    places = {"best": 0, "median": len(scored) // 2, "worst": len(scored) - 1}
    chosen: dict[int, str] = {}
    for place, index in places.items():
        chosen.setdefault(index, place)
    return [
        Ranked(place, scored[index][1].subject, *scored[index])
        for index, place in sorted(chosen.items())
    ]


def subject_sheet(
    ranked: Ranked, reference: NDArray[np.uint8] | None, protocol: Protocol, caption: str
) -> NDArray[np.uint8]:
    """(h, w, 3) portrait beside the views, as many as fit; a blank where there is no portrait."""
    rows = sorted(
        ranked.figures.images.items(), key=lambda item: (item[0].frame, item[1]["azimuth_deg"])
    )
    shown = [rows[i] for i in np.linspace(0, len(rows) - 1, min(len(rows), MOST_TILES)).astype(int)]
    tiles = [
        Tile(
            _picture(row["uri"], protocol),
            f"{key.view}" + ("" if key.frame < 0 else f" f{key.frame}"),
        )
        for key, row in shown
    ]
    half = (len(tiles) + 1) // 2 if len(tiles) > 5 else len(tiles)
    blank = np.full((TILE_PX, TILE_PX, 3), 235, np.uint8)
    portrait = Tile(blank if reference is None else reference, "portrait")
    style = SheetStyle(tile_width=TILE_PX, tile_height=TILE_PX)
    grid = [row for row in (tiles[:half], tiles[half:]) if row]
    return compose_sheet(portrait, grid, caption, style)


def _picture(uri: str, protocol: Protocol) -> NDArray[np.uint8]:
    folder, _, name = uri.rpartition("/")
    return prepare_image(Storage(folder).read(name), protocol.size, protocol.background, uri)
