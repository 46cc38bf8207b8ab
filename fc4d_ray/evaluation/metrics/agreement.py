"""Do neighbouring views show one person? Warp one into the other by depth and compare.

Needs nothing but the renderer's own depth. Only pixels that both views see take part; how many
those are is reported beside the error.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fc4d_ray.cameras import Camera
from fc4d_ray.warping import warp_to_view

_ERROR_FLOOR = 1e-10


@dataclass(frozen=True)
class PosedView:
    """A picture with the depth and camera it was rendered with."""

    azimuth_deg: float
    image: NDArray[np.uint8]  # [S, S, 3]
    depth: NDArray[np.float32]  # [S, S] z-depth in metres, 0 = nothing
    camera: Camera


@dataclass(frozen=True)
class Agreement:
    """Of all neighbouring pairs together."""

    psnr: float
    """dB over the pixels both views of a pair see."""
    coverage: float
    """Share of the targets' foreground that the sources see."""
    lpips: float | None
    """Mean over the pairs, unseen pixels made equal; None without a perceptual loss."""
    pairs: int


def neighbour_agreement(
    views: Sequence[PosedView],
    perceptual: Callable[[Tensor, Tensor], Tensor] | None = None,
) -> Agreement | None:
    """Warp each view into the next one along the orbit; None where no pair overlaps.

    Views are taken in order of azimuth; the last is paired with the first where the orbit is
    closed. ``perceptual`` compares two (H, W, 3) float images in [0, 1].
    """
    squared, seen, foreground, perceived = 0.0, 0, 0, []
    for source, target in _neighbours(views):
        warped = warp_to_view(
            torch.from_numpy(source.image).permute(2, 0, 1).float() / 255,
            torch.from_numpy(source.depth),
            source.camera,
            torch.from_numpy(target.depth),
            target.camera,
            mode="bilinear",
        )
        truth = torch.from_numpy(target.image).permute(2, 0, 1).float() / 255
        visible = warped.visible
        foreground += int((target.depth > 0).sum())
        if not visible.any():
            continue
        squared += float((warped.image - truth)[:, visible].square().mean(0).sum())
        seen += int(visible.sum())
        if perceptual is not None:
            shown = torch.where(visible, warped.image, truth)
            with torch.no_grad():
                perceived.append(float(perceptual(shown.permute(1, 2, 0), truth.permute(1, 2, 0))))
    if not seen:
        return None
    return Agreement(
        psnr=float(-10 * np.log10(max(squared / seen, _ERROR_FLOOR))),
        coverage=seen / max(foreground, 1),
        lpips=float(np.mean(perceived)) if perceived else None,
        pairs=len(_neighbours(views)),
    )


def _neighbours(views: Sequence[PosedView]) -> list[tuple[PosedView, PosedView]]:
    ordered = sorted(views, key=lambda view: view.azimuth_deg)
    pairs = list(itertools.pairwise(ordered))
    gaps = [b.azimuth_deg - a.azimuth_deg for a, b in pairs]
    if len(ordered) > 2 and 360 - sum(gaps) <= 1.5 * max(gaps):
        pairs.append((ordered[-1], ordered[0]))
    return pairs
