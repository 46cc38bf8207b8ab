"""Quality figures of a finished avatar, measured on its renders.

Identity follows the protocol of ``evaluation.identity``: dlib descriptors, 512 x 512 renders on
white in the default framing. Nothing here is averaged or filled in: a view without a detectable
face has no distance.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fc4d_ray.cameras import Camera
from fc4d_ray.evaluation.identity import BACK_THRESHOLD, face_descriptor, face_detected

IDENTITY_AZIMUTHS_DEG = (0, 30, -30, 45, -45, 60, -60)
BACK_AZIMUTH_DEG = 180
DISTANCE_DIGITS = 4
CHIN = 8
"""Index of the chin's tip among the 68 landmarks."""

RenderAt = Callable[[float, float], NDArray[np.uint8]]
"""(azimuth, elevation) in degrees to a 512 x 512 RGB render on white."""


def identity_figures(
    portrait: NDArray[np.uint8], reference: Camera, render_at: RenderAt
) -> dict[str, Any]:
    """``id_distance_*`` facts and the distance of every view.

    ``id_distance_30`` and ``_45`` are the worse of the two sides, None where either side shows no
    face; ``id_distance_reference`` is measured at the portrait's own azimuth and elevation. All
    are None where the portrait itself shows dlib no face (drawings, extreme poses).
    """
    target = face_descriptor(portrait)
    distances: dict[str, float | None] = {}
    for azimuth_deg in IDENTITY_AZIMUTHS_DEG:
        distances[f"{azimuth_deg:+d}"] = _distance(target, render_at(azimuth_deg, 0.0))
    own_deg = view_direction_deg(reference)
    return {
        "id_distance_0": distances["+0"],
        "id_distance_30": _worse(distances["+30"], distances["-30"]),
        "id_distance_45": _worse(distances["+45"], distances["-45"]),
        "id_distance_60": _worse(distances["+60"], distances["-60"]),
        "id_distance_reference": _distance(target, render_at(*own_deg)),
        "id_distances": distances,
        "reference_azimuth_deg": round(own_deg[0], 2),
        "face_at_back": face_detected(render_at(BACK_AZIMUTH_DEG, 0.0), BACK_THRESHOLD),
    }


def silhouette_iou(
    alpha: NDArray[np.uint8], matte: NDArray[np.uint8], landmarks: NDArray
) -> float | None:
    """Overlap of the render at the portrait's camera with the matte, above the chin.

    ``alpha`` and ``matte`` are (S, S), 0..255, on the crop's pixel grid; ``landmarks`` (68, 2) in
    its pixels. None where both are empty there.
    """
    if alpha.shape != matte.shape:
        raise ValueError(f"expected alpha of shape {matte.shape}, found {alpha.shape}")
    chin = int(np.clip(np.rint(landmarks[CHIN, 1]), 0, len(matte)))
    rendered, seen = alpha[:chin] > 127, matte[:chin] > 127
    union = np.count_nonzero(rendered | seen)
    return None if union == 0 else round(np.count_nonzero(rendered & seen) / union, 4)


def view_direction_deg(camera: Camera) -> tuple[float, float]:
    """Azimuth and elevation in degrees from which a camera sees the head's centre."""
    x, y, z = camera.position
    azimuth = np.rad2deg(np.arctan2(x, z))
    elevation = np.rad2deg(np.arctan2(y, np.hypot(x, z)))
    return float(azimuth), float(elevation)


def describe(figures: Mapping[str, Any]) -> str:
    """One line for a sheet's caption; empty where nothing could be measured."""
    parts = [
        f"{label} {figures[key]:.2f}"
        for key, label in (
            ("id_distance_0", "identity distance 0°:"),
            ("id_distance_30", "±30°:"),
            ("id_distance_45", "±45°:"),
            ("silhouette_iou", "silhouette IoU:"),
        )
        if figures.get(key) is not None
    ]
    return "   ".join(parts)


def _distance(target: NDArray | None, render: NDArray[np.uint8]) -> float | None:
    if target is None:
        return None
    descriptor = face_descriptor(render)
    if descriptor is None:
        return None
    return round(float(np.linalg.norm(target - descriptor)), DISTANCE_DIGITS)


def _worse(one: float | None, other: float | None) -> float | None:
    return None if one is None or other is None else max(one, other)
