"""Runs the networks over many pairs of view and frame.

Features once per view, motion once per clip, keypoints of all pairs at once; then warp and decode
in batches over a flat list of pairs, ordered by view, so that most batches have one source. Frames
leave as they are made: nothing is held but one batch.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from itertools import islice
from typing import ClassVar, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fc4d_ray.errors import ConfigError, StageFailed
from fc4d_ray.priors.video.liveportrait.checkpoint import LivePortraitNetworks
from fc4d_ray.priors.video.liveportrait.decoder_inference import InferenceDecoder
from fc4d_ray.priors.video.liveportrait.driving import SourceFaces, read_faces
from fc4d_ray.priors.video.liveportrait.motion_extractor import FaceMotion
from fc4d_ray.priors.video.liveportrait.view_crops import CropSheet, flow_of, moved_alpha
from fc4d_ray.priors.video.liveportrait.warping import WarpSource, identity_grid

Precision = Literal["auto", "float32", "float16", "bfloat16"]

RELEASED_INPUT_SIZE = 256
DECODER_SCALE = 2
"""The decoder's picture is twice as large as the networks' input."""

_HALVES = {"float16": torch.float16, "bfloat16": torch.bfloat16}


@dataclass(frozen=True)
class InferenceConfig:
    """Where and how the networks run."""

    __pydantic_config__: ClassVar = {"extra": "forbid"}

    device: str = "auto"
    """``auto`` (a CUDA device where there is one), ``cpu``, ``cuda`` or ``cuda:1``."""
    precision: Precision = "auto"
    """Of the convolutions; ``auto``: float16 on CUDA, as upstream, float32 elsewhere. Where a GPU
    makes black patches in float16, float32 helps."""
    batch_size: int = 4
    """Pairs of view and frame warped and decoded together: about 0.5 GB each in float32."""
    motion_batch_size: int = 64
    """Driving frames that are read together."""
    input_size: int = RELEASED_INPUT_SIZE
    """Side of the networks' input in pixels; the released weights expect 256."""
    compile: bool = False
    """Compile warp and decoder: a minute at first, faster afterwards (CUDA)."""

    def __post_init__(self) -> None:
        if self.batch_size < 1 or self.motion_batch_size < 1:
            raise ConfigError("inference.batch_size and motion_batch_size must be at least 1")
        if self.input_size < 32 or self.input_size % 32:
            raise ConfigError(
                f"inference.input_size must be a multiple of 32, got {self.input_size}"
            )
        if self.device not in ("auto", "cpu") and self.device.split(":")[0] != "cuda":
            raise ConfigError(
                f"inference.device must be auto, cpu, cuda or cuda:<number>, found {self.device!r}"
            )
        if self.precision == "float16" and self.device == "cpu":
            raise ConfigError("inference.precision float16 needs a CUDA device, not cpu")

    def resolved_device(self) -> torch.device:
        """Where the networks run on this machine."""
        if self.device == "auto":
            return torch.device("cuda" if torch.cuda.is_available() else "cpu")
        return torch.device(self.device)

    def half_type(self, device: torch.device) -> torch.dtype | None:
        """Type of the convolutions on ``device`` where it is not float32."""
        if self.precision == "auto":
            return torch.float16 if device.type == "cuda" else None
        return _HALVES.get(self.precision)


@dataclass(frozen=True)
class Sources:
    """V views, ready to be driven."""

    sheet: CropSheet
    faces: SourceFaces
    warp: WarpSource


class FaceAnimator:
    """The networks on one device. Results do not depend on how pairs fall into batches."""

    def __init__(self, networks: LivePortraitNetworks, config: InferenceConfig) -> None:
        self.config = config
        self.device = config.resolved_device()
        self._half_type = config.half_type(self.device)
        self.networks = networks.to(self.device)
        self._decoder = InferenceDecoder(networks.decoder).eval().to(self.device)
        self._warp_and_decode = self._pictures_of
        if config.compile:
            self._warp_and_decode = torch.compile(self._pictures_of, dynamic=False)

    @property
    def crop_size(self) -> int:
        """Side of the crops that are cut out and laid back."""
        return DECODER_SCALE * self.config.input_size

    @torch.inference_mode()
    def read_sources(
        self,
        sheet: CropSheet,
        eyes: NDArray[np.floating] | None = None,  # [V, 2]
        lips: NDArray[np.floating] | None = None,  # [V, 1]
    ) -> Sources:
        """Everything that depends on the views alone. Openness only where retargeting wants it."""
        pictures = torch.nn.functional.avg_pool2d(sheet.pictures, DECODER_SCALE)
        features, motions = [], []
        for batch in pictures.split(self.config.batch_size):
            with self._half():
                features.append(self.networks.appearance(batch).float())
                motions.append(self.networks.motion(batch))
        faces = read_faces(_joined(motions), self._ratios(eyes), self._ratios(lips))
        volume = torch.cat(features)
        self._require_finite("features", volume, faces.keypoints)
        with self._half():
            warp = self.networks.warping.prepare(volume, faces.keypoints)
        return Sources(sheet, faces, warp)

    @torch.inference_mode()
    def read_driving(self, crops: Iterable[NDArray[np.uint8]]) -> FaceMotion:
        """Motion of the faces in (S, S, 3) crops, S being the networks' input size."""
        motions = []
        remaining = iter(crops)
        while frames := list(islice(remaining, self.config.motion_batch_size)):
            pictures = torch.from_numpy(np.stack(frames)).to(self.device)
            with self._half():
                motions.append(self.networks.motion(pictures.permute(0, 3, 1, 2).float() / 255))
        if not motions:
            raise ValueError("no frames to read motion from")
        return _joined(motions)

    @torch.inference_mode()
    def frames(self, sources: Sources, driven: Tensor) -> Iterator[NDArray[np.uint8]]:
        """Frames (F, F, 4) RGBA of keypoints (V, N, K, 3): all of the first view, then the next.

        Raises ``StageFailed`` where half precision overflowed.
        """
        n_views, n_frames = driven.shape[:2]
        flat = driven.to(self.device).flatten(0, 1)
        view_of = torch.arange(n_views, device=self.device).repeat_interleave(n_frames)
        for keypoints, views in zip(
            flat.split(self.config.batch_size), view_of.split(self.config.batch_size), strict=True
        ):
            pictures, flow = self._batch(sources.warp, keypoints, views)
            alpha = moved_alpha(sources.sheet.alpha[views], flow)
            frames = sources.sheet.frames(views, pictures, alpha).cpu().numpy()
            yield from frames

    def pictures(self, sources: Sources, driven: Tensor, views: Tensor) -> tuple[Tensor, Tensor]:
        """Crops (B, 3, C, C) and flow of B keypoint sets (B, K, 3), one batch."""
        with torch.inference_mode():
            return self._batch(sources.warp, driven.to(self.device), views.to(self.device))

    def _batch(self, warp: WarpSource, keypoints: Tensor, views: Tensor) -> tuple[Tensor, Tensor]:
        n = len(keypoints)
        if self.config.compile and n < self.config.batch_size:
            # One shape, one graph.
            extra = self.config.batch_size - n
            keypoints = torch.cat([keypoints, keypoints[-1:].expand(extra, -1, -1)])
            views = torch.cat([views, views[-1:].expand(extra)])
        if bool((views == views[0]).all()):
            source = warp[views[:1]].expanded(len(views))
        else:
            source = warp[views]
        with self._half():
            pictures, flow = self._warp_and_decode(source, keypoints)
        self._require_finite("picture", pictures, flow)
        return pictures[:n].float(), flow[:n].float()

    def _pictures_of(self, source: WarpSource, keypoints: Tensor) -> tuple[Tensor, Tensor]:
        warping = self.networks.warping
        motion = warping.dense_motion_network(source, keypoints)
        grid = identity_grid(list(motion.deformation.shape[1:4]), motion.deformation)
        picture = self._decoder(warping.apply_motion(source, motion))
        return picture, flow_of(motion.deformation, grid)

    def _ratios(self, values: NDArray[np.floating] | None) -> Tensor | None:
        if values is None:
            return None
        return torch.as_tensor(values, dtype=torch.float32).to(self.device)

    def _half(self) -> AbstractContextManager[None]:
        half = self._half_type
        return torch.autocast(self.device.type, half or torch.bfloat16, enabled=half is not None)

    def _require_finite(self, what: str, *values: Tensor) -> None:
        if not all(bool(value.isfinite().all()) for value in values):
            raise StageFailed(
                f"the {what} holds values that are no finite numbers; "
                f"video.inference.precision is {self.config.precision}: try float32"
            )


def _joined(motions: Sequence[FaceMotion]) -> FaceMotion:
    return FaceMotion(
        *(torch.cat([getattr(motion, field) for motion in motions]) for field in vars(motions[0]))
    )
