"""Image files at the borders of stages: uint8 PNG colour, 16-bit PNG depth."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from fc4d_ray.errors import StoreError

DEPTH_LEVELS = 65_000


def write_png(path: Path, image: NDArray[np.uint8]) -> None:
    """Write (H, W), (H, W, 3) RGB or (H, W, 4) RGBA."""
    if image.ndim == 3:
        code = cv2.COLOR_RGB2BGR if image.shape[2] == 3 else cv2.COLOR_RGBA2BGRA
        image = cv2.cvtColor(image, code)
    path.parent.mkdir(parents=True, exist_ok=True)
    if not cv2.imwrite(str(path), image, [cv2.IMWRITE_PNG_COMPRESSION, 3]):
        raise StoreError(f"cannot write {path}")


def read_png(path: Path) -> NDArray:
    """Read what ``write_png`` wrote, with the same channels.

    Raises ``StoreError`` where the file is missing or damaged.
    """
    image = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    if image is None:
        raise StoreError(f"{path} is missing or no readable PNG")
    if image.ndim == 3:
        code = cv2.COLOR_BGR2RGB if image.shape[2] == 3 else cv2.COLOR_BGRA2RGBA
        image = cv2.cvtColor(image, code)
    return image


def write_depth(path: Path, depth: NDArray[np.floating]) -> float:
    """Write z-depth (H, W) in metres, 0 = nothing; returns the metres per level."""
    unit = max(float(depth.max()), 1e-3) / DEPTH_LEVELS
    write_png(path, np.round(depth / unit).astype(np.uint16))
    return unit


def read_depth(path: Path, unit_m: float) -> NDArray[np.float32]:
    """z-depth (H, W) in metres; ``unit_m`` is what ``write_depth`` returned."""
    return read_png(path).astype(np.float32) * np.float32(unit_m)


def smoothstep(value: NDArray, low: float, high: float) -> NDArray:
    """0 below ``low``, 1 above ``high``, smooth between."""
    t = np.clip((value - low) / (high - low), 0.0, 1.0)
    return t * t * (3 - 2 * t)
