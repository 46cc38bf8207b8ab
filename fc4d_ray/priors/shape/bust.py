"""Where a portrait avatar ends: a soft fade below the shoulders instead of a cut."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fc4d_ray.images import smoothstep

FADE_TOP_Y = -0.165
"""Height in the head frame, metres, above which everything is fully there."""

FADE_BOTTOM_Y = -0.215
_SIDE_RADIUS = (0.165, 0.215)


def presence(points: NDArray[np.floating]) -> NDArray[np.float32]:
    """Opacity 0…1 of surface points (..., 3) in the head frame."""
    vertical = smoothstep(points[..., 1], FADE_BOTTOM_Y, FADE_TOP_Y)
    radius = np.hypot(points[..., 0], points[..., 2])
    sideways = 1 - smoothstep(radius, *_SIDE_RADIUS)
    # Hair may stand wide of the head; only the shoulders fade sideways.
    low = 1 - smoothstep(points[..., 1], -0.13, -0.09)
    return (vertical * (1 - low + low * sideways)).astype(np.float32)
