"""From bound splats and a camera to an image: the calls of the rasterizer the avatar makes."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from fc4d_ray.avatar.binding import FaceFrames, WorldSplats
from fc4d_ray.avatar.gaussians import Gaussians
from fc4d_ray.avatar.spherical_harmonics import degree_of, evaluate
from fc4d_ray.avatar.stretch import largest_stretch
from fc4d_ray.cameras import Camera
from fc4d_ray.rendering import rasterization

_CUTOFF_DEVIATIONS = 3.33
_EPS2D_PX2 = 0.3
"""Where the rasterizer cuts a splat off, and the blur it adds; culling here must not cut more."""
_NEAREST_M = 1e-3
_STRETCH_MARGIN = 1.2
"""Slopes at a splat may exceed those at its face's centre."""


@dataclass(frozen=True)
class SplatImage:
    """What one rasterization gives."""

    image: Tensor
    """(H, W, D) composited over the background, not clamped."""
    alpha: Tensor
    """(H, W)"""
    means2d: Tensor
    """(1, N, 2) pixels; ``retain_grad`` before the backward pass gives screen gradients."""
    visible: Tensor
    """(N,) bool: splats that touch the image."""


def rasterize(
    splats: WorldSplats,
    colors: Tensor,  # (N, D)
    camera: Camera,
    background: Tensor,  # (D,)
) -> SplatImage:
    """Draw world-space splats with given colours into one camera."""
    means = splats.means
    image, alpha, meta = rasterization(
        means,
        splats.quats,
        splats.scales,
        splats.opacities,
        colors,
        torch.from_numpy(camera.world_to_camera)[None].to(means),
        torch.from_numpy(camera.K)[None].to(means),
        camera.width,
        camera.height,
        packed=False,
        backgrounds=background[None],
    )
    visible = (meta["radii"][0] > 0).all(-1)
    return SplatImage(image[0], alpha[0, ..., 0], meta["means2d"], visible)


def view_colours(splats: WorldSplats, camera: Camera, degree: int) -> Tensor:
    """Colours (N, 3) of splats seen from a camera, not yet clamped at 0."""
    directions = None
    if degree > 0:
        centre = torch.from_numpy(camera.position).to(splats.means)
        directions = torch.nn.functional.normalize(splats.means - centre, dim=-1)
    return evaluate(splats.sh0, splats.shN, directions, degree)


def render_splats(splats: WorldSplats, camera: Camera, background: Tensor) -> SplatImage:
    """Splats with all the view dependence they store, over a (3,) background."""
    degree = degree_of(splats.shN.shape[1] + 1)
    return rasterize(splats, view_colours(splats, camera, degree).clamp_min(0), camera, background)


@torch.no_grad()
def render_depth(splats: WorldSplats, camera: Camera) -> Tensor:
    """Expected z-depth (H, W) in metres, 0 where less than half of a pixel is covered."""
    means = splats.means
    depth, alpha, _ = rasterization(
        means,
        splats.quats,
        splats.scales,
        splats.opacities,
        means.new_zeros(len(means), 1),
        torch.from_numpy(camera.world_to_camera)[None].to(means),
        torch.from_numpy(camera.K)[None].to(means),
        camera.width,
        camera.height,
        packed=False,
        render_mode="ED",
    )
    return torch.where(alpha[0, ..., 0] > 0.5, depth[0, ..., 0], 0)


@torch.no_grad()
def rows_in_view(gaussians: Gaussians, frames: FaceFrames, camera: Camera) -> Tensor:
    """Indices (n,) of splats that may touch the camera's image; never leaves one out that does.

    ``frames`` has one row per face. Faces are projected, and each splat is bounded by the circle
    that holds all it can reach around its face's centre.
    """
    centre = frames.centre.detach()
    world_to_camera = torch.from_numpy(camera.world_to_camera).to(centre)
    in_camera = torch.addmm(world_to_camera[:3, 3], centre, world_to_camera[:3, :3].T)
    depth = in_camera[:, 2]
    slopes = in_camera[:, :2] / depth.clamp_min(_NEAREST_M)[:, None]
    focal = centre.new_tensor([camera.K[0, 0], camera.K[1, 1]])
    pixels = slopes * focal + centre.new_tensor([camera.K[0, 2], camera.K[1, 2]])
    limit = centre.new_tensor([camera.width, camera.height])
    outside = torch.maximum(-pixels, pixels - limit).amax(1)
    # A point r away from the centre projects at most f r sqrt(1 + slope^2) / (z - r) from it.
    stretch = focal.max() * torch.sqrt(1 + slopes.square().sum(1))
    reach = frames.scale.detach()
    if frames.stretch is not None:
        reach = reach * largest_stretch(frames.stretch.detach())
    per_face = torch.stack([reach, depth, stretch, outside], 1)
    scale, depth, stretch, outside = per_face[gaussians.binding].unbind(1)
    distance = torch.linalg.vector_norm(gaussians.positions, dim=1) * scale
    deviation = gaussians.log_scales.amax(1).exp() * scale
    nearest = (depth - distance).clamp_min(_NEAREST_M)
    cutoff = (_STRETCH_MARGIN * stretch * deviation / nearest).square().add_(_EPS2D_PX2).sqrt_()
    margin = stretch * distance / nearest + _CUTOFF_DEVIATIONS * cutoff + 1
    return ((outside < margin) & (depth + distance > _NEAREST_M)).nonzero()[:, 0]
