"""What keeps splats near and no larger than their triangle (GaussianAvatars)."""

from __future__ import annotations

import torch
from torch import Tensor


def position_excess(positions: Tensor, visible: Tensor, threshold: float) -> Tensor:
    """Mean over visible splats of how far |x| exceeds ``threshold``; 0 where none is visible.

    ``positions`` (N, 3) are local, in triangle units; ``visible`` is an (N,) mask.
    """
    excess = torch.relu(torch.linalg.vector_norm(positions, dim=1) - threshold)
    return _masked_mean(excess, visible)


def metric_position_excess(positions: Tensor, visible: Tensor, threshold: float) -> Tensor:
    """The same for positions in metres, (N, 3) local ones times the face scale.

    As in the public code this variant applies the threshold to each axis, towards + only, and
    takes the norm of what is left.
    """
    excess = torch.linalg.vector_norm(torch.relu(positions - threshold), dim=1)
    return _masked_mean(excess, visible)


def scale_excess(scales: Tensor, visible: Tensor, threshold: float) -> Tensor:
    """Mean over visible splats of the 2-norm of what each axis exceeds ``threshold`` by.

    ``scales`` (N, 3) are linear, in triangle units (times the face scale for metres). The
    gradient of a splat that exceeds nothing is zero.
    """
    excess = torch.linalg.vector_norm(torch.relu(scales - threshold), dim=1)
    return _masked_mean(excess, visible)


def _masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    mask = mask.to(values)
    return (values * mask).sum() / mask.sum().clamp_min(1)
