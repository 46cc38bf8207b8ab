"""dlib's face models, found among the files of an installed Python distribution.

The ``face_recognition_models`` distribution is never imported: its module needs
``pkg_resources``, which current setuptools no longer ships.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fc4d_ray.errors import WeightsMissing

DISTRIBUTION = "face_recognition_models"
LANDMARKS_FILE = "shape_predictor_68_face_landmarks.dat"
DESCRIPTOR_FILE = "dlib_face_recognition_resnet_model_v1.dat"
CNN_DETECTOR_FILE = "mmod_human_face_detector.dat"


def model_file(name: str) -> Path:
    """Path of one of the distribution's model files.

    Raises:
        WeightsMissing: the distribution or the file is absent.
    """
    advice = f"install it with `pip install {DISTRIBUTION}`"
    try:
        files = importlib.metadata.files(DISTRIBUTION) or []
    except importlib.metadata.PackageNotFoundError as error:
        raise WeightsMissing(f"dlib's {name} comes with {DISTRIBUTION}: {advice}") from error
    for entry in files:
        if entry.name == name:
            path = Path(str(entry.locate()))
            if path.is_file():
                return path
    raise WeightsMissing(f"the installed {DISTRIBUTION} has no {name}: re{advice}")


@cache
def _digest(path: Path, size: int, modified_ns: int) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def model_digest(name: str) -> str:
    """SHA-256 of a model file, remembered until the file changes."""
    path = model_file(name)
    status = path.stat()
    return _digest(path, status.st_size, status.st_mtime_ns)


@dataclass(frozen=True)
class ScoredBox:
    """A detector's answer: [left, top, right, bottom] in pixels and its score."""

    box: NDArray[np.float64]
    score: float

    @property
    def width(self) -> float:
        return float(self.box[2] - self.box[0])


class FaceModels:
    """dlib's detectors, 68-point predictor and face descriptor, each loaded on first use.

    Images are (h, w, 3) uint8 RGB; coordinates are pixels with centres at +0.5.
    """

    def __init__(self) -> None:
        self._loaded: dict[str, Any] = {}

    def find_hog(
        self, image: NDArray[np.uint8], *, upsample: int, threshold: float
    ) -> list[ScoredBox]:
        """Boxes of the HOG detector with a score above ``threshold``, best first."""
        boxes, scores, _ = self._model("hog").run(np.ascontiguousarray(image), upsample, threshold)
        return [
            ScoredBox(_from_rectangle(box), float(score))
            for box, score in zip(boxes, scores, strict=True)
        ]

    def find_cnn(self, image: NDArray[np.uint8], *, threshold: float) -> list[ScoredBox]:
        """Boxes of the convolutional detector; far slower, finds turned and painted faces."""
        found = self._model("cnn")(np.ascontiguousarray(image), 0)
        return [
            ScoredBox(_from_rectangle(one.rect), float(one.confidence))
            for one in found
            if one.confidence >= threshold
        ]

    def landmarks(self, image: NDArray[np.uint8], box: NDArray) -> NDArray[np.float64]:
        """(68, 2) iBUG landmarks of the face in ``box`` (left, top, right, bottom)."""
        shape = self._model("landmarks")(np.ascontiguousarray(image), _to_rectangle(box))
        return np.array([[p.x, p.y] for p in shape.parts()], np.float64) + 0.5

    def descriptor(self, image: NDArray[np.uint8], box: NDArray) -> NDArray[np.float64]:
        """(128,) identity vector; distances below 0.6 mean the same person to dlib."""
        contiguous = np.ascontiguousarray(image)
        shape = self._model("landmarks")(contiguous, _to_rectangle(box))
        return np.array(self._model("descriptor").compute_face_descriptor(contiguous, shape))

    def _model(self, kind: str) -> Any:
        if kind not in self._loaded:
            self._loaded[kind] = _load(kind)
        return self._loaded[kind]


def _load(kind: str) -> Any:
    import dlib

    if kind == "hog":
        return dlib.get_frontal_face_detector()
    if kind == "cnn":
        return dlib.cnn_face_detection_model_v1(str(model_file(CNN_DETECTOR_FILE)))
    if kind == "landmarks":
        return dlib.shape_predictor(str(model_file(LANDMARKS_FILE)))
    return dlib.face_recognition_model_v1(str(model_file(DESCRIPTOR_FILE)))


def _from_rectangle(rectangle: Any) -> NDArray[np.float64]:
    return np.array(
        [rectangle.left(), rectangle.top(), rectangle.right() + 1, rectangle.bottom() + 1],
        np.float64,
    )


def _to_rectangle(box: NDArray) -> Any:
    import dlib

    left, top, right, bottom = np.rint(np.asarray(box, np.float64)).astype(int).tolist()
    return dlib.rectangle(left, top, right - 1, bottom - 1)
