"""Which vertices each camera sees, from the mesh rasterizer; no gradient flows through it."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fc4d_ray.cameras import Camera
from fc4d_ray.rendering.mesh import rasterize_mesh, vertex_normals

DEPTH_TOLERANCE_M = 0.004
EDGE_PX, EDGE_M = 2.0, 0.010
_RASTER_SIDE = 192
_AROUND = ((0, 0), (1, 0), (-1, 0), (0, 1), (0, -1))


def depth_maps(
    vertices: Tensor,  # [T, V, 3]
    faces: NDArray[np.integer],
    cameras: Sequence[Camera],
    threads: int,
) -> Tensor:
    """z-depth (T, views, H, W) in metres, 0 = nothing, at most 192 pixels wide.

    pytorch3d rasterizes on CUDA where it is installed, numba on the CPU otherwise.
    """
    side = min(_RASTER_SIDE, cameras[0].width)
    height = max(8, round(side * cameras[0].height / cameras[0].width))
    small = [camera.resized(side, height) for camera in cameras]
    if vertices.is_cuda:
        from fc4d_ray.rendering import pytorch3d_backend

        if pytorch3d_backend.is_available():
            views = [pytorch3d_backend.rasterize(vertices, faces, c).z_depth for c in small]
            return torch.stack(views, 1)
    points = vertices.detach().cpu().double().numpy()
    depth = np.zeros((len(points), len(small), height, side), np.float32)

    def draw(task: tuple[int, int]) -> None:
        frame, view = task
        depth[frame, view] = rasterize_mesh(points[frame], faces, small[view]).z_depth

    tasks = [(t, v) for t in range(len(points)) for v in range(len(small))]
    with ThreadPoolExecutor(max_workers=max(1, threads)) as pool:
        list(pool.map(draw, tasks))
    return torch.from_numpy(depth).to(vertices.device)


def facing_and_visible(
    vertices: Tensor,  # [T, V, 3] the whole mesh
    faces: NDArray[np.integer],
    chosen: Tensor,  # [N] vertices asked about
    cameras: Sequence[Camera],
    threads: int,
) -> tuple[Tensor, Tensor, Tensor]:
    """Unit normals (T, N, 3), cosine to each camera (T, views, N), unhidden (T, views, N) bool.

    A vertex is hidden where the surface in front of it is nearer by more than 4 mm.
    """
    index = torch.as_tensor(faces, device=vertices.device)
    normals = vertex_normals(vertices, index)[:, chosen]
    depth = depth_maps(vertices, faces, cameras, threads)
    points = vertices[:, chosen]
    cosines, unhidden = [], []
    for view, camera in enumerate(cameras):
        centre = torch.as_tensor(camera.position).to(points)
        ray = torch.nn.functional.normalize(centre - points, dim=-1)
        cosines.append((normals * ray).sum(-1))
        unhidden.append(_not_behind(points, depth[:, view], camera))
    return normals, torch.stack(cosines, 1), torch.stack(unhidden, 1)


def _not_behind(points: Tensor, depth: Tensor, camera: Camera) -> Tensor:
    """(T, N) whether points (T, N, 3) are at most 4 mm behind the depth maps (T, H, W).

    Points beside an edge of the depth map count as hidden as well: a picture's colour there may
    belong to either side as long as the head is not where it is believed to be.
    """
    height, width = depth.shape[-2:]
    pixels, z = project_all(points, [camera.resized(width, height)])
    pixels, z = pixels[:, 0], z[:, 0]
    shown = torch.ones_like(z, dtype=torch.bool)
    for dx, dy in _AROUND:
        x = (pixels[..., 0] + dx * EDGE_PX).floor().long()
        y = (pixels[..., 1] + dy * EDGE_PX).floor().long()
        inside = (x >= 0) & (y >= 0) & (x < width) & (y < height)
        place = y.clamp(0, height - 1) * width + x.clamp(0, width - 1)
        seen = depth.flatten(1).gather(1, place)
        if dx == 0 and dy == 0:
            shown &= inside & ((seen == 0) | (z < seen + DEPTH_TOLERANCE_M))
        else:
            shown &= inside & (seen > 0) & ((z - seen).abs() < EDGE_M)
    return shown


def project_all(points: Tensor, cameras: Sequence[Camera]) -> tuple[Tensor, Tensor]:
    """Pixels (T, views, N, 2) and z-depth (T, views, N) of world points (T, N, 3)."""
    pose = torch.as_tensor(np.stack([c.world_to_camera for c in cameras])).to(points)
    K = torch.as_tensor(np.stack([c.K for c in cameras])).to(points)
    local = torch.einsum("vab,tnb->tvna", pose[:, :3, :3], points)
    local = local + pose[:, None, :3, 3]
    z = local[..., 2].clamp_min(1e-3)
    focal = torch.stack([K[:, 0, 0], K[:, 1, 1]], -1)[:, None]
    return local[..., :2] / z[..., None] * focal + K[:, None, :2, 2], z


def projection_slope(points: Tensor, cameras: Sequence[Camera]) -> Tensor:
    """(T, views, N, 2, 3) derivative of pixels with respect to world points (T, N, 3)."""
    pose = torch.as_tensor(np.stack([c.world_to_camera for c in cameras])).to(points)
    K = torch.as_tensor(np.stack([c.K for c in cameras])).to(points)
    local = torch.einsum("vab,tnb->tvna", pose[:, :3, :3], points) + pose[:, None, :3, 3]
    z = local[..., 2].clamp_min(1e-3)
    rows = []
    for axis in (0, 1):
        focal = K[:, axis, axis][:, None]
        along = pose[:, None, axis, :3] / z[..., None]
        across = pose[:, None, 2, :3] * (local[..., axis] / z.square())[..., None]
        rows.append(focal[..., None] * (along - across))
    return torch.stack(rows, -2)
