"""How a training went: a CSV of averages, TensorBoard scalars, and previews."""

from __future__ import annotations

import csv
import math
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from fc4d_ray.errors import StoreError

COLUMNS = (
    "step", "stage", "loss", "psnr", "pixel", "alpha", "offset", "structure", "position", "scale",
    "embedding", "n_splats", "seconds",
)  # fmt: skip


class Curves:
    """Averages over the steps since the last row; rows survive in checkpoints as plain lists."""

    def __init__(self, rows: list[dict[str, Any]], pending: list[dict[str, float]]) -> None:
        self.rows = rows
        self.pending = pending

    def add(self, values: dict[str, float]) -> None:
        """Note the values of one step."""
        self.pending.append(values)

    def close_row(self, step: int, stage: str, n_splats: int, seconds: float) -> dict[str, Any]:
        """Average what was noted into a row."""
        row: dict[str, Any] = {"step": step, "stage": stage}
        for name in sorted({name for values in self.pending for name in values}):
            present = [values[name] for values in self.pending if name in values]
            row[name] = math.fsum(present) / len(present)
        row |= {"n_splats": n_splats, "seconds": round(seconds, 3)}
        self.rows.append(row)
        self.pending.clear()
        return row

    def write(self, path: Path) -> None:
        """All rows so far as CSV; a term a stage does not have stays empty."""
        with open(path, "w", newline="") as file:
            writer = csv.DictWriter(file, COLUMNS, restval="")
            writer.writeheader()
            for row in self.rows:
                writer.writerow({k: _short(v) for k, v in row.items()})


class ScalarLog:
    """TensorBoard scalars of the rows; does nothing without a directory."""

    def __init__(self, directory: Path | None) -> None:
        self._writer = None
        if directory is not None:
            from torch.utils.tensorboard import SummaryWriter

            self._writer = SummaryWriter(str(directory))

    def add(self, row: dict[str, Any]) -> None:
        """Log the numbers of a row."""
        if self._writer is None:
            return
        for name, value in row.items():
            if name not in ("step", "stage"):
                self._writer.add_scalar(f"{row['stage']}/{name}", value, row["step"])

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()


def write_preview(path: Path, images: list[NDArray[np.floating]]) -> None:
    """(H, W, 3) images in [0, 1] side by side as a PNG; ``StoreError`` where that fails."""
    path.parent.mkdir(parents=True, exist_ok=True)
    strip = np.concatenate([np.clip(image, 0, 1) for image in images], 1)
    pixels = cv2.cvtColor((strip * 255).round().astype(np.uint8), cv2.COLOR_RGB2BGR)
    if not cv2.imwrite(str(path), pixels):
        raise StoreError(f"cannot write preview {path}")


def _short(value: Any) -> Any:
    return f"{value:.6g}" if isinstance(value, float) else value
