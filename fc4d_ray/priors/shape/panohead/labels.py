"""PanoHead's camera labels: 25 numbers, its world, and rays.

Labels hold camera-to-world (16, row-major) and intrinsics normalised by the image's size (9).
PanoHead's axes are ours (x to the subject's left, y up, z out of the face; cameras look along +z
with y down), its unit is its own.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

FOCAL = 4.2647
"""Focal length in image sides: a field of view of 13.37 degrees."""
RADIUS = 2.7
"""Distance of the cameras PanoHead was trained with, in its units."""


def intrinsics() -> NDArray[np.float64]:
    """PanoHead's own normalised intrinsics (3, 3)."""
    return np.array([[FOCAL, 0, 0.5], [0, FOCAL, 0.5], [0, 0, 1.0]])


def make_label(
    camera_to_world: NDArray[np.floating], K: NDArray[np.floating] | None = None
) -> NDArray[np.float32]:
    """Label (25,) of a camera (4, 4) in PanoHead units; ``K`` (3, 3) is normalised."""
    K = intrinsics() if K is None else K
    return np.concatenate([np.ravel(camera_to_world), np.ravel(K)]).astype(np.float32)


def orbit_label(
    azimuth_deg: float, elevation_deg: float = 0.0, radius: float = RADIUS
) -> NDArray[np.float32]:
    """Label of a camera on a sphere, looking at the origin; azimuth 0 faces the head."""
    azimuth, elevation = np.deg2rad(azimuth_deg), np.deg2rad(elevation_deg)
    direction = np.array(
        [
            np.cos(elevation) * np.sin(azimuth),
            np.sin(elevation),
            np.cos(elevation) * np.cos(azimuth),
        ]
    )
    return make_label(looking_at(radius * direction, np.zeros(3)))


def looking_at(position: NDArray, target: NDArray) -> NDArray[np.float64]:
    """Camera-to-world (4, 4) of a camera with level horizon."""
    forward = (target - position) / np.linalg.norm(target - position)
    right = np.cross(forward, [0.0, 1.0, 0.0])
    right /= np.linalg.norm(right)
    matrix = np.eye(4)
    matrix[:3, :3] = np.stack([right, np.cross(forward, right), forward], 1)
    matrix[:3, 3] = position
    return matrix


def sampler_label(
    horizontal: float, vertical: float, radius: float = RADIUS, pivot: NDArray | None = None
) -> NDArray[np.float32]:
    """Label in upstream's sampler angles (radians; pi/2, pi/2 is the front).

    Its vertical angle is no elevation: pi/2 + p lifts the camera by asin(-2 p / pi). The camera
    looks at the pivot but does not move with it.
    """
    azimuth = horizontal - np.pi / 2
    cosine = 1 - 2 * np.clip(vertical, 1e-5, np.pi - 1e-5) / np.pi
    level = np.sqrt(1 - cosine**2)
    position = radius * np.array([level * np.sin(azimuth), cosine, level * np.cos(azimuth)])
    return make_label(looking_at(position, np.zeros(3) if pivot is None else pivot))


def pose_label(rotation: NDArray[np.floating]) -> NDArray[np.float32]:
    """Label of a picture in which the head is turned by ``rotation`` (3, 3), y up, z out of it.

    The camera looks at the origin from PanoHead's own distance.
    """
    world_to_camera = np.eye(4)
    world_to_camera[:3, :3] = np.diag([1.0, -1.0, -1.0]) @ rotation
    world_to_camera[2, 3] = RADIUS
    return make_label(np.linalg.inv(world_to_camera))


def pose_angles_deg(rotation: NDArray[np.floating]) -> NDArray[np.float64]:
    """Yaw, pitch and roll (3,) of a head's rotation (3, 3), as PanoHead's limits mean them."""
    yaw = np.arcsin(np.clip(rotation[2, 0], -1, 1))
    pitch = np.arctan2(rotation[2, 1], rotation[2, 2])
    roll = np.arctan2(rotation[1, 0], rotation[0, 0])
    return np.rad2deg([yaw, pitch, roll])


def flip_label(label: NDArray[np.floating]) -> NDArray:
    """Label of the horizontally flipped picture."""
    flipped = np.array(label)
    flipped[..., [1, 2, 3, 4, 8]] *= -1
    return flipped


def move_camera(labels: Tensor, offset: Tensor) -> Tensor:
    """Labels (..., 25) with their camera moved by (..., 3) PanoHead units."""
    moved = torch.zeros_like(labels)
    moved[..., [3, 7, 11]] = offset.to(labels)
    return labels + moved


def label_rays(labels: Tensor, resolution: int) -> tuple[Tensor, Tensor, Tensor]:
    """Rays of labels (..., 25): origins (..., 3), unit directions (..., R, 3), cosines (R,).

    R = resolution squared, row by row. A ray distance times its cosine is the z-depth; the cosines
    (..., R) are those between each ray and the camera's axis.
    """
    camera_to_world = labels[..., :16].unflatten(-1, (4, 4))
    K = labels[..., 16:].unflatten(-1, (3, 3))
    centres = (torch.arange(resolution, device=labels.device) + 0.5).to(labels) / resolution
    v, u = torch.meshgrid(centres, centres, indexing="ij")
    u, v = u.flatten(), v.flatten()
    fx, fy, cx, cy, skew = (K[..., i, j, None] for i, j in ((0, 0), (1, 1), (0, 2), (1, 2), (0, 1)))
    y = (v - cy) / fy
    x = (u - cx + cy * skew / fy - skew * v / fy) / fx
    local = torch.stack([x, y, torch.ones_like(x)], -1)
    length = local.norm(dim=-1)
    rotated = local @ camera_to_world[..., :3, :3].transpose(-1, -2)
    return camera_to_world[..., :3, 3], rotated / length[..., None], 1 / length
