"""Mesh rasterization by pytorch3d, for CUDA; same answer as ``mesh.rasterize_mesh``.

pytorch3d has no wheel for every platform, so nothing depends on it. Its screen is y up and x left:
pixels are turned into its normalised coordinates, in which the shorter side spans -1 to 1.
"""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fc4d_ray.cameras import Camera


@dataclass(frozen=True)
class BatchFragments:
    """As ``MeshFragments``, for a batch, as tensors on the vertices' device."""

    face: Tensor  # [T, H, W] int64, -1 = nothing
    barycentric: Tensor  # [T, H, W, 3]
    z_depth: Tensor  # [T, H, W] metres, 0 = nothing


def is_available() -> bool:
    """Whether pytorch3d can be imported."""
    return importlib.util.find_spec("pytorch3d") is not None


def rasterize(
    vertices: Tensor,  # [T, V, 3] world, metres
    faces: NDArray[np.integer] | Tensor,  # [F, 3]
    camera: Camera,
) -> BatchFragments:
    """Nearest triangle per pixel centre, perspective-correct, for T poses of one mesh."""
    from pytorch3d.renderer.mesh.rasterize_meshes import rasterize_meshes
    from pytorch3d.structures import Meshes

    from fc4d_ray.warping import project

    pixels, depth = project(vertices, camera)
    shorter = min(camera.width, camera.height)
    size = pixels.new_tensor([camera.width, camera.height])
    screen = torch.cat([(size - 2 * pixels) / shorter, depth[..., None]], -1)
    index = torch.as_tensor(faces, device=vertices.device).long()
    meshes = Meshes(list(screen), [index] * len(screen))
    face, z_depth, barycentric, _ = rasterize_meshes(
        meshes, image_size=(camera.height, camera.width), blur_radius=0.0, faces_per_pixel=1,
        perspective_correct=True, cull_backfaces=False,
    )  # fmt: skip
    hit = face[..., 0] >= 0
    first = torch.arange(len(screen), device=face.device)[:, None, None] * len(index)
    return BatchFragments(
        torch.where(hit, face[..., 0] - first, -1),
        barycentric[..., 0, :] * hit[..., None],
        z_depth[..., 0] * hit,
    )
