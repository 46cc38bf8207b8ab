"""Warping module W: keypoint motion becomes a dense deformation of the feature volume.

What depends on the source alone (the compressed volume, the source's heatmap) is computed once per
source by ``prepare`` and shared by all its frames.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fc4d_ray.priors.video.liveportrait.blocks import ConvNorm2d, Hourglass3d

HEATMAP_VARIANCE = 0.01


@dataclass(frozen=True)
class WarpSource:
    """Sources ready to be warped; entries of one source share an index."""

    features: Tensor  # [B, C, D, H, W]
    compressed: Tensor  # [B, c, D, H, W]
    keypoints: Tensor  # [B, K, 3]
    heatmap: Tensor  # [B, K, D, H, W]

    def __getitem__(self, index: Tensor) -> WarpSource:
        return WarpSource(*(value[index] for value in vars(self).values()))

    def expanded(self, count: int) -> WarpSource:
        """One source as a batch of ``count``, without copies."""
        return WarpSource(*(value.expand(count, *value.shape[1:]) for value in vars(self).values()))


@dataclass(frozen=True)
class DenseMotion:
    """Where each cell of the warped volume comes from."""

    deformation: Tensor  # [B, D, H, W, 3] sampling positions, (x, y, z) in [-1, 1]
    mask: Tensor  # [B, K + 1, D, H, W] share of each sparse motion
    occlusion: Tensor  # [B, 1, H, W] 1 where the source shows what is wanted


@dataclass(frozen=True)
class WarpSizes:
    """Widths of the module; all of them follow from a state dict's shapes."""

    n_keypoints: int
    volume_channels: int
    volume_depth: int
    compressed_channels: int
    down_widths: tuple[int, ...]
    up_widths: tuple[int, ...]
    channels_out: int


class WarpingModule(nn.Module):
    """Features and keypoints to the decoder's input (B, channels_out, H, W)."""

    def __init__(self, sizes: WarpSizes) -> None:
        super().__init__()
        self.dense_motion_network = DenseMotionNetwork(sizes)
        flat = sizes.volume_channels * sizes.volume_depth
        self.third = ConvNorm2d(flat, sizes.channels_out)
        self.fourth = nn.Conv2d(sizes.channels_out, sizes.channels_out, 1)

    def prepare(self, features: Tensor, keypoints: Tensor) -> WarpSource:
        """The part that depends on the source only."""
        return WarpSource(
            features,
            self.dense_motion_network.compress_features(features),
            keypoints,
            heatmap(keypoints, features.shape[2:]),
        )

    def forward(self, source: WarpSource, driven: Tensor) -> Tensor:
        """Warp B sources to B sets of driven keypoints (B, K, 3)."""
        return self.apply_motion(source, self.dense_motion_network(source, driven))

    def apply_motion(self, source: WarpSource, motion: DenseMotion) -> Tensor:
        """The decoder's input from a known dense motion."""
        warped = sample_volume(source.features, motion.deformation)
        out = F.leaky_relu(self.third(warped.flatten(1, 2)), 0.01)
        return self.fourth(out) * motion.occlusion


class DenseMotionNetwork(nn.Module):
    """Blends one motion per keypoint and the standing background into a dense one."""

    def __init__(self, sizes: WarpSizes) -> None:
        super().__init__()
        n_motions = sizes.n_keypoints + 1
        self.hourglass = Hourglass3d(
            n_motions * (sizes.compressed_channels + 1),
            list(sizes.down_widths),
            list(sizes.up_widths),
        )
        channels = self.hourglass.channels_out
        self.mask = nn.Conv3d(channels, n_motions, 7, padding=3)
        self.compress = nn.Conv3d(sizes.volume_channels, sizes.compressed_channels, 1)
        self.norm = nn.BatchNorm3d(sizes.compressed_channels)
        self.occlusion = nn.Conv2d(channels * sizes.volume_depth, 1, 7, padding=3)

    def compress_features(self, features: Tensor) -> Tensor:
        return F.relu(self.norm(self.compress(features)))

    def forward(self, source: WarpSource, driven: Tensor) -> DenseMotion:
        size = source.features.shape[2:]
        motions = sparse_motions(source.keypoints, driven, size)
        mask, occlusion = self._blend(self._observations(source, driven, motions))
        return DenseMotion(
            blend_motions(source.keypoints, driven, mask.to(driven.dtype)), mask, occlusion
        )

    def _observations(self, source: WarpSource, driven: Tensor, motions: Tensor) -> Tensor:
        """Per motion its heatmap and the volume it would give, (B, (K + 1)(1 + c), D, H, W)."""
        n, n_motions, *size = motions.shape[:-1]
        volume = source.compressed[:, None].expand(-1, n_motions, -1, -1, -1, -1)
        deformed = sample_volume(volume.flatten(0, 1), motions.flatten(0, 1))
        moved = heatmap(driven, size) - source.heatmap
        background = torch.zeros_like(moved[:, :1])
        heat = torch.cat([background, moved], 1)[:, :, None].to(deformed.dtype)
        return torch.cat([heat, deformed.view(n, n_motions, -1, *size)], 2).flatten(1, 2)

    def _blend(self, observations: Tensor) -> tuple[Tensor, Tensor]:
        """Shares of the motions, and what the source shows."""
        out = self.hourglass(observations)
        occlusion = torch.sigmoid(self.occlusion(out.flatten(1, 2)))
        return self.mask(out).softmax(1), occlusion


def identity_grid(size: torch.Size | list[int], like: Tensor) -> Tensor:
    """Positions (D, H, W, 3), (x, y, z), with -1 and 1 on the first and last sample."""
    axes = [torch.linspace(-1, 1, n, dtype=like.dtype, device=like.device) for n in size]
    z, y, x = torch.meshgrid(*axes, indexing="ij")
    return torch.stack([x, y, z], -1)


def heatmap(keypoints: Tensor, size: torch.Size | list[int]) -> Tensor:
    """A Gaussian (B, K, D, H, W) around each keypoint (B, K, 3)."""
    grid = identity_grid(size, keypoints)
    distance = grid - keypoints[:, :, None, None, None, :]
    return torch.exp(-0.5 * distance.square().sum(-1) / HEATMAP_VARIANCE)


def sparse_motions(source: Tensor, driven: Tensor, size: torch.Size | list[int]) -> Tensor:
    """Sampling positions (B, K + 1, D, H, W, 3): standing still, then one shift per keypoint."""
    grid = identity_grid(size, driven)
    shift = F.pad(source - driven, (0, 0, 1, 0))
    return grid + shift[:, :, None, None, None, :]


def blend_motions(source: Tensor, driven: Tensor, mask: Tensor) -> Tensor:
    """Sampling positions (B, D, H, W, 3) where each motion has a share (B, K + 1, D, H, W).

    The mean of shifted grids is the grid shifted by the mean shift. Stays in full precision under
    autocast: half of it would round positions by a tenth of a pixel of the picture.
    """
    with torch.autocast(mask.device.type, enabled=False):
        shift = mask[:, 1:].flatten(2).transpose(1, 2) @ (source - driven)
        grid = identity_grid(list(mask.shape[2:]), driven)
        return grid + shift.view(len(mask), *mask.shape[2:], 3)


def sample_volume(volume: Tensor, positions: Tensor) -> Tensor:
    """Trilinear samples (B, C, D, H, W) of a volume at ``positions`` (B, D, H, W, 3).

    The grid puts -1 and 1 on sample centres while sampling takes them as outer borders, so no
    motion is not quite an identity: the trained weights expect that. Samples have the positions'
    precision, which in half would be an eighth of a cell.
    """
    return F.grid_sample(
        volume.to(positions.dtype), positions, padding_mode="zeros", align_corners=False
    )
