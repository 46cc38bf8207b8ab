"""From a field of voxels to the triangles of an outer shell that somebody can see."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from fc4d_ray.cameras import orbit_azimuths, orbit_camera
from fc4d_ray.rendering.mesh import rasterize_mesh

_CRUMB = 0.01
"""Separate pieces below this share of the whole are noise of the matte."""
_CRUMB_VERTICES = 0.015
"""The same for pieces of the finished surface, as a share of its vertices."""
_LOOKS_AROUND, _LOOK_SIZE = ((0, 12), (35, 6)), 256
"""Elevations and numbers of the cameras that decide whether a piece is seen, and their size."""
_FEWEST_SEEN = 3
"""Visible triangles from which on a piece is seen and no flicker along an edge."""


def without_scraps(field: NDArray[np.float32]) -> NDArray[np.float32]:
    """The field without small separate parts."""
    labels, count = ndimage.label(field > 0.5)
    if count > 1:
        sizes = ndimage.sum_labels(field > 0.5, labels, np.arange(1, count + 1))
        small = np.flatnonzero(sizes < _CRUMB * sizes.sum()) + 1
        field = np.where(np.isin(labels, small), 0, field)
    return field


def surface_of(field: NDArray, voxel: float, origin: NDArray) -> tuple[NDArray, NDArray]:
    """Vertices (V, 3), metres, and faces (F, 3) of the level 0.5, smoothed.

    ``origin`` is the first voxel's place and ``voxel`` their distance.
    """
    from skimage.measure import marching_cubes

    padded = np.pad(field, 1)
    if padded.max() <= 0.5:
        return np.zeros((0, 3)), np.zeros((0, 3), int)
    vertices, faces, _, _ = marching_cubes(padded, 0.5)
    vertices = _smooth((vertices - 1) * voxel + origin, faces, rounds=6)
    return vertices, faces[:, ::-1]


def _smooth(vertices: NDArray, faces: NDArray, rounds: int) -> NDArray:
    """Taubin smoothing: takes the voxel steps out without shrinking."""
    from scipy.sparse import coo_matrix, diags

    edges = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])
    count = len(vertices)
    adjacency = coo_matrix((np.ones(len(edges)), tuple(edges.T)), shape=(count, count)).tocsr()
    adjacency = ((adjacency + adjacency.T) > 0).astype(float)
    degree = np.asarray(adjacency.sum(1)).ravel()
    average = diags(1 / np.maximum(degree, 1)) @ adjacency
    for _ in range(rounds):
        for step in (0.5, -0.53):
            vertices = vertices + step * (average @ vertices - vertices)
    return vertices


def without_hidden(vertices, faces, rest, head_faces) -> tuple[NDArray, NDArray]:
    """Remove shell faces well inside the head: no camera will ever see them."""
    from scipy.spatial import cKDTree

    if not len(faces):
        return vertices, faces
    normals = np.cross(
        rest[head_faces[:, 1]] - rest[head_faces[:, 0]],
        rest[head_faces[:, 2]] - rest[head_faces[:, 0]],
    )
    normals /= np.linalg.norm(normals, axis=1, keepdims=True) + 1e-12
    centres = rest[head_faces].mean(1)
    _, nearest = cKDTree(centres).query(vertices)
    height = ((vertices - centres[nearest]) * normals[nearest]).sum(1)
    return compacted(vertices, faces[(height[faces] > -0.006).any(1)])


def without_crumbs(vertices: NDArray, faces: NDArray) -> tuple[NDArray, NDArray]:
    """Remove small separate pieces: an end of a ribbon or collar whose rest the matte lost."""
    if not len(faces):
        return vertices, faces
    piece = pieces(len(vertices), faces)
    large = np.bincount(piece) > _CRUMB_VERTICES * len(vertices)
    return compacted(vertices, faces[large[piece[faces[:, 0]]]])


def without_unseen_pieces(vertices, faces, rest, head_faces) -> tuple[NDArray, NDArray]:
    """Remove separate pieces that no camera around sees, such as the balloon's inner side.

    An open mouth would show them.
    """
    if not len(faces):
        return vertices, faces
    together = np.concatenate([rest, vertices])
    all_faces = np.concatenate([head_faces, faces + len(rest)])
    seen = np.zeros(len(all_faces), bool)
    for elevation, count in _LOOKS_AROUND:
        for azimuth in orbit_azimuths(count):
            camera = orbit_camera(azimuth, elevation, size=_LOOK_SIZE)
            winners = rasterize_mesh(together, all_faces, camera).face
            seen[winners[winners >= 0]] = True
    piece = pieces(len(vertices), faces)[faces[:, 0]]
    shown = np.bincount(piece, seen[len(head_faces) :]) >= _FEWEST_SEEN
    return compacted(vertices, faces[shown[piece]])


def compacted(vertices: NDArray, faces: NDArray) -> tuple[NDArray, NDArray]:
    """Without the vertices that no face uses."""
    kept = np.unique(faces)
    index = np.full(len(vertices), -1)
    index[kept] = np.arange(len(kept))
    return vertices[kept], index[faces]


def pieces(count: int, faces: NDArray) -> NDArray[np.intp]:
    """Number (V,) of the connected piece of the surface that each vertex belongs to."""
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    edges = np.concatenate([faces[:, :2], faces[:, 1:]])
    graph = coo_matrix((np.ones(len(edges)), tuple(edges.T)), shape=(count, count))
    return connected_components(graph, directed=False)[1]
