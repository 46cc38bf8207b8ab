"""Does the face do what its actions say? Measured by the landmark detector on renders.

A pair of renders from one camera, at rest and with an action at 1, gives how far the lips part
and how far the eyes shut. Nothing is filled in: where a render shows the detector no face there
is no figure.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from fc4d_ray.evaluation.identity import eye_aspect_ratio, inner_lip_opening, render_landmarks

MEASURED_EXPRESSIONS: Mapping[str, Mapping[str, float]] = MappingProxyType(
    {
        "jaw open": MappingProxyType({"jawOpen": 1.0}),
        "eyes shut": MappingProxyType({"eyeBlinkLeft": 1.0, "eyeBlinkRight": 1.0}),
        "smile": MappingProxyType({"mouthSmileLeft": 1.0, "mouthSmileRight": 1.0}),
    }
)
"""Action weights that are measured, by the name under which results carry them."""


@dataclass(frozen=True)
class BlinkFall:
    """How much of the eyes' opening a blink takes away: 1 shuts them, 0 does nothing."""

    right: float
    left: float
    mean: float
    """Of the mean aspect ratio of both eyes, not the mean of both falls."""


def lip_opening_growth(rest: NDArray[np.uint8], opened: NDArray[np.uint8]) -> float | None:
    """Growth of the gap between the inner lips from one render to another.

    Each gap is in outer eye distances of its own render.
    """
    before, after = render_landmarks(rest), render_landmarks(opened)
    if before is None or after is None:
        return None
    return inner_lip_opening(after) - inner_lip_opening(before)


def blink_fall(rest: NDArray[np.uint8], shut: NDArray[np.uint8]) -> BlinkFall | None:
    """Fall of the eye aspect ratio from one render to another, as shares of its value at rest."""
    before, after = render_landmarks(rest), render_landmarks(shut)
    if before is None or after is None:
        return None
    open_eyes, shut_eyes = np.array(eye_aspect_ratio(before)), np.array(eye_aspect_ratio(after))
    right, left = 1 - shut_eyes / np.maximum(open_eyes, 1e-6)
    mean = 1 - shut_eyes.mean() / max(open_eyes.mean(), 1e-6)
    return BlinkFall(float(right), float(left), float(mean))
