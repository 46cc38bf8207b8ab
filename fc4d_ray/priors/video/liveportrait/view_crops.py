"""From a person's views to the networks' crops and back.

One crop per view, fixed for all frames: the portrait's landmarks are lifted by the reference
view's depth, projected into every view, and framed as the networks want it. A landmark counts as
visible in a view where that view's depth agrees; views that hardly see the face are not animated.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from fc4d_ray.cameras import Camera
from fc4d_ray.priors.video.liveportrait.framing import crop_transform, inverse
from fc4d_ray.warping import HEAD_HEIGHT_M, closest_depth

VISIBLE_WITHIN_M = 0.1 * HEAD_HEIGHT_M
"""How far a landmark may lie from the surface that a view shows there."""
SEARCH_PX = 12
"""A landmark beside the silhouette takes the depth of a surface this near."""
EDGE_SHARE = 1 / 32
"""Share of the crop's side over which it fades into the standing picture."""


@dataclass(frozen=True)
class ViewCrop:
    """Where the face lies in one view."""

    transform: NDArray[np.float64]  # [2, 3] the view's pixels to the crop's, centres at +0.5
    visible: float
    """Share of the landmarks the view sees."""


def lift_landmarks(
    landmarks: NDArray[np.floating],  # [68, 2] px of the reference camera
    depth: NDArray[np.floating],  # [H, W] metres
    camera: Camera,
) -> NDArray[np.float64]:
    """World points (68, 3) under the landmarks.

    Raises ``ValueError`` where less than half of them lie on a surface.
    """
    found = np.array([_surface_near(depth, point) for point in landmarks])
    known = found > 0
    if known.mean() < 0.5:
        raise ValueError(f"only {known.sum()} of {len(landmarks)} landmarks lie on the surface")
    found[~known] = np.median(found[known])
    return camera.unproject(np.asarray(landmarks, np.float64), found)


def frame_view(
    points: NDArray[np.floating],  # [68, 3] world
    camera: Camera,
    depth: NDArray[np.floating],  # [H, W] metres
    crop_size: int,
) -> ViewCrop:
    """The crop of one view from the landmarks in space."""
    pixels, z = camera.project(points)
    height, width = depth.shape
    scaled = torch.from_numpy(pixels * [width / camera.width, height / camera.height])
    shown = closest_depth(
        torch.from_numpy(np.asarray(depth, np.float64)), scaled, torch.from_numpy(z)
    ).numpy()
    inside = (pixels > 0).all(1) & (pixels < [camera.width, camera.height]).all(1) & (z > 0)
    visible = inside & (shown > 0) & (np.abs(shown - z) < VISIBLE_WITHIN_M)
    return ViewCrop(crop_transform(pixels, crop_size), float(visible.mean()))


class CropSheet:
    """The crops of V views on one device: cut out, and laid back into whole frames."""

    def __init__(
        self,
        pictures: Sequence[NDArray[np.uint8]],  # V squares [P, P, 4], P may differ
        transforms: Sequence[NDArray[np.float64]],  # V of [2, 3]
        crop_size: int,
        frame_size: int,
        device: torch.device,
    ) -> None:
        for picture in pictures:
            if picture.ndim != 3 or picture.shape[0] != picture.shape[1] or picture.shape[2] != 4:
                raise ValueError(f"views must be square RGBA pictures, found {picture.shape}")
        parts = [
            _cut(torch.from_numpy(np.ascontiguousarray(p)).to(device), t, crop_size, frame_size)
            for p, t in zip(pictures, transforms, strict=True)
        ]
        crops, self._to_frame, self._rest = (torch.cat(part) for part in zip(*parts, strict=True))
        self.pictures = crops[:, :3]
        """(V, 3, C, C) on white."""
        self.alpha = crops[:, 3:]
        """(V, 1, C, C)."""
        window = _window(crop_size, device).expand(len(parts), -1, -1, -1)
        self._weight = _sample(window, self._to_frame)

    def frames(self, views: Tensor, pictures: Tensor, alpha: Tensor) -> Tensor:
        """Whole frames (B, F, F, 4) uint8, straight alpha.

        ``views`` (B) says which view each crop belongs to, ``pictures`` (B, 3, C, C) are on white,
        ``alpha`` is (B, 1, C, C).
        """
        laid = _sample(torch.cat([pictures, alpha], 1), self._to_frame[views])
        weight, rest = self._weight[views], self._rest[views]
        blended = rest + weight * (laid - rest)
        on_white, opacity = blended[:, :3], blended[:, 3:].clamp(0, 1)
        straight = 1 - (1 - on_white) / opacity.clamp_min(1 / 255)
        colours = (straight.clamp(0, 1) * 255).to(torch.uint8)
        opacities = (opacity * 255 + 0.5).to(torch.uint8)
        return torch.cat([colours, opacities], 1).permute(0, 2, 3, 1)


def _cut(
    picture: Tensor,  # [P, P, 4] uint8
    transform: NDArray[np.float64],
    crop_size: int,
    frame_size: int,
) -> tuple[Tensor, Tensor, Tensor]:
    """One view's crop (1, 4, C, C), its place in the frame (1, F, F, 2) and the frame at rest."""
    layers = picture.permute(2, 0, 1)[None].float() / 255
    straight, alpha = layers[:, :3], layers[:, 3:]
    layers = torch.cat([1 - alpha * (1 - straight), alpha], 1)
    side = picture.shape[0]
    to_view, to_crop = (
        torch.from_numpy(matrix)[None].to(layers.device)
        for matrix in (inverse(transform), transform)
    )
    # Frame pixels in units of the view's picture, then of the crop.
    to_crop = to_crop * torch.tensor([side / frame_size, side / frame_size, 1]).to(to_crop)
    return (
        _sample(layers, _grid(crop_size, to_view, side)),
        _grid(frame_size, to_crop, crop_size),
        F.interpolate(layers, size=(frame_size, frame_size), mode="area"),
    )


def flow_of(deformation: Tensor, identity: Tensor) -> Tensor:
    """Mean shift over the depth (B, H, W, 2) of a dense motion, in units of the crop [-1, 1]."""
    return (deformation - identity)[..., :2].mean(1)


def moved_alpha(alpha: Tensor, flow: Tensor) -> Tensor:
    """The matte (B, 1, C, C) carried along by a coarse flow (B, H, W, 2)."""
    size = alpha.shape[-1]
    fine = F.interpolate(flow.permute(0, 3, 1, 2), size=(size, size), mode="bilinear")
    centres = (torch.arange(size, device=alpha.device, dtype=alpha.dtype) + 0.5) * 2 / size - 1
    y, x = torch.meshgrid(centres, centres, indexing="ij")
    return _sample(alpha, torch.stack([x, y], -1) + fine.permute(0, 2, 3, 1), "border")


def _surface_near(depth: NDArray[np.floating], point: NDArray[np.floating]) -> float:
    """Depth of the nearest surface pixel within ``SEARCH_PX``, 0 where there is none."""
    height, width = depth.shape
    column, row = int(point[0]), int(point[1])
    left, right = max(column - SEARCH_PX, 0), min(column + SEARCH_PX + 1, width)
    top, bottom = max(row - SEARCH_PX, 0), min(row + SEARCH_PX + 1, height)
    if left >= right or top >= bottom:
        return 0.0
    window = depth[top:bottom, left:right]
    rows, columns = np.nonzero(window > 0)
    if len(rows) == 0:
        return 0.0
    distance = (rows + top + 0.5 - point[1]) ** 2 + (columns + left + 0.5 - point[0]) ** 2
    nearest = int(np.argmin(distance))
    if distance[nearest] > SEARCH_PX**2:
        return 0.0
    return float(window[rows[nearest], columns[nearest]])


def _grid(size: int, to_source: Tensor, source_size: int) -> Tensor:
    """Sampling grid (V, size, size, 2) of V similarities from target to source pixels."""
    centres = torch.arange(size, device=to_source.device, dtype=to_source.dtype) + 0.5
    y, x = torch.meshgrid(centres, centres, indexing="ij")
    points = torch.stack([x, y, torch.ones_like(x)], -1)
    pixels = torch.einsum("vij,yxj->vyxi", to_source, points)
    return (pixels * (2 / source_size) - 1).float()


def _sample(layers: Tensor, grid: Tensor, padding: str = "zeros") -> Tensor:
    """Bilinear samples; colours (the first three of four layers) continue in white."""
    if layers.shape[1] == 4 and padding == "zeros":
        white = torch.tensor([1.0, 1.0, 1.0, 0.0], device=layers.device)[:, None, None]
        return F.grid_sample(layers - white, grid, align_corners=False) + white
    return F.grid_sample(layers, grid, padding_mode=padding, align_corners=False)


def _window(size: int, device: torch.device) -> Tensor:
    """Weight (1, 1, size, size): 1 inside, smoothly 0 at the border."""
    position = (torch.arange(size, device=device) + 0.5) / size
    ramp = (torch.minimum(position, 1 - position) / EDGE_SHARE).clamp(0, 1)
    ramp = ramp * ramp * (3 - 2 * ramp)
    return (ramp[:, None] * ramp)[None, None]
