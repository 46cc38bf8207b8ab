"""From bound splats and a camera to an image: the calls of the rasterizer the avatar makes."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from fc4d_ray.avatar.binding import FaceFrames, WorldSplats
from fc4d_ray.avatar.gaussians import Gaussians
from fc4d_ray.avatar.spherical_harmonics import degree_of, evaluate
from fc4d_ray.cameras import Camera
from fc4d_ray.rendering import rasterization

_CUTOFF_DEVIATIONS = 3.33
_EPS2D_PX2 = 0.3
"""Where the rasterizer cuts a splat off, and the blur it adds; culling here must not cut more."""


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
    visible = (meta["radii"] > 0).reshape(len(means), -1).all(-1)
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
def rows_in_view(gaussians: Gaussians, frames: FaceFrames, camera: Camera) -> Tensor:
    """Indices (n,) of splats that may touch the camera's image; never leaves one out that does.

    ``frames`` has one row per splat. Bounds each splat by the circle around its largest axis.
    """
    offset = (frames.rotation * gaussians.positions[:, None, :]).sum(-1)
    means = frames.scale[:, None] * offset + frames.centre
    world_to_camera = torch.from_numpy(camera.world_to_camera).to(means)
    in_camera = torch.addmm(world_to_camera[:3, 3], means, world_to_camera[:3, :3].T)
    depth = in_camera[:, 2]
    near = depth > 1e-3
    slopes = in_camera[:, :2] / depth.clamp_min(1e-3)[:, None]
    focal = means.new_tensor([camera.K[0, 0], camera.K[1, 1]])
    pixels = slopes * focal + means.new_tensor([camera.K[0, 2], camera.K[1, 2]])
    size = gaussians.log_scales.amax(1).exp() * frames.scale
    # Norm of the projection's Jacobian, whose slopes the rasterizer lets grow with the frustum.
    stretch = torch.sqrt(1 + slopes.square().sum(1))
    radius = focal.max() * size / depth.clamp_min(1e-3) * stretch
    margin = _CUTOFF_DEVIATIONS * (radius.square() + _EPS2D_PX2).sqrt() + 1
    limit = means.new_tensor([camera.width, camera.height])
    inside = (pixels > -margin[:, None]) & (pixels < limit + margin[:, None])
    return (inside.all(1) & near).nonzero()[:, 0]
