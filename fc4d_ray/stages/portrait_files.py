"""Reading back what the ingest stage wrote, for the stages after it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fc4d_ray.images import read_png
from fc4d_ray.portraits.crop import CropFrame, inside_source


@dataclass(frozen=True)
class PortraitFiles:
    """The ingest artifact in memory; pixels are those of the square crop."""

    portrait: NDArray[np.uint8]  # [S, S, 3]
    matte: NDArray[np.uint8]  # [S, S]
    labels: NDArray[np.uint8]  # [S, S], portraits/regions.py
    landmarks: NDArray[np.float64]  # [68, 2] px
    face_box: NDArray[np.float64]  # [4] left, top, right, bottom, px
    inside: NDArray[np.bool_]  # [S, S], False where the crop reaches beyond the source image


def read_portrait(directory: Path) -> PortraitFiles:
    """Load an ingest artifact. Raises ``StoreError`` where a file is missing or damaged."""
    facts = json.loads((directory / "ingest.json").read_text())
    portrait = read_png(directory / "portrait.png")
    frame = CropFrame(np.asarray(facts["source_to_crop"], np.float64), portrait.shape[0])
    return PortraitFiles(
        portrait,
        read_png(directory / "matte.png"),
        read_png(directory / "regions.png"),
        np.asarray(facts["landmarks"], np.float64),
        np.asarray(facts["face_box"], np.float64),
        inside_source(frame, tuple(facts["source_size"])),
    )
