"""Which part of the head a FLAME vertex or face belongs to, from the publishers' mask file."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from fc4d_ray.heads.flame_teeth import FLAME_VERTICES
from fc4d_ray.heads.rig import Region

_ORDER = (
    ("face", Region.FACE),
    ("scalp", Region.SCALP),
    ("neck", Region.NECK),
    ("left_ear", Region.EAR),
    ("right_ear", Region.EAR),
    ("boundary", Region.BUST),
    ("left_eyeball", Region.EYE),
    ("right_eyeball", Region.EYE),
)
"""Later regions win where masks overlap: the masks of face and scalp share the hairline."""


def vertex_regions(
    masks: Mapping[str, NDArray[np.integer]], n_vertices: int = FLAME_VERTICES
) -> NDArray[np.uint8]:
    """(V,) ``Region`` of every vertex; teeth behind FLAME's own 5023 are ``TEETH``.

    Without masks everything but teeth counts as face.
    """
    region = np.full(n_vertices, Region.FACE, np.uint8)
    for name, label in _ORDER:
        if name in masks:
            region[masks[name]] = label
    if "face" in masks and "scalp" in masks:
        region[np.intersect1d(masks["face"], masks["scalp"])] = Region.FACE
    region[FLAME_VERTICES:] = Region.TEETH
    return region


def skin_vertices(
    masks: Mapping[str, NDArray[np.integer]], n_vertices: int = FLAME_VERTICES
) -> NDArray[np.bool_]:
    """(V,) True for skin: no eyeballs, hair, lips or bust edge, and no teeth."""
    skin = np.ones(n_vertices, bool)
    skin[FLAME_VERTICES:] = False
    for name in ("left_eyeball", "right_eyeball", "boundary", "lips", "scalp"):
        if name in masks:
            skin[masks[name]] = False
    if "face" in masks and "scalp" in masks:
        skin[np.intersect1d(masks["face"], masks["scalp"])] = True
    return skin


def region_faces(faces: NDArray[np.integer], ids: NDArray[np.integer]) -> NDArray[np.intp]:
    """Indices of the faces (F, 3) all of whose vertices are among ``ids``."""
    inside = np.zeros(int(faces.max()) + 1, bool)
    inside[np.asarray(ids)[np.asarray(ids) < len(inside)]] = True
    return np.flatnonzero(inside[faces].all(1))
