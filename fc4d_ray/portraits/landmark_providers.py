"""68 landmarks of a frame behind one protocol: dlib's, insightface's, or precomputed ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from fc4d_ray.assets.registry import assets_directory, require_asset
from fc4d_ray.errors import InvalidAnnotation, WeightsMissing
from fc4d_ray.portraits.detection import find_faces
from fc4d_ray.portraits.dlib_models import FaceModels
from fc4d_ray.portraits.landmarks import LANDMARKS, box_around, predict_landmarks

_QUICK_THRESHOLD = 0.0
_TURNED_CONFIDENCE = 0.6

MAP_106_TO_68: tuple[int, ...] = (
    1, 10, 12, 14, 16, 3, 5, 7, 0, 23, 21, 19, 32, 30, 28, 26, 17,
    43, 48, 49, 51, 50, 102, 103, 104, 105, 101,
    72, 73, 74, 86, 78, 79, 80, 85, 84,
    35, 41, 42, 39, 37, 36, 89, 95, 96, 93, 91, 90,
    52, 64, 63, 71, 67, 68, 61, 58, 59, 53, 56, 55, 65, 66, 62, 70, 69, 57, 60, 54,
)  # fmt: skip
"""Which of insightface's 106 points (``2d106det``) stands for each of iBUG's 68: jaw from the
subject's right, brows, nose, right and left eye, outer and inner lips. The jaw's 17 are taken from
33 contour points and lie a little elsewhere along it."""


@dataclass(frozen=True)
class FaceLandmarks:
    """One face of one picture; pixel centres at +0.5."""

    points: NDArray[np.float64]  # [68, 2] px
    confidence: NDArray[np.float64]  # [68] 0…1


class LandmarkProvider(Protocol):
    """Where landmarks come from. Instances may remember the last face to find the next sooner."""

    name: str

    def locate(self, picture: NDArray[np.uint8], index: int) -> FaceLandmarks | None:
        """Landmarks of the largest face of picture (H, W, 3) number ``index``, None without one."""

    def forget(self) -> None:
        """The next picture has nothing to do with the last."""


class DlibLandmarks:
    """dlib's detector and 68-point predictor; finds faces up to about 60 degrees of turn."""

    name = "dlib"

    def __init__(self, models: FaceModels | None = None, *, thorough: bool = True) -> None:
        """``thorough`` looks again, slowly, where the quick detector found nothing at the start."""
        self._models = models or FaceModels()
        self._thorough = thorough
        self._box: NDArray[np.float64] | None = None

    def locate(self, picture: NDArray[np.uint8], index: int) -> FaceLandmarks | None:
        """As the protocol says; a face lost for a frame is looked for where it was."""
        found = self._models.find_hog(picture, upsample=1, threshold=_QUICK_THRESHOLD)
        confidence = 1.0
        if found:
            box = max(found, key=lambda face: face.width).box
        elif self._box is not None:
            box, confidence = self._box, _TURNED_CONFIDENCE
        elif self._thorough and (seen := find_faces(self._models, picture)) is not None:
            box, confidence = seen.faces[0].box, _TURNED_CONFIDENCE
        else:
            return None
        points = predict_landmarks(self._models, picture, box)
        self._box = box_around(points)
        return FaceLandmarks(points, np.full(LANDMARKS, confidence))

    def forget(self) -> None:
        self._box = None


class InsightFaceLandmarks:
    """insightface's SCRFD detector and 106 points, of which 68 are used (``MAP_106_TO_68``)."""

    name = "insightface"

    def __init__(self, directory: Path | None = None) -> None:
        self._directory = directory
        self._analysis: Any = None

    def locate(self, picture: NDArray[np.uint8], index: int) -> FaceLandmarks | None:
        """As the protocol says.

        Raises ``WeightsMissing`` where the package or its ``buffalo_l`` models are absent.
        """
        faces = self._loaded().get(np.ascontiguousarray(picture[..., ::-1]))
        if not faces:
            return None
        face = max(faces, key=lambda one: one.bbox[2] - one.bbox[0])
        return from_106(np.asarray(face.landmark_2d_106, np.float64), float(face.det_score))

    def forget(self) -> None:
        """Every picture is searched anew."""

    def _loaded(self) -> Any:
        if self._analysis is None:
            require_asset("insightface-buffalo-l", self._directory)
            try:
                from insightface.app import FaceAnalysis
            except ImportError as error:
                raise WeightsMissing("insightface is missing: pip install insightface") from error
            root = (self._directory or assets_directory()) / "insightface"
            self._analysis = FaceAnalysis(
                name="buffalo_l", root=str(root), allowed_modules=["detection", "landmark_2d_106"]
            )
            self._analysis.prepare(ctx_id=-1, det_size=(640, 640))
        return self._analysis


class PrecomputedLandmarks:
    """Landmarks made elsewhere, one row per picture."""

    name = "precomputed"

    def __init__(
        self,
        points: NDArray[np.floating],  # [T, 68, 2] px, NaN where there was no face
        confidence: NDArray[np.floating] | None = None,  # [T, 68]
    ) -> None:
        if points.ndim != 3 or points.shape[1:] != (LANDMARKS, 2):
            raise InvalidAnnotation(f"landmarks must be (T, 68, 2), found {points.shape}")
        if confidence is not None and confidence.shape != points.shape[:2]:
            raise InvalidAnnotation(f"confidence must be {points.shape[:2]}")
        known = np.isfinite(points).all(-1)
        self._points = np.asarray(points, np.float64)
        given = np.ones(points.shape[:2]) if confidence is None else confidence
        self._confidence = np.where(known, given, 0.0)

    @staticmethod
    def read(path: Path, width: int, height: int) -> PrecomputedLandmarks:
        """From an npz with ``points`` (T, 68, 2) in px, or ``face_landmark_2d`` (T, 68, 3) in
        [0, 1] picture units with −1 where nothing was found, as VHAP's preprocessing stores it.

        Raises ``InvalidAnnotation`` where it holds neither.
        """
        try:
            with np.load(path, allow_pickle=False) as file:
                arrays = {name: file[name] for name in file.files}
        except (OSError, ValueError) as error:
            raise InvalidAnnotation(f"{path} is no landmark file: {error}") from error
        if "points" in arrays:
            return PrecomputedLandmarks(arrays["points"], arrays.get("confidence"))
        if "face_landmark_2d" in arrays:
            stored = np.asarray(arrays["face_landmark_2d"], np.float64)
            if stored.ndim != 3 or stored.shape[2] < 2:
                raise InvalidAnnotation(f"{path}: face_landmark_2d has shape {stored.shape}")
            points = np.where(stored[..., :2] < 0, np.nan, stored[..., :2] * [width, height])
            return PrecomputedLandmarks(points[:, :LANDMARKS])
        raise InvalidAnnotation(f"{path} holds neither points nor face_landmark_2d")

    def locate(self, picture: NDArray[np.uint8], index: int) -> FaceLandmarks | None:
        """As the protocol says; ``InvalidAnnotation`` where there are more pictures than rows."""
        if index >= len(self._points):
            raise InvalidAnnotation(
                f"no landmarks for frame {index}: there are {len(self._points)}"
            )
        confidence = self._confidence[index]
        return FaceLandmarks(self._points[index], confidence) if confidence.any() else None

    def forget(self) -> None:
        """Nothing is remembered."""


def from_106(points: NDArray[np.floating], score: float) -> FaceLandmarks:
    """iBUG's 68 of insightface's 106 points (106, 2); jaw points count half.

    Raises ``InvalidAnnotation`` for another number of points.
    """
    if points.shape != (106, 2):
        raise InvalidAnnotation(f"expected 106 points, found {points.shape}")
    confidence = np.full(LANDMARKS, float(np.clip(score, 0, 1)))
    confidence[:17] *= 0.5
    return FaceLandmarks(points[list(MAP_106_TO_68)].astype(np.float64), confidence)


def locate_all(
    provider: LandmarkProvider, pictures: Sequence[NDArray[np.uint8]]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Landmarks (T, 68, 2) and confidences (T, 68), 0 in frames without a face."""
    points = np.zeros((len(pictures), LANDMARKS, 2))
    confidence = np.zeros((len(pictures), LANDMARKS))
    provider.forget()
    for index, picture in enumerate(pictures):
        found = provider.locate(picture, index)
        if found is not None:
            points[index] = np.nan_to_num(found.points)
            confidence[index] = found.confidence
    return points, confidence
