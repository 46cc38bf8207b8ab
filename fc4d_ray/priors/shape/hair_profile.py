"""No dents in the hair's profile.

Seen from the front, hair that lies on a forehead says nothing of its thickness, and hugs the skull;
hair above the skull's outline is inflated as high as it stands. Seen from the side that would be a
visor, a dent and a beehive. Combed hair has one outline: seen from the middle of the head, its
distance has no valleys narrower than a hand.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from fc4d_ray.images import smoothstep

_CENTRE_M = np.array([0.0, 0.03, -0.01])
_STEP_DEG = 5.0
_LOWEST_DEG = 5.0
"""Elevation, seen from the centre, down to which dents are filled: about the brows."""
_RAMP_DEG = 15.0
_VALLEY_DEG = (35.0, 65.0)
"""Widest valley that is filled, across and up the head."""


def fill_dents(
    field: NDArray[np.float32],  # (N,) occupancy in 0…1
    points: NDArray[np.floating],  # (N, 3) voxel centres, metres
    may_fill: NDArray[np.bool_],  # (N,) where the portrait has hair in front of, or behind, a voxel
    voxel_m: float,
) -> NDArray[np.float32]:
    """Occupancy with the valleys of the hair's surface above the brows filled."""
    way = points - _CENTRE_M
    distance = np.linalg.norm(way, axis=1)
    elevation = np.rad2deg(np.arcsin(way[:, 1] / np.maximum(distance, 1e-9)))
    azimuth = np.rad2deg(np.arctan2(way[:, 0], way[:, 2]))
    upper = elevation > _LOWEST_DEG - _STEP_DEG
    columns = (np.floor((azimuth + 180) / _STEP_DEG).astype(int)) % round(360 / _STEP_DEG)
    rows = np.floor((elevation - _LOWEST_DEG + _STEP_DEG) / _STEP_DEG).astype(int)
    shape = (round((90 - _LOWEST_DEG) / _STEP_DEG) + 1, round(360 / _STEP_DEG))
    rows = rows.clip(0, shape[0] - 1)
    hair = upper & (field > 0.5)
    if not hair.any():
        return field
    outer = np.zeros(shape, np.float32)
    np.maximum.at(outer, (rows[hair], columns[hair]), distance[hair])
    has_hair = outer > 0
    nearest = ndimage.distance_transform_edt(~has_hair, return_distances=False, return_indices=True)
    level = _without_valleys(outer[tuple(nearest)])
    # Between the cells' middles the level is interpolated: no terraces.
    place = [(elevation - _LOWEST_DEG) / _STEP_DEG + 0.5, (azimuth + 180) / _STEP_DEG - 0.5]
    wanted = ndimage.map_coordinates(level, place, order=1, mode="nearest")
    ramp = smoothstep(elevation, _LOWEST_DEG, _LOWEST_DEG + _RAMP_DEG)
    filled = (0.5 + (wanted - distance) / (2 * voxel_m)).clip(0, 1) * ramp
    filled = np.where(upper & may_fill & has_hair[rows, columns], filled, 0)
    return np.maximum(field, filled).astype(np.float32)


def _without_valleys(level: NDArray[np.float32]) -> NDArray[np.float32]:
    """Distances (elevation, azimuth) closed over valleys; at the top all azimuths are one."""
    high, wide = (round(size / _STEP_DEG) // 2 for size in reversed(_VALLEY_DEG))
    over_the_top = np.roll(level[::-1], level.shape[1] // 2, axis=1)
    below = np.repeat(level[:1], 2 * high, 0)
    whole = np.concatenate([below, level, over_the_top[: 2 * high]])
    whole = np.pad(whole, ((0, 0), (2 * wide, 2 * wide)), mode="wrap")
    closed = ndimage.grey_closing(whole, size=(2 * high + 1, 2 * wide + 1))
    closed = ndimage.gaussian_filter(closed, 1.0)
    closed = closed[2 * high : 2 * high + level.shape[0], 2 * wide : -2 * wide]
    return np.maximum(closed, level)
