"""Options of the ingest stage."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from fc4d_ray.errors import ConfigError

PILLOW_PIXEL_LIMIT = 178_956_970
"""Pillow refuses larger images whatever we ask for."""


@dataclass(frozen=True)
class IngestConfig:
    """How a portrait is read, which face is taken, and how the crop is framed."""

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    crop_size: int = 768
    """Side of the aligned square crop in pixels."""
    face_fraction: float = 0.265
    """Distance from brows to chin as a fraction of the crop's side."""
    face_centre_y: float = 0.53
    """Height of the point midway between brows and chin, as a fraction of the side from the top."""
    faces: Literal["largest", "single"] = "largest"
    """With several faces: take the largest and warn, or fail with SeveralFaces."""
    min_face_px: int = 40
    """Narrowest face box, in pixels of the source image, that is accepted."""
    max_pixels: int = 120_000_000
    """Images that declare more pixels than this are refused before they are decoded."""
    working_side: int = 3072
    """Longer images are scaled down to this many pixels on their long side while decoding."""
    matte_working_side: int = 320
    """Side at which the crop is segmented before its edges are refined at full size."""

    def __post_init__(self) -> None:
        def require(condition: bool, option: str, rule: str) -> None:
            if not condition:
                raise ConfigError(f"ingest.{option} must be {rule}, found {getattr(self, option)}")

        require(64 <= self.crop_size <= 4096, "crop_size", "between 64 and 4096")
        require(0.1 <= self.face_fraction <= 0.5, "face_fraction", "between 0.1 and 0.5")
        require(0.3 <= self.face_centre_y <= 0.7, "face_centre_y", "between 0.3 and 0.7")
        require(self.faces in ("largest", "single"), "faces", "'largest' or 'single'")
        require(self.min_face_px >= 16, "min_face_px", "at least 16")
        require(
            0 < self.max_pixels <= PILLOW_PIXEL_LIMIT, "max_pixels", f"in 1..{PILLOW_PIXEL_LIMIT}"
        )
        require(self.working_side >= 512, "working_side", "at least 512")
        require(
            128 <= self.matte_working_side <= 1024, "matte_working_side", "between 128 and 1024"
        )
