"""Motion extractor M: a ConvNeXt V2 that reads pose, expression and canonical keypoints."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fc4d_ray.priors.video.liveportrait.keypoints import head_pose_deg

LAYER_NORM_EPS = 1e-6


@dataclass(frozen=True)
class FaceMotion:
    """What M reads off B images. Angles in degrees; the rest in units of the crop's volume."""

    canonical: Tensor  # [B, K, 3]
    expression: Tensor  # [B, K, 3]
    pitch_deg: Tensor  # [B, 1]
    yaw_deg: Tensor  # [B, 1]
    roll_deg: Tensor  # [B, 1]
    translation: Tensor  # [B, 3]
    scale: Tensor  # [B, 1]


class MotionExtractor(nn.Module):
    """RGB (B, 3, S, S) in [0, 1] to ``FaceMotion``; everything sits under ``detector``."""

    def __init__(self, depths: list[int], dims: list[int], n_keypoints: int, n_bins: int) -> None:
        super().__init__()
        self.detector = _ConvNeXt(depths, dims, n_keypoints, n_bins)

    def forward(self, image: Tensor) -> FaceMotion:
        heads = {
            name: head.to(torch.promote_types(head.dtype, torch.float32))
            for name, head in self.raw(image).items()
        }
        n = len(image)
        return FaceMotion(
            canonical=heads["kp"].view(n, -1, 3),
            expression=heads["exp"].view(n, -1, 3),
            pitch_deg=head_pose_deg(heads["pitch"]),
            yaw_deg=head_pose_deg(heads["yaw"]),
            roll_deg=head_pose_deg(heads["roll"]),
            translation=heads["t"],
            scale=heads["scale"],
        )

    def raw(self, image: Tensor) -> dict[str, Tensor]:
        """The seven heads as the network gives them: logits of the angles, flat keypoints."""
        return self.detector(image)


class _ConvNeXt(nn.Module):
    HEADS = ("kp", "scale", "pitch", "yaw", "roll", "t", "exp")

    def __init__(self, depths: list[int], dims: list[int], n_keypoints: int, n_bins: int) -> None:
        super().__init__()
        stem = nn.Sequential(nn.Conv2d(3, dims[0], 4, stride=4), _ChannelNorm(dims[0]))
        self.downsample_layers = nn.ModuleList([stem])
        for before, after in pairwise(dims):
            self.downsample_layers.append(
                nn.Sequential(_ChannelNorm(before), nn.Conv2d(before, after, 2, stride=2))
            )
        self.stages = nn.ModuleList(
            nn.Sequential(*(_Block(dim) for _ in range(depth)))
            for depth, dim in zip(depths, dims, strict=True)
        )
        self.norm = nn.LayerNorm(dims[-1], eps=LAYER_NORM_EPS)
        sizes = {"kp": 3 * n_keypoints, "scale": 1, "t": 3, "exp": 3 * n_keypoints}
        for head in self.HEADS:
            setattr(self, f"fc_{head}", nn.Linear(dims[-1], sizes.get(head, n_bins)))

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        out = image
        for downsample, stage in zip(self.downsample_layers, self.stages, strict=True):
            out = stage(downsample(out))
        pooled = self.norm(out.mean((2, 3)))
        return {head: getattr(self, f"fc_{head}")(pooled) for head in self.HEADS}


class _Block(nn.Module):
    """Depthwise 7x7, then a two-layer perceptron per pixel with response normalisation."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dwconv = nn.Conv2d(dim, dim, 7, padding=3, groups=dim)
        self.norm = nn.LayerNorm(dim, eps=LAYER_NORM_EPS)
        self.pwconv1 = nn.Linear(dim, 4 * dim)
        self.grn = _ResponseNorm(4 * dim)
        self.pwconv2 = nn.Linear(4 * dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        out = self.norm(self.dwconv(x).permute(0, 2, 3, 1))
        out = self.pwconv2(self.grn(F.gelu(self.pwconv1(out))))
        return x + out.permute(0, 3, 1, 2)


class _ResponseNorm(nn.Module):
    """Global response normalisation of (B, H, W, C): contrast between channels."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.zeros(1, 1, 1, dim))
        self.beta = nn.Parameter(torch.zeros(1, 1, 1, dim))

    def forward(self, x: Tensor) -> Tensor:
        # In half precision the sum of squares over a picture overflows.
        wide = x.to(torch.promote_types(x.dtype, torch.float32))
        energy = torch.linalg.vector_norm(wide, dim=(1, 2), keepdim=True)
        share = energy / (energy.mean(-1, keepdim=True) + 1e-6)
        return self.gamma * (x * share.to(x.dtype)) + self.beta + x


class _ChannelNorm(nn.Module):
    """Layer norm over the channels of (B, C, H, W)."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(dim))
        self.bias = nn.Parameter(torch.zeros(dim))

    def forward(self, x: Tensor) -> Tensor:
        out = F.layer_norm(
            x.permute(0, 2, 3, 1), self.weight.shape, self.weight, self.bias, LAYER_NORM_EPS
        )
        return out.permute(0, 3, 1, 2)
