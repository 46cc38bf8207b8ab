"""The algebra of implicit keypoints: angles, rotations, and points in a crop's volume."""

from __future__ import annotations

import torch
from torch import Tensor

DEGREES_PER_BIN = 3.0
FIRST_BIN_DEG = -97.5


def head_pose_deg(logits: Tensor) -> Tensor:
    """Expected angle (B, 1) of a distribution over bins, from its logits (B, bins)."""
    bins = torch.arange(logits.shape[-1], dtype=logits.dtype, device=logits.device)
    expected = (logits.softmax(-1) * bins).sum(-1, keepdim=True)
    return expected * DEGREES_PER_BIN + FIRST_BIN_DEG


def rotation_matrix(pitch_deg: Tensor, yaw_deg: Tensor, roll_deg: Tensor) -> Tensor:
    """(B, 3, 3) from three (B, 1) angles about x, y and z; acts on row vectors."""
    pitch, yaw, roll = (
        torch.deg2rad(angle).reshape(-1) for angle in (pitch_deg, yaw_deg, roll_deg)
    )
    zero, one = torch.zeros_like(pitch), torch.ones_like(pitch)
    cx, sx, cy, sy, cz, sz = (
        f(angle) for angle in (pitch, yaw, roll) for f in (torch.cos, torch.sin)
    )
    about_x = torch.stack([one, zero, zero, zero, cx, -sx, zero, sx, cx], -1).view(-1, 3, 3)
    about_y = torch.stack([cy, zero, sy, zero, one, zero, -sy, zero, cy], -1).view(-1, 3, 3)
    about_z = torch.stack([cz, -sz, zero, sz, cz, zero, zero, zero, one], -1).view(-1, 3, 3)
    return (about_z @ about_y @ about_x).transpose(1, 2)


def place_keypoints(
    canonical: Tensor,  # [..., K, 3]
    rotation: Tensor,  # [..., 3, 3]
    expression: Tensor,  # [..., K, 3]
    scale: Tensor,  # [..., 1]
    translation: Tensor,  # [..., 3]
) -> Tensor:
    """Keypoints (..., K, 3) as the warp takes them; the depth translation is dropped."""
    flat = torch.cat([translation[..., :2], torch.zeros_like(translation[..., 2:])], -1)
    return scale[..., None] * (canonical @ rotation + expression) + flat[..., None, :]
