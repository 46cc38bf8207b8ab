"""Checkpoints of a training: one file, replaced as a whole, readable without trusting it."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
import os
import pickle
import zipfile
from pathlib import Path
from typing import Any

import torch

from fc4d_ray.avatar.frames import FrameSource
from fc4d_ray.avatar.gaussians import Gaussians

_FILE = "training.pt"
_FORMAT = 1

logger = logging.getLogger(__name__)


def fingerprint(config: Any, seed: int, source: FrameSource, gaussians: Gaussians) -> str:
    """Digest of what decides a training's course, pictures' pixels apart."""
    digest = hashlib.sha256()
    digest.update(json.dumps(dataclasses.asdict(config), sort_keys=True, default=str).encode())
    samples = [list(map(int, s)) for s in (*source.static_samples, *source.animated_samples)]
    cameras = [camera.to_json() for camera in source.views]
    digest.update(json.dumps([seed, source.reference_view, samples, cameras]).encode())
    for name, rows in sorted(source.parameters.items()):
        digest.update(name.encode() + rows.detach().cpu().numpy().tobytes())
    for name, array in sorted(gaussians.to_arrays().items()):
        digest.update(name.encode() + array.tobytes())
    return digest.hexdigest()


def save_checkpoint(directory: Path, mark: str, state: dict[str, Any]) -> None:
    """Put ``state`` (tensors and plain values) in place of the checkpoint before it."""
    directory.mkdir(parents=True, exist_ok=True)
    temporary = directory / f".{_FILE}.{os.getpid()}"
    with open(temporary, "wb") as file:
        torch.save({"format": _FORMAT, "fingerprint": mark, "state": state}, file)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, directory / _FILE)


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
