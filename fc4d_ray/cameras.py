"""Pinhole cameras and the orbit around the head.

Conventions (docs/conventions.md): the world is the head frame, right-handed, +y up, the face looks
along +z, +x is the subject's left, metres. Cameras follow OpenCV: x right, y down, z forward;
``world_to_camera`` is 4x4; pixel centres lie at +0.5; ``K`` is in pixels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

PANOHEAD_UNIT_M = 0.72
"""Metres per PanoHead world unit: its frame then shows 0.456 m at the head's centre."""

ORBIT_RADIUS_M = 2.7 * PANOHEAD_UNIT_M
ORBIT_FOV_DEG = 13.37
ORBIT_VIEWS = 24


@dataclass(frozen=True)
class Camera:
    """One calibrated pinhole view.

    ``K`` is (3, 3) in pixels, ``world_to_camera`` (4, 4), both float64; ``width`` and ``height``
    are in pixels.
    """

    K: NDArray[np.float64]
    world_to_camera: NDArray[np.float64]
    width: int
    height: int

    @property
    def position(self) -> NDArray[np.float64]:
        """Camera centre in the world, (3,) metres."""
        rotation, translation = self.world_to_camera[:3, :3], self.world_to_camera[:3, 3]
        return -rotation.T @ translation

    def resized(self, width: int, height: int) -> Camera:
        """The same view sampled on another pixel grid."""
        scale = np.diag([width / self.width, height / self.height, 1.0])
        return Camera(scale @ self.K, self.world_to_camera, width, height)

    def cropped(self, left: float, top: float, width: int, height: int) -> Camera:
        """The window of ``width`` x ``height`` pixels whose corner is at (left, top)."""
        K = self.K.copy()
        K[0, 2] -= left
        K[1, 2] -= top
        return Camera(K, self.world_to_camera, width, height)

    def project(self, points: NDArray[np.floating]) -> tuple[NDArray, NDArray]:
        """World points (..., 3) to pixels (..., 2) and z-depth (...) in metres."""
        cam = points @ self.world_to_camera[:3, :3].T + self.world_to_camera[:3, 3]
        depth = cam[..., 2]
        pixels = cam[..., :2] / depth[..., None] * self.K[[0, 1], [0, 1]] + self.K[:2, 2]
        return pixels, depth

    def unproject(self, pixels: NDArray[np.floating], z_depth: NDArray) -> NDArray[np.float64]:
        """Pixels (..., 2) with z-depth (...) in metres to world points (..., 3)."""
        rays = (pixels - self.K[:2, 2]) / self.K[[0, 1], [0, 1]]
        cam = np.concatenate([rays, np.ones_like(rays[..., :1])], -1) * z_depth[..., None]
        return (cam - self.world_to_camera[:3, 3]) @ self.world_to_camera[:3, :3]

    def to_json(self) -> dict[str, Any]:
        return {
            "K": self.K.tolist(),
            "world_to_camera": self.world_to_camera.tolist(),
            "width": self.width,
            "height": self.height,
        }

    @staticmethod
    def from_json(data: dict[str, Any]) -> Camera:
        return Camera(
            np.asarray(data["K"], np.float64),
            np.asarray(data["world_to_camera"], np.float64),
            int(data["width"]),
            int(data["height"]),
        )


def pixel_centres(width: int, height: int) -> NDArray[np.float64]:
    """(height, width, 2) coordinates of the pixel centres, x first."""
    x, y = np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5)
    return np.stack([x, y], -1)


def look_at(position: NDArray, target: NDArray, up: NDArray | None = None) -> NDArray[np.float64]:
    """``world_to_camera`` (4, 4) of a camera at ``position`` facing ``target``."""
    up = np.array([0.0, 1.0, 0.0]) if up is None else up
    forward = (target - position) / np.linalg.norm(target - position)
    right = np.cross(forward, up)
    right /= np.linalg.norm(right)
    rotation = np.stack([right, np.cross(forward, right), forward])
    matrix = np.eye(4)
    matrix[:3, :3] = rotation
    matrix[:3, 3] = -rotation @ position
    return matrix


def orbit_camera(
    azimuth_deg: float,
    elevation_deg: float = 0.0,
    *,
    size: int = 512,
    radius_m: float = ORBIT_RADIUS_M,
    fov_deg: float = ORBIT_FOV_DEG,
) -> Camera:
    """Camera on the orbit, looking at the origin.

    Azimuth 0 faces the subject and grows towards +x (the subject's left), 180 is the back;
    positive elevation is above the head. ``fov_deg`` spans the full image.
    """
    azimuth, elevation = np.deg2rad(azimuth_deg), np.deg2rad(elevation_deg)
    direction = np.array(
        [
            np.cos(elevation) * np.sin(azimuth),
            np.sin(elevation),
            np.cos(elevation) * np.cos(azimuth),
        ]
    )
    focal = 0.5 * size / np.tan(np.deg2rad(fov_deg) / 2)
    K = np.array([[focal, 0, size / 2], [0, focal, size / 2], [0, 0, 1]], np.float64)
    return Camera(K, look_at(direction * radius_m, np.zeros(3)), size, size)


def orbit_azimuths(n_views: int = ORBIT_VIEWS) -> list[float]:
    """Evenly spaced azimuths in degrees, wrapped to (-180, 180], starting at the front."""
    azimuths = [360.0 * i / n_views for i in range(n_views)]
    return [a - 360.0 if a > 180.0 else a for a in azimuths]


def view_name(azimuth_deg: float, elevation_deg: float = 0.0) -> str:
    """File stem of a view: ``az+030_el+00``."""
    return f"az{round(azimuth_deg):+04d}_el{round(elevation_deg):+03d}"
