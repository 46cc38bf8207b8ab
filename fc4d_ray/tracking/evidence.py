"""What pictures tell a tracker: frames of several cameras, mattes, landmarks, on several scales."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fc4d_ray.cameras import Camera
from fc4d_ray.errors import TrackingFailed

N_LANDMARKS = 68
_FARTHEST_PX = 24.0


@dataclass(frozen=True)
class MultiviewFrames:
    """T frames of V cameras that see one person at the same times.

    Raises ``TrackingFailed`` where sizes differ, numbers are not finite, or no landmark is seen.
    """

    cameras: Sequence[Camera]
    """All of one size."""
    images: NDArray[np.uint8]
    """(T, V, H, W, 3) over any background."""
    landmarks: NDArray[np.float64]
    """(T, V, 68, 2) px; what stands where the confidence is 0 is ignored."""
    confidence: NDArray[np.float64]
    """(T, V, 68) 0…1: 0 where a view has no detection (back views) or the point is hidden."""
    mattes: NDArray[np.uint8] | None = None
    """(T, V, H, W), 255 = the person; None where unknown: then there is no silhouette term."""
    clip: NDArray[np.integer] | None = None
    """(T,) which clip each frame belongs to; only frames of one clip follow one another."""

    def __post_init__(self) -> None:
        def require(condition: bool, text: str) -> None:
            if not condition:
                raise TrackingFailed(text)

        require(self.images.ndim == 5 and self.images.shape[-1] == 3, "images: expected (T, V, H, "
                f"W, 3), found {self.images.shape}")  # fmt: skip
        n_frames, n_views, height, width = self.images.shape[:4]
        require(n_frames > 0 and n_views > 0, "there are no frames to track")
        require(self.images.dtype == np.uint8, f"images must be uint8, found {self.images.dtype}")
        require(len(self.cameras) == n_views, f"{len(self.cameras)} cameras for {n_views} views")
        for view, camera in enumerate(self.cameras):
            size = (camera.width, camera.height)
            require(
                size == (width, height),
                f"view {view}: the camera is {size}, the frames are {(width, height)}",
            )
        shape = (n_frames, n_views, N_LANDMARKS)
        require(
            self.landmarks.shape == (*shape, 2) and self.confidence.shape == shape,
            f"landmarks: expected {(*shape, 2)}, found {self.landmarks.shape} "
            f"with confidence {self.confidence.shape}",
        )
        require(
            bool(np.isfinite(self.confidence).all() and (self.confidence >= 0).all()),
            "confidences must be finite and not negative",
        )
        used = self.confidence > 0
        bad = used & ~np.isfinite(self.landmarks).all(-1)
        if bad.any():
            frame, view, _ = (int(i) for i in np.argwhere(bad)[0])
            raise TrackingFailed(f"frame {frame}, view {view}: landmarks that are no numbers")
        require(bool(used.any()), "no face was found in any frame")
        if self.mattes is not None:
            expected = (n_frames, n_views, height, width)
            require(
                self.mattes.shape == expected,
                f"mattes: expected {expected}, found {self.mattes.shape}",
            )
        if self.clip is not None:
            require(len(self.clip) == n_frames, f"clip: {len(self.clip)} of {n_frames} frames")

    @property
    def n_frames(self) -> int:
        return self.images.shape[0]

    @property
    def n_views(self) -> int:
        return self.images.shape[1]

    def continues(self) -> NDArray[np.bool_]:
        """(T - 1,) whether frame t + 1 follows frame t."""
        if self.clip is None:
            return np.ones(self.n_frames - 1, bool)
        return np.asarray(self.clip)[1:] == np.asarray(self.clip)[:-1]

    def only(self, frames: NDArray[np.integer]) -> MultiviewFrames:
        """Some of the frames, in the given order."""
        return MultiviewFrames(
            self.cameras, self.images[frames], self.landmarks[frames], self.confidence[frames],
            None if self.mattes is None else self.mattes[frames],
            None if self.clip is None else np.asarray(self.clip)[frames],
        )  # fmt: skip


def stack_frames(frames: Sequence[Sequence[NDArray[np.uint8]]]) -> NDArray[np.uint8]:
    """(T, V, H, W, 3) of pictures per frame and view.

    Raises ``TrackingFailed`` naming the first one of another size.
    """
    if not frames or not frames[0]:
        raise TrackingFailed("there are no frames to track")
    shape = frames[0][0].shape
    for t, views in enumerate(frames):
        if len(views) != len(frames[0]):
            raise TrackingFailed(f"frame {t} has {len(views)} views, the first {len(frames[0])}")
        for v, picture in enumerate(views):
            if picture.shape != shape:
                raise TrackingFailed(
                    f"frame {t}, view {v} is {picture.shape[:2]}, the first was {shape[:2]}"
                )
    return np.stack([np.stack(list(views)) for views in frames])


@dataclass(frozen=True)
class Scale:
    """The evidence at one picture size."""

    cameras: tuple[Camera, ...]
    images: Tensor  # [T, V, 3, H, W] uint8
    outside: Tensor | None  # [T, V, 1, H, W] float16: px to the matte's edge, positive outside

    def to(self, device: torch.device | str) -> Scale:
        outside = None if self.outside is None else self.outside.to(device)
        return Scale(self.cameras, self.images.to(device), outside)


def make_scale(frames: MultiviewFrames, divisor: int) -> Scale:
    """The frames at an n-th of their size, each pixel the mean of what it covers."""
    n_frames, n_views, height, width = frames.images.shape[:4]
    size = (max(width // divisor, 8), max(height // divisor, 8))
    images = np.empty((n_frames, n_views, size[1], size[0], 3), np.uint8)
    outside = None
    if frames.mattes is not None:
        outside = np.empty((n_frames, n_views, 1, size[1], size[0]), np.float16)
    for t in range(n_frames):
        for v in range(n_views):
            images[t, v] = cv2.resize(frames.images[t, v], size, interpolation=cv2.INTER_AREA)
            if outside is not None:
                outside[t, v, 0] = _signed_distance(frames.mattes[t, v], size)
    return Scale(
        tuple(camera.resized(*size) for camera in frames.cameras),
        torch.from_numpy(images).permute(0, 1, 4, 2, 3).contiguous(),
        None if outside is None else torch.from_numpy(outside),
    )


def _signed_distance(matte: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.floating]:
    """Pixels to the edge of the matte, positive outside; on the picture's own border 0 at most.

    A person cut by the picture's border has no edge there.
    """
    small = cv2.resize(matte, size, interpolation=cv2.INTER_AREA)
    inside = (small > 127).astype(np.uint8)
    if not inside.any():
        return np.zeros(small.shape, np.float32)
    within = cv2.distanceTransform(inside, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    beyond = cv2.distanceTransform(1 - inside, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    # The transform measures to pixel centres; the edge lies half a pixel before them.
    signed = np.where(inside > 0, 0.5 - within, beyond - 0.5)
    return np.clip(signed, -_FARTHEST_PX, _FARTHEST_PX)


def sample_with_slope(images: Tensor, pixels: Tensor) -> tuple[Tensor, Tensor]:
    """Values (B, N, C) and slopes (B, N, C, 2) per pixel of images (B, C, H, W) at (B, N, 2).

    Both come from four bilinear samples half a pixel to each side: a central difference.
    """
    height, width = images.shape[-2:]
    steps = pixels.new_tensor([[0.5, 0.0], [-0.5, 0.0], [0.0, 0.5], [0.0, -0.5]])
    places = pixels[:, :, None] + steps
    grid = places / places.new_tensor([width, height]) * 2 - 1
    sampled = torch.nn.functional.grid_sample(
        images, grid, padding_mode="border", align_corners=False
    )
    right, left, down, up = sampled.permute(0, 2, 3, 1).unbind(2)
    return (right + left + down + up) / 4, torch.stack([right - left, down - up], -1)
