"""First stage: the portrait's bytes to an aligned crop with matte, regions and landmarks."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from fc4d_ray.portraits.config import IngestConfig
from fc4d_ray.portraits.dlib_models import (
    CNN_DETECTOR_FILE,
    LANDMARKS_FILE,
    FaceModels,
    model_digest,
    model_file,
)
from fc4d_ray.portraits.ingest import IngestedPortrait, ingest_portrait
from fc4d_ray.stages.protocol import Facts, StageContext


class IngestStage:
    """Writes ``portrait.png``, ``matte.png``, ``regions.png`` and ``ingest.json``."""

    name = "ingest"
    requires: tuple[str, ...] = ()
    version = "9"

    def __init__(self) -> None:
        self._models = FaceModels()

    def weights_digest(self, config: IngestConfig) -> str:
        """Digest of the two dlib files that shape the crop."""
        digests = [model_digest(name) for name in (LANDMARKS_FILE, CNN_DETECTOR_FILE)]
        return hashlib.sha256("".join(digests).encode()).hexdigest()

    def setup(self, config: IngestConfig) -> None:
        """Fail early where dlib's files are missing; they are loaded on first use."""
        for name in (LANDMARKS_FILE, CNN_DETECTOR_FILE):
            model_file(name)

    def process(self, context: StageContext) -> Facts:
        config: IngestConfig = context.config
        context.progress(0.0, "finding the face")
        portrait = ingest_portrait(
            self._models, context.source, context.row, config, seed=context.seed
        )
        context.progress(0.9, "writing the crop")
        write_portrait(context.output, portrait)
        return {
            "warnings": list(portrait.warnings),
            "matte_confidence": round(portrait.matte_confidence, 4),
            "matte_source": portrait.matte_source,
            "face_pass": portrait.face.look,
            "face_width_px": round(portrait.face.width, 1),
            "source_width": portrait.source_size[0],
            "source_height": portrait.source_size[1],
        }


def write_portrait(directory: Path, portrait: IngestedPortrait) -> None:
    """Leave the stage's files in ``directory``."""
    Image.fromarray(portrait.image).save(directory / "portrait.png")
    Image.fromarray(portrait.matte).save(directory / "matte.png")
    Image.fromarray(portrait.regions).save(directory / "regions.png")
    record = {
        "landmarks": _rounded(portrait.landmarks),
        "face_box": _rounded(portrait.face_box),
        "source_to_crop": portrait.frame.source_to_crop.tolist(),
        "source_size": list(portrait.source_size),
        "warnings": list(portrait.warnings),
        "matte_confidence": round(portrait.matte_confidence, 4),
        "matte_source": portrait.matte_source,
        "landmarks_source": portrait.face.landmarks_source,
        "face_pass": portrait.face.look,
        "region_labels": ["background", "skin", "hair", "clothing"],
    }
    text = json.dumps(record, indent=1, sort_keys=True)
    (directory / "ingest.json").write_text(text + "\n", encoding="utf-8")


def _rounded(values: NDArray) -> list:
    return np.round(values, 3).tolist()
