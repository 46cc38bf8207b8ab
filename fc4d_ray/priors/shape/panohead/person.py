"""One inverted portrait: renders views of the head frame, and is stored in a few files.

``panohead.json`` holds the placement and what the inversion did, ``latent.safetensors`` the latent
and the cameras, ``tuning.safetensors`` the tuned weights as a difference.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fc4d_ray.cameras import Camera
from fc4d_ray.errors import WeightsMissing
from fc4d_ray.priors.shape.panohead.alignment import Placement
from fc4d_ray.priors.shape.panohead.generator import HeadVolume, PanoHeadGenerator, Precision
from fc4d_ray.priors.shape.panohead.inversion import with_near_plane
from fc4d_ray.priors.shape.panohead.tuning_delta import apply_delta, read_delta, write_delta

LATENT_FILE = "latent.safetensors"
TUNING_FILE = "tuning.safetensors"
DESCRIPTION_FILE = "panohead.json"

_SOLID = 0.5
"""Mask from which on a pixel has depth; hair thinner than that shows what is behind it."""
_RAY_CHUNK = 1 << 16


@dataclass(frozen=True)
class RenderedView:
    """What the generator shows a camera of the head frame."""

    rgb: NDArray[np.uint8]  # [H, W, 3] with PanoHead's own background
    mask: NDArray[np.float32]  # [H, W] 0…1
    depth: NDArray[np.float32]  # [H, W] z-depth in metres, 0 where the mask is below a half


class PanoHeadPerson:
    """A head in the generator and its place in the head frame."""

    def __init__(
        self,
        generator: PanoHeadGenerator,
        ws: Tensor,  # [1, L, w]
        placement: Placement,
        precision: Precision | None = None,
    ) -> None:
        self.generator = generator
        self.placement = placement
        self._ws = ws
        self._precision = precision or Precision()
        self._volume: HeadVolume | None = None

    @property
    def volume(self) -> HeadVolume:
        """Tri-grid and background, made once."""
        if self._volume is None:
            with torch.no_grad():
                self._volume = self.generator.synthesize(self._ws, precision=self._precision)
        return self._volume

    def moved(self, placement: Placement) -> PanoHeadPerson:
        """The same head elsewhere in the head frame."""
        other = PanoHeadPerson(self.generator, self._ws, placement, self._precision)
        other._volume = self._volume
        return other

    @torch.no_grad()
    def render(
        self, cameras: Sequence[Camera], depth_size: int, batch: int = 1
    ) -> list[RenderedView]:
        """Views of square cameras; mask and depth are rendered at ``depth_size`` pixels.

        Super-resolution gives its best at PanoHead's own framing (13.37 degrees from 2.7 units).
        """
        views = []
        for first in range(0, len(cameras), batch):
            views += self._render(cameras[first : first + batch], depth_size)
        return views

    @torch.no_grad()
    def render_raw(self, camera: Camera, depth_size: int) -> RenderedView:
        """One view without super-resolution: for framings it was never trained on."""
        labels = self._labels([camera])
        shown = self.generator.render(self.volume, labels, size=depth_size, ray_chunk=_RAY_CHUNK)
        return self._view(shown.raw[0], shown.mask[0, 0], shown.z_depth[0, 0], camera)

    def _render(self, cameras: Sequence[Camera], depth_size: int) -> list[RenderedView]:
        labels = self._labels(cameras)
        coarse = self.generator.render(self.volume, labels, ray_chunk=_RAY_CHUNK)
        images = self.generator.super_resolve(coarse, self.volume, self._precision)
        fine = coarse
        if depth_size != self.generator.settings.neural_size:
            fine = self.generator.render(self.volume, labels, size=depth_size, ray_chunk=_RAY_CHUNK)
        return [
            self._view(images[i], fine.mask[i, 0], fine.z_depth[i, 0], camera)
            for i, camera in enumerate(cameras)
        ]

    def _labels(self, cameras: Sequence[Camera]) -> Tensor:
        labels = np.stack([self.placement.label(camera) for camera in cameras])
        return torch.from_numpy(labels).to(self._ws.device)[None]

    def _view(self, image: Tensor, mask: Tensor, z_depth: Tensor, camera: Camera) -> RenderedView:
        size = (camera.width, camera.height)
        shown = image.permute(1, 2, 0).float().cpu().numpy()
        rgb = (_resized(shown, size) * 127.5 + 128).clip(0, 255).astype(np.uint8)
        opacity = mask.cpu().numpy().clip(0, 1)
        solid = (opacity > _SOLID).astype(np.float32)
        depth = z_depth.cpu().numpy() * self.placement.scale_m
        share = _resized(solid, size)
        filled = _resized(depth * solid, size) / np.maximum(share, 1e-6)
        full_mask = _resized(opacity, size).clip(0, 1)
        known = (full_mask > _SOLID) & (share > 1e-3)
        return RenderedView(rgb, full_mask, np.where(known, filled, 0).astype(np.float32))

    def save(self, directory: Path, delta: dict[str, Tensor] | None, notes: dict[str, Any]) -> None:
        """Write the files named above; without ``delta`` the released weights are meant."""
        from safetensors.torch import save_file

        save_file({"ws": self._ws.cpu().contiguous()}, directory / LATENT_FILE)
        if delta:
            write_delta(directory / TUNING_FILE, delta)
        description = {
            "scale_m": self.placement.scale_m,
            "offset_m": self.placement.offset_m.tolist(),
            "near": self.generator.settings.rays.near,
            "is_tuned": bool(delta),
            **notes,
        }
        (directory / DESCRIPTION_FILE).write_text(json.dumps(description, indent=1))

    @staticmethod
    def load(
        directory: Path, generator: PanoHeadGenerator, precision: Precision | None = None
    ) -> PanoHeadPerson:
        """What ``save`` wrote, over the released ``generator``.

        Raises ``WeightsMissing`` where the files are absent, damaged or another checkpoint's.
        """
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            values = json.loads((directory / DESCRIPTION_FILE).read_text())
            ws = load_file(directory / LATENT_FILE)["ws"]
            placement = Placement(values["scale_m"], np.asarray(values["offset_m"]))
            generator = with_near_plane(generator, values["near"])
            is_tuned = values["is_tuned"]
        except (OSError, KeyError, ValueError, SafetensorError) as error:
            raise WeightsMissing(f"{directory} holds no PanoHead person: {error}") from error
        if is_tuned:
            generator = apply_delta(generator, read_delta(directory / TUNING_FILE))
        device = next(generator.parameters()).device
        return PanoHeadPerson(generator, ws.to(device), placement, precision)


def _resized(image: NDArray[np.floating], size: tuple[int, int]) -> NDArray[np.float32]:
    """Area average downwards, linear upwards."""
    shrinks = size[0] < image.shape[1]
    way = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    return cv2.resize(np.ascontiguousarray(image, np.float32), size, interpolation=way)
