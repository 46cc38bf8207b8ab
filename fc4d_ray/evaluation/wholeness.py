"""Is the head closed? The share of its silhouette that is opaque, from every side.

A silhouette with alpha above one half is filled, what lies in or below the fade of the bust is
left out, and a rim of four pixels (at 512 x 512) is taken away. Inside, a pixel is whole where
alpha exceeds 0.95. Frames and units: docs/conventions.md.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage

from fc4d_ray.avatar.binding import WorldSplats
from fc4d_ray.avatar.splatting import rasterize
from fc4d_ray.cameras import Camera, orbit_azimuths, orbit_camera
from fc4d_ray.priors.shape.bust import presence

SILHOUETTE_ALPHA = 0.5
WHOLE_ALPHA = 0.95
RIM_PX = 4.0
"""Width of the rim that is left out, pixels of a 512 x 512 render."""
RIM_REFERENCE_SIZE = 512
_FULLY_PRESENT = 0.999
"""Where the bust's fade has not begun."""


@dataclass(frozen=True)
class Wholeness:
    """Share of whole pixels by azimuth in degrees; None where nothing could be measured."""

    shares: Mapping[float, float | None]

    @property
    def worst(self) -> tuple[float, float | None]:
        """The azimuth with the smallest share, and that share; an empty view is the worst."""
        return min(self.shares.items(), key=lambda item: -1.0 if item[1] is None else item[1])


def measure_wholeness(
    splats: WorldSplats, azimuths_deg: Sequence[float] | None = None, size: int = 512
) -> Wholeness:
    """Wholeness of a posed avatar in the default framing, by default from the orbit's 24 sides."""
    shares = {}
    for azimuth in orbit_azimuths() if azimuths_deg is None else azimuths_deg:
        alpha, points = surface_image(splats, orbit_camera(azimuth, size=size))
        shares[azimuth] = whole_share(alpha, measured_region(alpha, points))
    return Wholeness(shares)


@torch.no_grad()
def surface_image(
    splats: WorldSplats, camera: Camera
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Alpha (H, W) and the mean world position (H, W, 3) of what each pixel shows, metres.

    Positions are NaN where alpha is below ``SILHOUETTE_ALPHA``.
    """
    drawn = rasterize(splats, splats.means, camera, splats.means.new_zeros(3))
    alpha = drawn.alpha.cpu().numpy()
    points = drawn.image.cpu().numpy() / np.maximum(alpha, SILHOUETTE_ALPHA)[..., None]
    points[alpha <= SILHOUETTE_ALPHA] = np.nan
    return alpha, points


def above_fade(points: NDArray[np.floating]) -> NDArray[np.bool_]:
    """Which of the points (..., 3), metres, lie where the bust's fade has not begun.

    NaN points take after their nearest neighbour, so that a hole counts where its rim does.
    """
    known = np.isfinite(points).all(-1)
    if not known.any():
        return known
    nearest = ndimage.distance_transform_edt(~known, return_distances=False, return_indices=True)
    return presence(points[tuple(nearest)]) >= _FULLY_PRESENT


def measured_region(
    alpha: NDArray[np.floating], points: NDArray[np.floating], rim_px: float = RIM_PX
) -> NDArray[np.bool_]:
    """The pixels (H, W) that have to be whole: filled silhouette above the fade without its rim."""
    filled = ndimage.binary_fill_holes(alpha > SILHOUETTE_ALPHA)
    region = filled & above_fade(points)
    radius = round(rim_px * len(alpha) / RIM_REFERENCE_SIZE)
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1, 2 * radius + 1))
    return cv2.erode(region.astype(np.uint8), disc).astype(bool)


def whole_share(alpha: NDArray[np.floating], region: NDArray[np.bool_]) -> float | None:
    """Share of the region's pixels that are opaque; None where the region is empty."""
    return float((alpha[region] > WHOLE_ALPHA).mean()) if region.any() else None
