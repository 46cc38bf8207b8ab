"""Skin for eyelids, which an open eye hides, with the lashes on their edge.

Lids are filled in the pose in which they are seen, shut, from the skin around the eye: dark under
the brow where the portrait is dark there, light above the cheek. What the portrait shows of an open
eye's lid is a fold a few millimetres high, too little to be stretched over a shut one.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import median_filter
from scipy.sparse import coo_matrix, diags
from scipy.sparse.linalg import spsolve

from fc4d_ray.cameras import Camera, look_at
from fc4d_ray.heads.rig import HeadRig, Region
from fc4d_ray.images import smoothstep
from fc4d_ray.priors.shape.surface_colour import SurfaceColour
from fc4d_ray.rendering.mesh import rasterize_mesh, vertex_normals

_EYES = (("eyeBlinkRight", range(36, 42)), ("eyeBlinkLeft", range(42, 48)))
_LID_SHARE = 0.12
"""Skin that moves by more than this share of a blink's largest way belongs to the lids."""
_SURROUNDINGS_M = 0.026
"""How far around an eye skin lends its colour."""
_CLEAR_OF_LASHES_M = 0.0035
"""Skin nearer to the open eye's outline is mixed with lashes and lends none."""
_LASH_M = (0.0018, 0.0030)
"""Height over the lid's edge up to which lashes are full, and at which they end."""
_LID_SHADOW, _SHADOW_M = np.array([0.30, 0.36, 0.40]), 0.009
"""How much darker, in red, green and blue, a shut lid is at its edge, where it turns down, and up
to which height: blood shows through thin skin, so the shadow is warm."""
_MOVING_SHARE = 0.3
"""Skin that moves by more than this share of the largest way is the lid that shuts."""
_RASTER_M, _RASTER_DISTANCE_M = 0.0003, 4.0
_LASH_TONE = np.array([0.20, 0.17, 0.15])
"""Of the lid's colour, at its edge: brown; a shut eye without a line reads as no eye at all."""


def lid_vertices(rig: HeadRig) -> NDArray[np.bool_]:
    """Vertices (V,) of both eyes' lids, folded parts included."""
    rows = [rig.action_names.index(name) for name, _ in _EYES]
    motion = np.linalg.norm(rig.action_basis[rows], axis=-1).max(0)
    return (motion > _LID_SHARE * motion.max()) & (rig.region == Region.FACE)


def paint_lids(rig: HeadRig, colour: SurfaceColour) -> SurfaceColour:
    """``colour`` with both eyes' lids replaced; all other vertices keep theirs."""
    painted = colour.colour.copy()
    lids = lid_vertices(rig)
    landmarks = rig.landmarks(torch.from_numpy(rig.neutral)).numpy()
    for name, marks in _EYES:
        motion = rig.action_basis[rig.action_names.index(name)]
        outline = landmarks[list(marks)]
        near = np.linalg.norm(rig.neutral - outline.mean(0), axis=1) < _SURROUNDINGS_M
        rows = np.flatnonzero(near & (rig.region == Region.FACE))
        own = lids[rows]
        if not own.any():
            continue
        shut = rig.neutral + motion
        lends = ~own & (_distance_to_loop(rig.neutral[rows], outline) > _CLEAR_OF_LASHES_M)
        lends &= _looks_away(rig, rows, _eyeball_centre(rig, outline))
        filled = _membrane(shut, rig.faces, rows, lends, colour.colour[rows])
        height = _height_over_edge(rig, shut, motion)[rows]
        shadow = 1 - smoothstep(height, 0.0, _SHADOW_M)
        filled *= 1 - _LID_SHADOW * shadow[:, None]
        filled *= 1 - (1 - _LASH_TONE) * (1 - smoothstep(height, *_LASH_M))[:, None]
        painted[rows[own]] = filled[own]
    return replace(colour, colour=painted.astype(np.float32))


def _eyeball_centre(rig: HeadRig, outline: NDArray) -> NDArray[np.float64]:
    eyes = rig.neutral[rig.region == Region.EYE]
    ball = eyes[eyes[:, 0] * outline[:, 0].mean() > 0]
    return 0.5 * (ball.min(0) + ball.max(0)).astype(np.float64)


def _looks_away(rig: HeadRig, rows: NDArray, centre: NDArray) -> NDArray[np.bool_]:
    """Which vertices face away from the eyeball: skin does, the socket behind it does not."""
    normals = vertex_normals(torch.from_numpy(rig.neutral), torch.from_numpy(rig.faces).long())
    return (normals.numpy()[rows] * (rig.neutral[rows] - centre)).sum(1) > 0


def _membrane(
    points: NDArray, faces: NDArray, rows: NDArray, fixed: NDArray[np.bool_], values: NDArray
) -> NDArray[np.float64]:
    """Values (R, 3) that are smooth along the mesh's edges and ``values`` where ``fixed``."""
    index = np.full(len(points), -1)
    index[rows] = np.arange(len(rows))
    triangles = index[faces]
    triangles = triangles[(triangles >= 0).all(1)]
    edges = np.concatenate([triangles[:, :2], triangles[:, 1:], triangles[:, [2, 0]]])
    length = np.linalg.norm(points[rows[edges[:, 0]]] - points[rows[edges[:, 1]]], axis=1)
    link = 1.0 / np.maximum(length, 1e-4)
    graph = coo_matrix((link, tuple(edges.T)), shape=(len(rows),) * 2).tocsr()
    graph = 0.5 * (graph + graph.T)
    stiffness = diags(np.asarray(graph.sum(1)).ravel()) - graph
    mean = values[fixed].mean(0) if fixed.any() else values.mean(0)
    # A trace of the mean everywhere keeps parts of the lid without a way to the skin determined.
    data = np.where(fixed, 1e6, 1e-3)
    right = data[:, None] * np.where(fixed[:, None], values, mean)
    system = (stiffness + diags(data)).tocsc()
    return np.stack([spsolve(system, right[:, c]) for c in range(3)], 1).clip(0, 1)


def _height_over_edge(rig: HeadRig, shut: NDArray, motion: NDArray) -> NDArray[np.float64]:
    """How far (V,) above the shut lid's edge vertices lie as seen from the front, in metres.

    What lies beside the lid counts as far above it.
    """
    way = np.linalg.norm(motion, axis=1)
    is_lid = (way > _MOVING_SHARE * way.max()) & (rig.region == Region.FACE)
    low, high = shut[is_lid, :2].min(0), shut[is_lid, :2].max(0)
    focal = _RASTER_DISTANCE_M / _RASTER_M
    K = np.array([[focal, 0, 0], [0, focal, 0], [0, 0, 1.0]])
    target = np.array([low[0], high[1], 0.0])
    eye = target + np.array([0.0, 0.0, _RASTER_DISTANCE_M])
    camera = Camera(K, look_at(eye, target), *_raster_size(low, high))
    face = rasterize_mesh(shut, rig.faces, camera).face
    shows_lid = (face >= 0) & is_lid[rig.faces[np.maximum(face, 0)]].any(-1)
    has_lid = shows_lid.any(0)
    if not has_lid.any():
        return np.full(len(shut), np.inf)
    lowest = shows_lid.shape[0] - 1 - shows_lid[::-1].argmax(0)
    columns = np.arange(len(has_lid))
    edge = np.interp(columns, columns[has_lid], lowest[has_lid].astype(float))
    edge = median_filter(edge, 9, mode="nearest")
    pixels, _ = camera.project(shut.astype(np.float64))
    column = np.clip(pixels[:, 0].astype(int), 0, len(edge) - 1)
    return np.where(is_lid, (edge[column] - pixels[:, 1]) * _RASTER_M, np.inf)


def _raster_size(low: NDArray, high: NDArray) -> tuple[int, int]:
    width, height = np.ceil((high - low) / _RASTER_M).astype(int) + 1
    return int(width), int(height)


def _distance_to_loop(points: NDArray, loop: NDArray) -> NDArray[np.float64]:
    """Distance (R,) of points to the closed polygon through ``loop`` (6, 3)."""
    start, way = loop, np.roll(loop, -1, 0) - loop
    along = ((points[:, None] - start) * way).sum(-1) / np.square(way).sum(-1)
    nearest = start + along.clip(0, 1)[..., None] * way
    return np.linalg.norm(points[:, None] - nearest, axis=-1).min(1)
