"""Mesh and splat rasterizers: one signature each, whatever the device."""

from __future__ import annotations

from fc4d_ray.rendering.mesh import (
    MeshFragments,
    face_normals,
    interpolate,
    rasterize_mesh,
    vertex_normals,
)
from fc4d_ray.rendering.splats import rasterization

__all__ = [
    "MeshFragments",
    "face_normals",
    "interpolate",
    "rasterization",
    "rasterize_mesh",
    "vertex_normals",
]
