"""Triangle meshes on CPU: a z-buffer in numba, interpolation and normals in torch.

Visibility is a plain lookup and carries no gradient; ``interpolate`` is differentiable in the
attributes (colours, positions, normals), which is what texture and tracking losses need.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numba import njit
from numpy.typing import NDArray
from torch import Tensor

from fc4d_ray.cameras import Camera


@dataclass(frozen=True)
class MeshFragments:
    """The nearest triangle of every pixel, sampled at the pixel centres."""

    face: NDArray[np.int32]
    """(H, W) index into ``faces``; -1 where nothing was hit."""
    barycentric: NDArray[np.float32]
    """(H, W, 3) perspective-correct weights of the face's corners; 0 where nothing was hit."""
    z_depth: NDArray[np.float32]
    """(H, W) camera z in metres; 0 where nothing was hit."""

    @property
    def covered(self) -> NDArray[np.bool_]:
        """(H, W) True where a triangle was hit."""
        return self.face >= 0


def rasterize_mesh(
    vertices: NDArray[np.floating] | Tensor,  # [V, 3] world, metres
    faces: NDArray[np.integer] | Tensor,  # [F, 3]
    camera: Camera,
    near: float = 0.01,
    *,
    cull_backfaces: bool = False,
) -> MeshFragments:
    """Nearest triangle per pixel centre, perspective-correct.

    Triangles with a corner nearer than ``near`` metres (or not finite) are dropped whole. Pixels
    on an edge shared by two triangles belong to exactly one of them (top-left rule); of two
    triangles at equal depth the one with the lower index wins. A face is a back face where its
    corners run clockwise as the camera sees them. Releases the GIL; safe to call from threads.

    Raises ``ValueError`` for wrong shapes and face indices outside the vertices.
    """
    points = np.ascontiguousarray(_as_numpy(vertices), np.float64)
    triangles = np.ascontiguousarray(_as_numpy(faces), np.int64)
    if points.ndim != 2 or points.shape[1] != 3:
        raise ValueError(f"vertices: expected shape (V, 3), found {points.shape}")
    if triangles.ndim != 2 or triangles.shape[1] != 3:
        raise ValueError(f"faces: expected shape (F, 3), found {triangles.shape}")
    if triangles.size and not (triangles.min() >= 0 and triangles.max() < len(points)):
        raise ValueError(
            f"faces: indices must lie in [0, {len(points)}), "
            f"found {triangles.min()}..{triangles.max()}"
        )
    with np.errstate(divide="ignore", invalid="ignore"):
        pixels, depth = camera.project(points)
    corners = np.concatenate([pixels, depth[:, None]], axis=1)
    face, barycentric, z_depth = _rasterize(
        np.ascontiguousarray(corners, np.float64),
        triangles,
        camera.width,
        camera.height,
        float(near),
        bool(cull_backfaces),
    )
    return MeshFragments(face, barycentric, z_depth)


def interpolate(
    attributes: Tensor,  # [V, C]
    faces: NDArray[np.integer] | Tensor,  # [F, 3]
    fragments: MeshFragments,
) -> Tensor:
    """Per-vertex values at every pixel, (H, W, C); 0 where nothing was hit.

    Differentiable in ``attributes``; the result has their dtype and device.
    """
    device = attributes.device
    height, width = fragments.face.shape
    face = torch.from_numpy(fragments.face).to(device).reshape(-1)
    pixel = torch.nonzero(face >= 0).squeeze(1)
    corner = torch.as_tensor(faces, device=device)[face[pixel].long()].long()
    weight = torch.from_numpy(fragments.barycentric).to(device).reshape(-1, 3)[pixel]
    values = attributes.index_select(0, corner.reshape(-1)).reshape(len(pixel), 3, -1)
    values = (values * weight.to(attributes.dtype)[..., None]).sum(1)
    image = attributes.new_zeros(height * width, attributes.shape[1])
    return image.index_copy(0, pixel, values).reshape(height, width, -1)


def face_normals(vertices: Tensor, faces: Tensor) -> Tensor:
    """Unit normals (..., F, 3) of ``vertices`` (..., V, 3); about zero for areas below 1e-14.

    The corners of ``faces`` (F, 3) run counter-clockwise seen from outside. Differentiable.
    """
    return _normalize(_face_crosses(vertices, faces))


def vertex_normals(vertices: Tensor, faces: Tensor) -> Tensor:
    """Unit normals (..., V, 3), the mean of the adjoining faces weighted by their areas.

    Zero for vertices that no face uses. Differentiable in ``vertices`` (..., V, 3).
    """
    crosses = _face_crosses(vertices, faces)
    normals = torch.zeros_like(vertices)
    for corner in range(3):
        normals = normals.index_add(-2, faces[:, corner].long(), crosses)
    return _normalize(normals)


def face_areas(vertices: NDArray[np.floating], faces: NDArray[np.integer]) -> NDArray[np.floating]:
    """Areas (F,) of the triangles of ``vertices`` (V, 3), in squared units, never quite 0."""
    a, b, c = (vertices[faces[:, corner]] for corner in range(3))
    return 0.5 * np.linalg.norm(np.cross(b - a, c - a), axis=1) + 1e-12


def _face_crosses(vertices: Tensor, faces: Tensor) -> Tensor:
    a, b, c = (vertices.index_select(-2, faces[:, corner].long()) for corner in range(3))
    return torch.linalg.cross(b - a, c - a)


def _normalize(vectors: Tensor) -> Tensor:
    # Areas of square micrometres are 1e-12: the usual epsilon would swallow them.
    return torch.nn.functional.normalize(vectors, dim=-1, eps=1e-14)


def _as_numpy(array: NDArray | Tensor) -> NDArray:
    return array.detach().cpu().numpy() if isinstance(array, Tensor) else np.asarray(array)


@njit(cache=True, nogil=True, error_model="numpy", forceinline=True)
def _edge(ax, ay, bx, by, px, py):
    """Twice the signed area of (a, b, p); exactly negated when a and b change places.

    Rounding must not depend on the edge's direction, or neighbours would leave pinholes.
    """
    if ax < bx or (ax == bx and ay < by):
        return (bx - ax) * (py - ay) - (by - ay) * (px - ax)
    return -((ax - bx) * (py - by) - (ay - by) * (px - bx))


@njit(cache=True, nogil=True, error_model="numpy", forceinline=True)
def _owns_edge(ax, ay, bx, by):
    """Whether pixels exactly on edge a->b belong to the (positively oriented) triangle."""
    return by > ay or (by == ay and bx < ax)


@njit(cache=True, nogil=True, error_model="numpy")
def _rasterize(corners, faces, width, height, near, cull_backfaces):
    """Fill the z-buffer; ``corners`` (V, 3) hold pixel x, pixel y and camera z."""
    face = np.full((height, width), -1, np.int32)
    inverse_depth = np.zeros((height, width), np.float64)
    for f in range(len(faces)):
        i, j, k = faces[f, 0], faces[f, 1], faces[f, 2]
        az, bz, cz = corners[i, 2], corners[j, 2], corners[k, 2]
        if not (az > near and bz > near and cz > near):
            continue
        ax, ay = corners[i, 0], corners[i, 1]
        bx, by = corners[j, 0], corners[j, 1]
        cx, cy = corners[k, 0], corners[k, 1]
        area = _edge(ax, ay, bx, by, cx, cy)
        if not np.isfinite(area) or area == 0.0:
            continue
        # Pixel y points down: counter-clockwise to the eye is a negative area here.
        if area > 0.0:
            if cull_backfaces:
                continue
        else:
            bx, by, bz, cx, cy, cz = cx, cy, cz, bx, by, bz
        left = int(max(np.ceil(min(ax, bx, cx) - 0.5), 0.0))
        right = int(min(np.floor(max(ax, bx, cx) - 0.5), width - 1.0))
        top = int(max(np.ceil(min(ay, by, cy) - 0.5), 0.0))
        bottom = int(min(np.floor(max(ay, by, cy) - 0.5), height - 1.0))
        own_a = _owns_edge(bx, by, cx, cy)
        own_b = _owns_edge(cx, cy, ax, ay)
        own_c = _owns_edge(ax, ay, bx, by)
        for y in range(top, bottom + 1):
            py = y + 0.5
            for x in range(left, right + 1):
                px = x + 0.5
                wa = _edge(bx, by, cx, cy, px, py)
                if wa < 0.0 or (wa == 0.0 and not own_a):
                    continue
                wb = _edge(cx, cy, ax, ay, px, py)
                if wb < 0.0 or (wb == 0.0 and not own_b):
                    continue
                wc = _edge(ax, ay, bx, by, px, py)
                if wc < 0.0 or (wc == 0.0 and not own_c):
                    continue
                total = wa + wb + wc
                if total <= 0.0:
                    continue
                inverse = (wa / az + wb / bz + wc / cz) / total
                if inverse > inverse_depth[y, x]:
                    inverse_depth[y, x] = inverse
                    face[y, x] = f
    return _resolve(corners, faces, face)


@njit(cache=True, nogil=True, error_model="numpy")
def _resolve(corners, faces, face):
    """Perspective-correct barycentrics and depth of the faces that won their pixels."""
    height, width = face.shape
    barycentric = np.zeros((height, width, 3), np.float32)
    z_depth = np.zeros((height, width), np.float32)
    for y in range(height):
        for x in range(width):
            f = face[y, x]
            if f < 0:
                continue
            i, j, k = faces[f, 0], faces[f, 1], faces[f, 2]
            ax, ay, bx, by = corners[i, 0], corners[i, 1], corners[j, 0], corners[j, 1]
            cx, cy = corners[k, 0], corners[k, 1]
            px, py = x + 0.5, y + 0.5
            wa = _edge(bx, by, cx, cy, px, py)
            wb = _edge(cx, cy, ax, ay, px, py)
            wc = _edge(ax, ay, bx, by, px, py)
            total = wa + wb + wc
            wa, wb, wc = wa / corners[i, 2], wb / corners[j, 2], wc / corners[k, 2]
            inverse = wa + wb + wc
            barycentric[y, x, 0] = wa / inverse
            barycentric[y, x, 1] = wb / inverse
            barycentric[y, x, 2] = wc / inverse
            z_depth[y, x] = total / inverse
    return face, barycentric, z_depth
