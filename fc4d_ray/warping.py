"""Depth-guided warping between views (paper section 3.2).

The target's rendered depth lifts each of its pixels into space, the source camera says where that
point was seen, and the source's depth says whether it was seen at all. Depth is z-depth in metres,
0 where there is nothing; pixel centres lie at +0.5 (docs/conventions.md).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import grid_sample

from fc4d_ray.cameras import Camera

HEAD_HEIGHT_M = 0.24
DEPTH_TOLERANCE = 0.03
"""Depth difference, in head heights, up to which two depths mean one surface."""


@dataclass(frozen=True)
class WarpedView:
    """A source image as seen from the target camera."""

    image: Tensor  # [C, H, W], 0 where not visible
    visible: Tensor  # [H, W] bool: the source saw this pixel's surface
    source_pixels: Tensor  # [H, W, 2] where in the source, px


def warp_to_view(
    source_image: Tensor,  # [C, Hs, Ws]
    source_depth: Tensor,  # [Hs, Ws] metres
    source_camera: Camera,
    target_depth: Tensor,  # [H, W] metres
    target_camera: Camera,
    *,
    depth_tolerance_m: float = DEPTH_TOLERANCE * HEAD_HEIGHT_M,
    mode: str = "bicubic",
) -> WarpedView:
    """Look up the source at every surface point the target sees.

    Images and depths must have their camera's size. The source depth is read at the nearest of the
    four surrounding pixels in depth, so that a grazing surface is not called hidden by its own
    slope.
    """
    points = lift(target_depth, target_camera)
    pixels, depth = project(points, source_camera)
    seen = closest_depth(source_depth, pixels, depth)
    inside = _inside(pixels, source_camera) & (depth > 0) & (target_depth > 0)
    visible = inside & (seen > 0) & ((seen - depth).abs() <= depth_tolerance_m)
    image = sample(source_image, pixels, mode=mode)
    return WarpedView(image * visible, visible, pixels)


def lift(depth: Tensor, camera: Camera) -> Tensor:
    """World points (H, W, 3) of a depth map (H, W); those of empty pixels mean nothing."""
    height, width = depth.shape
    K = torch.as_tensor(camera.K).to(depth)
    pose = torch.as_tensor(camera.world_to_camera).to(depth)
    x = (torch.arange(width, dtype=depth.dtype) + 0.5 - K[0, 2]) / K[0, 0]
    y = (torch.arange(height, dtype=depth.dtype) + 0.5 - K[1, 2]) / K[1, 1]
    y, x = torch.meshgrid(y, x, indexing="ij")
    rays = torch.stack([x, y, torch.ones_like(x)], -1)
    return (rays * depth[..., None] - pose[:3, 3]) @ pose[:3, :3]


def project(points: Tensor, camera: Camera) -> tuple[Tensor, Tensor]:
    """World points (..., 3) to pixels (..., 2) and z-depth (...) in metres."""
    pose = torch.as_tensor(camera.world_to_camera).to(points)
    K = torch.as_tensor(camera.K).to(points)
    local = points @ pose[:3, :3].T + pose[:3, 3]
    depth = local[..., 2]
    safe = torch.where(depth.abs() > 1e-6, depth, torch.full_like(depth, 1e-6))
    pixels = local[..., :2] / safe[..., None] * torch.stack([K[0, 0], K[1, 1]]) + K[:2, 2]
    return pixels, depth


def sample(image: Tensor, pixels: Tensor, mode: str = "bilinear") -> Tensor:
    """Values (C, H, W) of an image (C, Hs, Ws) at pixel coordinates (H, W, 2), edges repeated."""
    size = torch.tensor([image.shape[-1], image.shape[-2]]).to(pixels)
    grid = (pixels / size * 2 - 1).clamp(-4, 4)
    return grid_sample(
        image[None], grid[None].to(image), mode=mode, padding_mode="border", align_corners=False
    )[0]


def facing(depth: Tensor, camera: Camera) -> Tensor:
    """Cosine (H, W) between the surface normal and the direction to the camera, 0 where empty.

    Normals come from depth differences; across a silhouette edge the nearer surface's own slope
    is used.
    """
    return cosine_to(camera, lift(depth, camera), surface_normals(depth, camera)) * (depth > 0)


def surface_normals(depth: Tensor, camera: Camera) -> Tensor:
    """Unit normals (H, W, 3) in the world, towards the camera's side; see ``facing``."""
    points = lift(depth, camera)
    right = _one_sided(points, depth, dim=1)
    down = _one_sided(points, depth, dim=0)
    normal = torch.linalg.cross(right, down)
    normal = normal / normal.norm(dim=-1, keepdim=True).clamp_min(1e-12)
    towards = (normal * _rays_to(camera, points)).sum(-1, keepdim=True)
    return torch.where(towards < 0, -normal, normal)


def cosine_to(camera: Camera, points: Tensor, normals: Tensor) -> Tensor:
    """Cosine (H, W) between unit normals (H, W, 3) and the directions to a camera; negative where
    the surface looks away from it."""
    return (normals * _rays_to(camera, points)).sum(-1)


def _rays_to(camera: Camera, points: Tensor) -> Tensor:
    ray = torch.as_tensor(camera.position).to(points) - points
    return ray / ray.norm(dim=-1, keepdim=True).clamp_min(1e-12)


def _one_sided(points: Tensor, depth: Tensor, dim: int) -> Tensor:
    """Difference along ``dim`` on the side where depth changes less."""
    ahead = torch.roll(points, -1, dim) - points
    behind = points - torch.roll(points, 1, dim)
    step_ahead = (torch.roll(depth, -1, dim) - depth).abs()
    step_behind = (depth - torch.roll(depth, 1, dim)).abs()
    return torch.where((step_ahead < step_behind)[..., None], ahead, behind)


def _inside(pixels: Tensor, camera: Camera) -> Tensor:
    x, y = pixels.unbind(-1)
    return (x >= 0) & (y >= 0) & (x <= camera.width) & (y <= camera.height)


def depth_spread(depth: Tensor, pixels: Tensor) -> Tensor:
    """Largest minus smallest depth of the four pixels around each position (H, W), metres.

    An empty pixel among them counts as infinitely far: the spread is then infinite.
    """
    height, width = depth.shape
    corner = (pixels - 0.5).floor().long()
    values = []
    for dx in (0, 1):
        for dy in (0, 1):
            x = (corner[..., 0] + dx).clamp(0, width - 1)
            y = (corner[..., 1] + dy).clamp(0, height - 1)
            values.append(depth[y, x])
    around = torch.stack(values)
    spread = around.amax(0) - around.amin(0)
    return torch.where((around > 0).all(0), spread, torch.inf)


def resize_depth(depth: Tensor, size: tuple[int, int], edge_m: float) -> Tensor:
    """A depth map (h, w) on another grid of the same view, (H, W).

    Bilinear within a surface; where the four pixels around differ by more than ``edge_m``, and at
    the rim of the empty part, the nearest pixel's depth: no depths between near and far appear.
    """
    if tuple(depth.shape) == size:
        return depth
    height, width = size
    y = (torch.arange(height).to(depth) + 0.5) * depth.shape[0] / height
    x = (torch.arange(width).to(depth) + 0.5) * depth.shape[1] / width
    y, x = torch.meshgrid(y, x, indexing="ij")
    pixels = torch.stack([x, y], -1)
    smooth = sample(depth[None], pixels)[0]
    nearest = depth[y.floor().long(), x.floor().long()]
    return torch.where(depth_spread(depth, pixels) <= edge_m, smooth, nearest)


def closest_depth(depth: Tensor, pixels: Tensor, wanted: Tensor) -> Tensor:
    """Of the four pixels around each position, the depth nearest to the wanted one."""
    height, width = depth.shape
    corner = (pixels - 0.5).floor().long()
    best = torch.zeros_like(wanted)
    gap = torch.full_like(wanted, torch.inf)
    for dx in (0, 1):
        for dy in (0, 1):
            x = (corner[..., 0] + dx).clamp(0, width - 1)
            y = (corner[..., 1] + dy).clamp(0, height - 1)
            value = depth[y, x]
            distance = torch.where(value > 0, (value - wanted).abs(), torch.inf)
            nearer = distance < gap
            best = torch.where(nearer, value, best)
            gap = torch.where(nearer, distance, gap)
    return best
