"""File formats other programs read: splat files and GaussianAvatars folders."""

from __future__ import annotations

from fc4d_ray.avatar.formats.gaussian_avatars import (
    read_gaussian_avatars,
    write_gaussian_avatars,
)
from fc4d_ray.avatar.formats.world_ply import read_world_ply, write_world_ply

__all__ = [
    "read_gaussian_avatars",
    "read_world_ply",
    "write_gaussian_avatars",
    "write_world_ply",
]
