"""Pasting trusted latents into the running ones at the right noise level (paper section 3.2)."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def latent_mask(
    trusted: Tensor,  # [B, S, S] bool
    factor: int,
    share: float = 1.0,
) -> Tensor:
    """Weights (B, 1, s, s) of pasting, 0 wherever fewer than ``share`` of a cell's pixels are
    trusted, fading to 0 towards such cells from the inside."""
    pooled = functional.avg_pool2d(trusted[:, None].float(), factor)
    cells = (pooled >= share - 1e-6).float()
    soft = functional.avg_pool2d(cells, 3, stride=1, padding=1, count_include_pad=False)
    return cells * soft


def background_cells(alpha: Tensor, factor: int, margin_px: int) -> Tensor:
    """Latent cells (B, 1, s, s), 0 or 1, in and around which a margin shows background only.

    ``alpha``: (B, S, S) 0…1.
    """
    width = 2 * margin_px + 1
    near = functional.max_pool2d(alpha[:, None], width, stride=1, padding=margin_px)
    return (functional.max_pool2d(near, factor) == 0).float()


def paste(latents: Tensor, warped: Tensor, mask: Tensor) -> Tensor:
    """``m · warped + (1 - m) · latents``; both must be on the same noise level."""
    return torch.where(mask == 0, latents, mask * warped + (1 - mask) * latents)
