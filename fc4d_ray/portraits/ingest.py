"""All of ingest on arrays: an image file in, the aligned and matted portrait out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from fc4d_ray.portraits.attached import with_attached_parts
from fc4d_ray.portraits.bare_scalp import without_imagined_hair
from fc4d_ray.portraits.config import IngestConfig
from fc4d_ray.portraits.crop import CropFrame, frame_crop, inside_source, map_box, map_points, warp
from fc4d_ray.portraits.decoding import DecodedPortrait, decode_portrait
from fc4d_ray.portraits.dlib_models import FaceModels
from fc4d_ray.portraits.landmarks import LocatedFace, locate_face
from fc4d_ray.portraits.lip_line import with_shut_lips
from fc4d_ray.portraits.matte import compute_matte
from fc4d_ray.portraits.regions import label_map, segment
from fc4d_ray.portraits.stray_hair import without_stray_hair

LOW_CONFIDENCE = 0.35


@dataclass(frozen=True)
class IngestedPortrait:
    """Everything later stages know about the portrait; pixels are those of the crop."""

    image: NDArray[np.uint8]  # (S, S, 3)
    matte: NDArray[np.uint8]  # (S, S)
    regions: NDArray[np.uint8]  # (S, S) labels, see ``geometry_prior.LABELS``
    landmarks: NDArray[np.float64]  # (68, 2)
    face_box: NDArray[np.float64]  # (4,) left, top, right, bottom
    frame: CropFrame
    source_size: tuple[int, int]
    face: LocatedFace
    matte_confidence: float
    matte_source: str
    warnings: tuple[str, ...]


def ingest_portrait(
    models: FaceModels, path: Path, row: Mapping[str, Any], config: IngestConfig, *, seed: int
) -> IngestedPortrait:
    """Decode, find the face, crop and matte; raises the ``InputError`` that fits the trouble."""
    portrait = decode_portrait(
        path,
        max_pixels=config.max_pixels,
        working_side=config.working_side,
        min_side=config.min_face_px,
    )
    face = locate_face(models, portrait, row, config)
    frame = frame_crop(
        face.landmarks,
        size=config.crop_size,
        face_fraction=config.face_fraction,
        face_centre_y=config.face_centre_y,
    )
    notes = [*portrait.warnings, *face.warnings]
    size = (frame.size, frame.size)
    decoded_to_crop = frame.source_to_crop.copy()
    decoded_to_crop[:, :2] /= portrait.scale
    image = warp(portrait.rgb, decoded_to_crop, size)
    inside = inside_source(frame, portrait.source_size)
    landmarks = map_points(frame.source_to_crop, face.landmarks)
    if face.landmarks_source == "detector":
        landmarks = with_shut_lips(landmarks, image)
    own_alpha = _own_alpha(portrait, decoded_to_crop, size, landmarks)
    regions = segment(
        image,
        landmarks,
        inside,
        working_side=min(config.matte_working_side, frame.size),
        seed=seed,
        foreground=own_alpha,
    )
    if own_alpha is not None:
        matte, confidence, source = own_alpha, 1.0, "alpha"
    else:
        regions = with_attached_parts(regions, image, inside)
        computed = compute_matte(image, regions, inside)
        matte, confidence, source = computed.alpha, computed.confidence, "segmentation"
    if confidence < LOW_CONFIDENCE:
        notes.append(
            f"the outline against the background is uncertain (matte_confidence {confidence:.2f})"
        )
    if frame.scale > 4.0:
        notes.append(f"the face is small: the crop enlarges it {frame.scale:.1f} times")
    labels = without_imagined_hair(label_map(regions, matte), image)
    labels = without_stray_hair(labels, image, landmarks)
    return IngestedPortrait(
        image=image,
        matte=matte,
        regions=labels,
        landmarks=landmarks,
        face_box=map_box(frame.source_to_crop, face.box),
        frame=frame,
        source_size=portrait.source_size,
        face=face,
        matte_confidence=confidence,
        matte_source=source,
        warnings=tuple(notes),
    )


def _own_alpha(
    portrait: DecodedPortrait,
    decoded_to_crop: NDArray,
    size: tuple[int, int],
    landmarks: NDArray,
) -> NDArray[np.uint8] | None:
    """The file's alpha as matte, where it leaves the face and takes a fair part of the rest."""
    if portrait.alpha is None:
        return None
    alpha = warp(portrait.alpha, decoded_to_crop, size, border=cv2.BORDER_CONSTANT)
    columns, rows = np.clip(np.rint(landmarks - 0.5), 0, size[0] - 1).astype(int).T
    covers_face = np.mean(alpha[rows, columns] > 200) > 0.9
    cleared = float(np.mean(alpha < 128))
    return alpha if covers_face and 0.05 < cleared < 0.9 else None
