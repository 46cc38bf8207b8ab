"""Checkpoints of a training: one file, replaced as a whole, readable without trusting it."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import logging
import os
import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from fc4d_ray.avatar.frames import FrameSource, Sample
from fc4d_ray.avatar.gaussians import Gaussians
from fc4d_ray.errors import StoreError

_FILE = "training.pt"
_FORMAT = 1
_PICTURES_LOOKED_AT = 8

logger = logging.getLogger(__name__)


def fingerprint(
    config: Any,
    seed: int,
    source: FrameSource,
    gaussians: Gaussians,
    grown: NDArray[np.floating] | None = None,  # [F]
) -> str:
    """Digest of what decides a training's course.

    Of the pictures' pixels a few stand for all, so that starting does not decode every clip. The
    pipeline needs no more: it keeps checkpoints in a folder named by the digests of all inputs.
    """
    digest = hashlib.sha256()
    digest.update(json.dumps(dataclasses.asdict(config), sort_keys=True, default=str).encode())
    samples = [list(map(int, s)) for s in (*source.static_samples, *source.animated_samples)]
    cameras = [camera.to_json() for camera in source.views]
    digest.update(json.dumps([seed, source.reference_view, samples, cameras]).encode())
    for index in np.linspace(0, len(samples) - 1, _PICTURES_LOOKED_AT).round().astype(int):
        digest.update(np.ascontiguousarray(source.load(Sample(*samples[index]))).tobytes())
    for name, rows in sorted(source.parameters.items()):
        digest.update(name.encode() + rows.detach().cpu().numpy().tobytes())
    for name, array in sorted(gaussians.to_arrays().items()):
        digest.update(name.encode() + array.tobytes())
    if grown is not None:
        digest.update(np.ascontiguousarray(grown, np.float64).tobytes())
    return digest.hexdigest()


def save_checkpoint(directory: Path, mark: str, state: dict[str, Any]) -> None:
    """Put ``state`` (tensors and plain values) in place of the checkpoint before it.

    Raises ``StoreError`` where that fails, a full disk included; the one before then stays.
    """
    path = directory / _FILE
    temporary = directory / f".{_FILE}.{os.getpid()}"
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with open(temporary, "wb") as file:
            torch.save({"format": _FORMAT, "fingerprint": mark, "state": state}, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except (OSError, RuntimeError) as error:
        # torch's writer turns a failed write into a RuntimeError.
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        reason = getattr(error, "strerror", None) or str(error).partition("\n")[0]
        kept = "; the checkpoint before it is intact" if path.is_file() else ""
        raise StoreError(f"cannot write checkpoint {path}: {reason}{kept}") from error


def load_checkpoint(directory: Path, mark: str) -> dict[str, Any] | None:
    """The state to go on from; None where there is none, or (logged) none of this very training."""
    path = directory / _FILE
    if not path.exists():
        return None
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, EOFError, OSError, pickle.UnpicklingError, zipfile.BadZipFile) as error:
        logger.warning("checkpoint %s cannot be read, training starts over: %s", path, error)
        return None
    if content.get("format") != _FORMAT or content.get("fingerprint") != mark:
        logger.warning("checkpoint %s belongs to another training, which starts over", path)
        return None
    return content["state"]
