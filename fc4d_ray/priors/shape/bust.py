"""Where a portrait avatar ends: a soft, rounded fade below the shoulders instead of a cut.

Like a vignette, the fade rises with the distance from the neck: one photograph says little of a
back and of the far ends of shoulders, and an avatar of a head need not invent them.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fc4d_ray.images import smoothstep

FADE_TOP_Y = -0.165
"""Height in the head frame, metres, above which everything is fully there, at the neck's axis."""

FADE_BOTTOM_Y = -0.212

HIGHEST_FADE_TOP_Y = -0.065
"""Height above which everything is fully there, however far from the neck: about the mouth."""

_NECK_Z = -0.03
_SHOULDER_M, _SHOULDER_SLOPE = 0.08, 0.35
"""Distance from the neck's axis from which on the fade rises, and how steeply."""
_ARM_M, _ARM_SLOPE = 0.15, 0.7
"""How much more steeply beyond the shoulders."""


def presence(points: NDArray[np.floating]) -> NDArray[np.float32]:
    """Opacity 0…1 of surface points (..., 3) in the head frame."""
    lateral = np.hypot(points[..., 0], points[..., 2] - _NECK_Z)
    rise = _SHOULDER_SLOPE * (lateral - _SHOULDER_M).clip(0)
    rise = rise + _ARM_SLOPE * (lateral - _ARM_M).clip(0)
    rise = np.minimum(rise, HIGHEST_FADE_TOP_Y - FADE_TOP_Y)
    height = points[..., 1] - rise
    return smoothstep(height, FADE_BOTTOM_Y, FADE_TOP_Y).astype(np.float32)
