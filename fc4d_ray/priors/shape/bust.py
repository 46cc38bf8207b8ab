"""Where a portrait avatar ends: a soft fade below the shoulders instead of a cut."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fc4d_ray.images import smoothstep

FADE_TOP_Y = -0.165
"""Height in the head frame, metres, above which everything is fully there."""

FADE_BOTTOM_Y = -0.212


def presence(points: NDArray[np.floating]) -> NDArray[np.float32]:
    """Opacity 0…1 of surface points (..., 3) in the head frame."""
    return smoothstep(points[..., 1], FADE_BOTTOM_Y, FADE_TOP_Y).astype(np.float32)
