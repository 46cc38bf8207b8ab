"""All that is measured on one subject of one method: the unit of work of an evaluation.

A subject's figures are written as one file named by what they depend on, so any process can do any
subject, twice does no harm, and what is done is seen from names.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from fc4d_ray.cameras import Camera
from fc4d_ray.errors import InputError, UndecodableImage
from fc4d_ray.evaluation.features import FeatureConfig, FeatureExtractor
from fc4d_ray.evaluation.features.cache import embeddings_of, image_digest
from fc4d_ray.evaluation.identity import BACK_THRESHOLD, face_detected, render_landmarks
from fc4d_ray.evaluation.image_sets.contract import SetImage
from fc4d_ray.evaluation.image_sets.preparation import prepare_image
from fc4d_ray.evaluation.metrics.agreement import Agreement, PosedView, neighbour_agreement
from fc4d_ray.evaluation.metrics.similarity import cosine_to, pairwise_cosine
from fc4d_ray.evaluation.pictures import masked_psnr, masked_ssim
from fc4d_ray.evaluation.protocols import Protocol
from fc4d_ray.store.digests import digest_json, readable_json
from fc4d_ray.store.filesystem import Storage

MEASURE_VERSION = "1"
"""Raised when a figure changes its meaning."""
FOLDER = "subjects"
FACELESS_FROM_DEG = 120.0
"""From here on a detected face is one too many."""
_LANDMARKS_UP_TO_DEG = 60.0
"""Beyond this dlib's landmarks say nothing."""


class ImageMissing(InputError):
    """A method's manifest names a picture that is not there."""


@dataclass(frozen=True)
class SubjectTask:
    """One subject of one method, ready to be sent to any process."""

    method: str
    subject: str
    pictures: Storage
    """Root of the method's folder."""
    images: tuple[SetImage, ...]
    reference: str | None
    """Address of the portrait, None where there is none."""
    protocol: Protocol
    features: FeatureConfig
    truths: tuple[str | None, ...] = ()
    """Address of the true picture of each image, None where there is none; empty: none at all."""

    def path(self, model_ids: Mapping[str, str]) -> str:
        """Where the figures go: by what was measured, with which models."""
        key = digest_json(
            [
                self.method,
                self.pictures.uri,
                [image.to_json() for image in self.images],
                self.reference,
                list(self.truths),
                self.protocol.camera_set,
                dict(model_ids),
                MEASURE_VERSION,
            ]
        )
        return f"{FOLDER}/{self.subject}-{key}.json"


def measure_subject(
    out: Storage, task: SubjectTask, extractors: Mapping[str, FeatureExtractor], lpips: Any | None
) -> str:
    """Measure what is not measured yet and return the path of the figures below ``out``.

    ``extractors`` are the available ones; ``lpips`` compares two (H, W, 3) images or is None.
    Raises ``ImageMissing`` or ``UndecodableImage`` naming the picture; nothing is skipped silently.
    """
    model_ids = {key: extractor.model_id() for key, extractor in extractors.items()}
    model_ids["lpips"] = "none" if lpips is None else lpips.name
    path = task.path(model_ids)
    if out.exists(path):
        return path
    pictures = [_prepared(task, image.path) for image in task.images]
    reference = None
    if task.reference is not None:
        reference = _prepared_bytes(task, _read(task.reference), task.reference)
    rows = [_row(task, image, pixels) for image, pixels in zip(task.images, pictures, strict=True)]
    subject: dict[str, Any] = {"has_reference": reference is not None}
    features: dict[str, str] = {}
    for key, extractor in extractors.items():
        together = pictures if reference is None else [*pictures, reference]
        embeddings, features[key] = embeddings_of(out, extractor, together)
        _compare(key, embeddings.vectors, reference is not None, rows, subject)
    truths = task.truths or (None,) * len(task.images)
    for row, image, pixels, truth in zip(rows, task.images, pictures, truths, strict=True):
        row |= _against_truth(task, truth, pixels, lpips)
        row |= _against_driver(image, pixels, task.protocol)
    subject |= _consistency(_agreement(task, pictures, lpips))
    document = {
        "method": task.method,
        "subject": task.subject,
        "camera_set": task.protocol.camera_set,
        "models": model_ids,
        "features": features,
        "figures": subject,
        "images": rows,
    }
    out.replace(path, readable_json(document))
    return path


def _row(task: SubjectTask, image: SetImage, pixels: NDArray[np.uint8]) -> dict[str, Any]:
    row: dict[str, Any] = {
        "view": image.key.view,
        "frame": image.key.frame,
        "azimuth_deg": image.azimuth_deg,
        "elevation_deg": image.elevation_deg,
        "uri": task.pictures.uri_of(image.path),
        "image": image_digest(pixels),
    }
    if abs(_wrapped(image.azimuth_deg)) >= FACELESS_FROM_DEG:
        head = (np.abs(pixels.astype(int) - task.protocol.background) > 12).any(-1)
        row["face_behind"] = face_detected(pixels, BACK_THRESHOLD, head)
    return row


def _compare(
    key: str,
    vectors: NDArray[np.float32],
    has_reference: bool,
    rows: Sequence[dict[str, Any]],
    subject: dict[str, Any],
) -> None:
    """Enter an extractor's figures into the images' rows and the subject's."""
    views = vectors[: len(rows)]
    reference = vectors[-1] if has_reference else None
    if key == "inception":
        return  # a distribution's, not an image's
    if reference is None:
        return
    if key == "dlib":
        values = np.linalg.norm(views - reference, axis=1)
        name = "id_dlib_distance"
    else:
        values = cosine_to(views, reference)
        name = {"clip": "clip_i", "arcface": "id_arcface"}[key]
    for row, value in zip(rows, values, strict=True):
        row[name] = _number(value)
    subject[f"{key}_reference_valid"] = bool(not np.isnan(reference).any())
    if key == "clip":
        subject["clip_i_pair"] = _number(np.mean(pairwise_cosine(vectors)))


def _against_truth(
    task: SubjectTask, address: str | None, pixels: NDArray[np.uint8], lpips: Any | None
) -> dict[str, float | None]:
    if address is None:
        return {}
    truth = _prepared_bytes(task, _read(address), address)
    head = (np.abs(truth.astype(int) - task.protocol.background) > 12).any(-1)
    mine, true = pixels.astype(np.float32) / 255, truth.astype(np.float32) / 255
    if not head.any():
        raise UndecodableImage(f"{address} shows nothing but background")
    figures: dict[str, float | None] = {
        "psnr": _number(masked_psnr(mine, true, head)),
        "ssim": _number(masked_ssim(mine, true, head)),
    }
    if lpips is not None:
        import torch

        with torch.no_grad():
            figures["lpips"] = _number(float(lpips(torch.from_numpy(mine), torch.from_numpy(true))))
    return figures


def _against_driver(
    image: SetImage, pixels: NDArray[np.uint8], protocol: Protocol
) -> dict[str, float | None]:
    """AKD: mean distance of detected landmarks to the driver's, pixels at the protocol's size."""
    if image.driver_landmarks is None or abs(_wrapped(image.azimuth_deg)) > _LANDMARKS_UP_TO_DEG:
        return {}
    found = render_landmarks(pixels)
    if found is None:
        return {"akd_px": None}
    wanted = np.asarray(image.driver_landmarks)
    return {"akd_px": _number(np.linalg.norm(found - wanted, axis=1).mean())}


def _agreement(
    task: SubjectTask, pictures: Sequence[NDArray[np.uint8]], lpips: Any | None
) -> Agreement | None:
    views = []
    for image, pixels in zip(task.images, pictures, strict=True):
        if image.depth is None or image.camera is None or image.depth_unit_m is None:
            continue
        camera = Camera.from_json(dict(image.camera)).resized(*pixels.shape[1::-1])
        depth = _depth(task, image.depth, image.depth_unit_m)
        if depth.shape != pixels.shape[:2]:
            continue  # the picture had to be resized; its depth would not fit
        views.append(PosedView(image.azimuth_deg, pixels, depth, camera))
    return neighbour_agreement(views, lpips) if len(views) > 1 else None


def _consistency(found: Agreement | None) -> dict[str, Any]:
    if found is None:
        return {}
    return {
        "neighbour_psnr": _number(found.psnr),
        "neighbour_coverage": _number(found.coverage),
        "neighbour_lpips": None if found.lpips is None else _number(found.lpips),
    }


def _prepared(task: SubjectTask, path: str) -> NDArray[np.uint8]:
    name = task.pictures.uri_of(path)
    try:
        data = task.pictures.read(path)
    except FileNotFoundError as error:
        raise ImageMissing(f"{name} is named in the manifest and not there") from error
    return _prepared_bytes(task, data, name)


def _prepared_bytes(task: SubjectTask, data: bytes, name: str) -> NDArray[np.uint8]:
    return prepare_image(data, task.protocol.size, task.protocol.background, name)


def _depth(task: SubjectTask, path: str, unit_m: float) -> NDArray[np.float32]:
    try:
        with Image.open(io.BytesIO(task.pictures.read(path))) as picture:
            return np.asarray(picture).astype(np.float32) * np.float32(unit_m)
    except (OSError, ValueError) as error:
        raise UndecodableImage(
            f"{task.pictures.uri_of(path)} is no depth image: {error}"
        ) from error


def _read(address: str) -> bytes:
    folder, _, name = address.rpartition("/")
    try:
        return Storage(folder).read(name)
    except FileNotFoundError as error:
        raise ImageMissing(f"{address} is not there") from error


def _wrapped(azimuth_deg: float) -> float:
    return (azimuth_deg + 180.0) % 360.0 - 180.0


def _number(value: float | np.floating) -> float | None:
    """A plain number for JSON, None for NaN."""
    return None if np.isnan(value) else round(float(value), 6)
