"""The same head through other lenses: focal length and distance change together (paper figure 4).

Splats are geometry, so a person must stay the same person where only the perspective changes.
"""

from __future__ import annotations

from collections.abc import Sequence

from fc4d_ray.cameras import ORBIT_RADIUS_M, Camera, orbit_camera

FOCAL_FACTORS = (0.5, 1.0, 2.0)


def lens_camera(azimuth_deg: float, focal_factor: float, size: int = 512) -> Camera:
    """Orbit camera with a multiple of the default focal length.

    It stands that multiple of the orbit's radius away, so that things in the orbit's centre keep
    their size in the picture. Raises ``ValueError`` where the factor is not positive.
    """
    if focal_factor <= 0:
        raise ValueError(f"expected a positive focal factor, got {focal_factor}")
    camera = orbit_camera(azimuth_deg, size=size, radius_m=ORBIT_RADIUS_M * focal_factor)
    K = camera.K.copy()
    K[[0, 1], [0, 1]] *= focal_factor
    return Camera(K, camera.world_to_camera, size, size)


def spread(values: Sequence[float | None]) -> float | None:
    """Largest minus smallest; None where a value is missing or there is none."""
    known = [value for value in values if value is not None]
    if not known or len(known) < len(values):
        return None
    return max(known) - min(known)
