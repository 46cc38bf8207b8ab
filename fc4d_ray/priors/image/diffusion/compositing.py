"""What finished views show of an unfinished one (paper section 3.2, warping-based control).

Every target pixel is lifted with the target's depth and looked up in each source; a depth test says
whether the source saw it. Of the sources that did, the one that faced the surface most squarely
gives the colour. The coarse view fills the rest before anything is encoded: a latent cell sees its
neighbours, and holes would bleed into them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from fc4d_ray.priors.image.diffusion.config import WarpConfig
from fc4d_ray.priors.image.diffusion.views import GuideView, Source
from fc4d_ray.warping import (
    HEAD_HEIGHT_M,
    cosine_to,
    lift,
    sample,
    surface_normals,
    warp_to_view,
)

_SOLID = 0.5
_FEATHER_PX = 2.0
_EDGE_FACTOR = 3.0
"""Depths within the rim that spread by more tolerances than this are an edge."""
_ALL = 0.999
_NOMINAL_SIZE = 512


@dataclass(frozen=True)
class SourceView:
    """A finished view with the kind of source it is."""

    view: GuideView
    kind: Source


@dataclass(frozen=True)
class Composite:
    """A view before diffusion."""

    image: Tensor  # [3, S, S] 0…1: warped where trusted, coarse elsewhere
    trusted: Tensor  # [S, S] bool
    source: Tensor  # [S, S] uint8 of ``Source``
    coverage: float
    """Share of the head's pixels that were warped."""


@dataclass(frozen=True)
class _Sight:
    """What one source shows of the target."""

    image: Tensor  # [3, S, S]
    cosine: Tensor  # [S, S], -1 where not seen
    kind: Source


def composite_view(
    target: GuideView, sources: Sequence[SourceView], config: WarpConfig
) -> Composite:
    """Warp ``sources``, in order of preference, over the coarse target."""
    head = (target.depth > 0) & (target.alpha > _SOLID)
    label = torch.where(head, int(Source.GENERATED), int(Source.NOTHING)).to(torch.uint8)
    nothing = torch.zeros_like(head)
    if not sources:
        return Composite(target.image, nothing, label, 0.0)
    points = lift(target.depth, target.camera)
    normals = surface_normals(target.depth, target.camera)
    sights = [_look(target, source, head, points, normals, config) for source in sources]
    seen = torch.stack([sight.cosine for sight in sights]) >= config.min_cosine
    trusted = _cleaned(seen.any(0), config)
    chosen = _choose([sight.cosine for sight in sights], config)
    shares = _feathered(chosen, seen, len(sights))
    warped = sum(
        share * sight.image for share, sight in zip(shares, sights, strict=True)
    )  # [3, S, S]
    image = torch.where(trusted, warped, target.image)
    for index, sight in enumerate(sights):
        label[trusted & (chosen == index)] = int(sight.kind)
    covered = float(trusted.sum()) / max(float(head.sum()), 1.0)
    return Composite(image.clamp(0, 1), trusted, label, covered)


def _look(
    target: GuideView,
    source: SourceView,
    head: Tensor,
    points: Tensor,
    normals: Tensor,
    config: WarpConfig,
) -> _Sight:
    view = source.view
    warped = warp_to_view(
        view.image, view.depth, view.camera, target.depth, target.camera,
        depth_tolerance_m=config.depth_tolerance * HEAD_HEIGHT_M, mode="bicubic",
    )  # fmt: skip
    unmixed = sample(_unmixed(view, config)[None], warped.source_pixels)[0] > _ALL
    cosine = cosine_to(view.camera, points, normals)
    seen = warped.visible & unmixed & head
    return _Sight(warped.image.clamp(0, 1), torch.where(seen, cosine, -1.0).to(cosine), source.kind)


def _unmixed(view: GuideView, config: WarpConfig) -> Tensor:
    """1 where no silhouette and no depth edge is within the rim, 0 elsewhere, (S, S)."""
    radius = max(1, round(config.source_rim_px * view.depth.shape[-1] / _NOMINAL_SIZE))
    on = (view.depth > 0) & (view.alpha > _SOLID)
    far = torch.where(on, view.depth, torch.inf)
    near = torch.where(on, view.depth, 0.0)

    def widest(values: Tensor) -> Tensor:
        return functional.max_pool2d(values[None], 2 * radius + 1, stride=1, padding=radius)[0]

    spread = widest(far) + widest(-near)
    return (spread <= _EDGE_FACTOR * config.depth_tolerance * HEAD_HEIGHT_M).to(view.depth)


def _choose(cosines: Sequence[Tensor], config: WarpConfig) -> Tensor:
    """Index (S, S) of the source taken: the first of those nearly as square as the squarest."""
    stacked = torch.stack(list(cosines))
    good = stacked >= torch.clamp(stacked.amax(0) - config.tie_cosine, min=config.min_cosine)
    return good.float().argmax(0)


def _feathered(chosen: Tensor, seen: Tensor, count: int) -> Tensor:
    """Shares (N, 1, S, S) that fade from one source to the next where both see the surface."""
    picked = torch.stack([(chosen == index) & seen[index] for index in range(count)]).float()
    if count == 1:
        return picked[:, None]
    radius = int(3 * _FEATHER_PX)
    x = torch.arange(-radius, radius + 1, device=chosen.device).float()
    kernel = torch.exp(-0.5 * (x / _FEATHER_PX) ** 2)
    kernel = kernel / kernel.sum()
    soft = functional.conv2d(picked[:, None], kernel[None, None, None], padding=(0, radius))
    soft = functional.conv2d(soft, kernel[None, None, :, None], padding=(radius, 0))[:, 0]
    soft = soft * seen
    return (soft / soft.sum(0, keepdim=True).clamp_min(1e-6))[:, None]


def _cleaned(mask: Tensor, config: WarpConfig) -> Tensor:
    """The mask without its rim and without islands."""
    scale = mask.shape[-1] / _NOMINAL_SIZE
    radius = round(config.erosion_px * scale)
    array = mask.cpu().numpy().astype(np.uint8)
    if radius:
        kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1,) * 2)
        array = cv2.erode(array, kernel, borderValue=0)
    _, parts, statistics, _ = cv2.connectedComponentsWithStats(array, connectivity=4)
    large = statistics[:, cv2.CC_STAT_AREA] >= config.smallest_island_px * scale**2
    large[0] = False
    return torch.from_numpy(large[parts]).to(mask.device)
