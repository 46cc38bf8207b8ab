"""A sphere with a smooth pattern, seen on the orbit: views whose every pixel is known."""

from __future__ import annotations

import numpy as np
import torch

from fc4d_ray.cameras import Camera, orbit_camera, pixel_centres, view_name
from fc4d_ray.priors.image.diffusion.views import GuideView, Portrait

RADIUS = 0.1
SIZE = 64


def sphere_view(
    azimuth_deg: float, size: int = SIZE, *, name: str | None = None, tint: float = 0.0
) -> GuideView:
    """A sphere of ``RADIUS`` round the origin with a smooth pattern, seen on the orbit."""
    camera = orbit_camera(azimuth_deg, size=size, radius_m=0.8, fov_deg=18)
    depth = sphere_depth(camera)
    hit = depth > 0
    points = camera.unproject(pixel_centres(size, size), depth) / RADIUS
    colour = 0.5 + 0.35 * np.sin(6 * points + np.array([0.0, 1.0, 2.0]))
    image = np.where(hit[..., None], colour + tint, 1.0).clip(0, 1)
    return GuideView(
        name or view_name(azimuth_deg), azimuth_deg, camera,
        torch.from_numpy(image).permute(2, 0, 1).float(),
        torch.from_numpy(hit).float(), torch.from_numpy(depth).float(),
    )  # fmt: skip


def sphere_depth(camera: Camera, radius: float = RADIUS) -> np.ndarray:
    """Analytic z-depth (H, W) of a sphere round the origin."""
    ones = np.ones((camera.height, camera.width))
    rays = camera.unproject(pixel_centres(camera.width, camera.height), ones) - camera.position
    a, b = (rays**2).sum(-1), rays @ camera.position
    discriminant = b**2 - a * (camera.position @ camera.position - radius**2)
    return np.where(discriminant > 0, (-b - np.sqrt(discriminant.clip(0))) / a, 0.0)


def sphere_portrait(portrait_id: str = "ann", views: int = 4, tint: float = 0.0) -> Portrait:
    """Coarse views are the pattern with a tint; the reference has none."""
    azimuths = [360.0 * i / views for i in range(views)]
    azimuths = [a - 360 if a > 180 else a for a in azimuths]
    return Portrait(
        portrait_id, sphere_view(0.0, name="reference"),
        tuple(sphere_view(a, tint=tint) for a in azimuths), "a sphere", 3,
    )  # fmt: skip
