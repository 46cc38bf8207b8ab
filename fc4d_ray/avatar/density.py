"""Adaptive density control for splats bound to faces: clone, split, prune, reset.

Each operation returns a ``DensityEdit``, which tells for every splat afterwards which row it came
from, so that optimiser moments and any other per-splat state can follow.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from fc4d_ray.avatar.binding import quaternion_to_matrix
from fc4d_ray.avatar.gaussians import Gaussians, concatenate
from fc4d_ray.errors import ConfigError

_SPLIT_SHRINK = 1.6
_CHILDREN = 2


@dataclass(frozen=True)
class DensityConfig:
    """When and where splats are added and removed; defaults are those of a 30k-step stage."""

    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid"}

    enabled: bool = True
    """Whether the number of splats may change at all."""
    start_step: int = 500
    """Splats change only after this step of the stage."""
    stop_step: int = 15_000
    """Splats change only before this step."""
    interval: int = 100
    """Steps between two changes."""
    gradient_threshold: float = 2e-4
    """Mean screen gradient, in normalised device units, from which a splat is cloned or split."""
    size_limit: float = 0.01
    """Clone up to this world size, split above, as a fraction of the scene extent."""
    prune_opacity: float = 0.005
    """Splats less opaque than this are removed."""
    prune_size: float = 0.1
    """Splats larger than this fraction of the scene extent are removed."""
    prune_size_after: int = 3000
    """Size pruning starts after this step."""
    reset_interval: int = 3000
    """Steps between two opacity resets; 0 for none."""
    reset_opacity: float = 0.01
    """Opacity a reset cuts down to."""
    split_noise: Literal["local", "upstream"] = "local"
    """Spread of split children: the splat's own size, or (upstream's slip) its world size taken
    for a local one, which leaves children on top of their parent."""
    max_splats: int = 0
    """No splat is added beyond this number; 0 for no limit."""

    def __post_init__(self) -> None:
        if self.interval < 1:
            raise ConfigError(f"density.interval must be at least 1, got {self.interval}")
        if not 0 < self.reset_opacity < 1:
            raise ConfigError(f"density.reset_opacity must be in (0, 1), got {self.reset_opacity}")

    def edits_at(self, step: int) -> bool:
        """Whether splats are added and removed after ``step`` (counted from 1) of the stage."""
        inside = self.start_step < step < self.stop_step
        return self.enabled and inside and step % self.interval == 0

    def resets_at(self, step: int, white_background: bool) -> bool:
        """Whether opacities are reset after ``step``; on white once more when edits begin."""
        if not self.enabled or self.reset_interval == 0 or step >= self.stop_step:
            return False
        return step % self.reset_interval == 0 or (white_background and step == self.start_step)


@dataclass(frozen=True)
class DensityEdit:
    """The splats after an edit, and where each came from."""

    gaussians: Gaussians
    parent: Tensor
    """(M,) int64 row before the edit whose values a splat took over."""
    is_new: Tensor
    """(M,) bool: added by the edit, so that it has no history of its own."""


@dataclass
class DensityStatistics:
    """Running mean of the screen gradient per splat."""

    gradient_sum: Tensor
    """(N,) sum of norms, normalised device units."""
    count: Tensor
    """(N,) number of views that saw the splat."""

    @staticmethod
    def zeros(n: int, device: torch.device) -> DensityStatistics:
        return DensityStatistics(torch.zeros(n, device=device), torch.zeros(n, device=device))

    def add(self, means2d_gradient: Tensor, seen: Tensor, width: int, height: int) -> None:
        """Record one view: (n, 2) pixel gradients of the splats with row numbers ``seen`` (n,).

        ``width`` and ``height`` are those of the full view, also where only a window of it was
        rendered.
        """
        half = means2d_gradient.new_tensor([width / 2, height / 2])
        self.gradient_sum[seen] += (means2d_gradient * half).norm(dim=1)
        self.count[seen] += 1

    def mean(self) -> Tensor:
        """(N,) mean gradient; 0 for splats never seen."""
        return torch.where(self.gradient_sum > 0, self.gradient_sum / self.count, 0)


def densify_and_prune(
    gaussians: Gaussians,
    face_scales: Tensor,  # (N,) metres, scale of each splat's face now
    mean_gradient: Tensor,  # (N,)
    config: DensityConfig,
    *,
    extent: float,
    prune_large: bool,
    draw_noise: Callable[[int], Tensor],
) -> DensityEdit:
    """One density step: clone, split, then prune.

    ``extent`` is the scene's size in metres; ``draw_noise(m)`` gives (m, 3) standard normal
    values, first all first children, then all second ones. The result lists survivors, clones,
    first and second children.
    """
    world_size = gaussians.log_scales.exp().amax(1) * face_scales
    grows = mean_gradient >= config.gradient_threshold
    if config.max_splats:
        grows &= _strongest(mean_gradient, grows, config.max_splats - len(gaussians))
    small = world_size <= config.size_limit * extent
    clone, split = (grows & small).nonzero()[:, 0], (grows & ~small).nonzero()[:, 0]

    children = _split_children(gaussians, face_scales, split, config, draw_noise)
    grown = concatenate([gaussians, gaussians.select(clone), children])
    rows = torch.arange(len(gaussians), device=gaussians.device)
    parent = torch.cat([rows, clone, *[split] * _CHILDREN])
    is_new = torch.arange(len(grown), device=gaussians.device) >= len(gaussians)

    is_split = torch.zeros_like(is_new)
    is_split[split] = True
    keep = ~removable(is_split, grown.binding)
    grown, parent, is_new = grown.select(keep), parent[keep], is_new[keep]

    unwanted = torch.sigmoid(grown.opacity_logits) < config.prune_opacity
    if prune_large:
        size = grown.log_scales.exp().amax(1) * face_scales[parent]
        unwanted |= size > config.prune_size * extent
    keep = ~removable(unwanted, grown.binding)
    return DensityEdit(grown.select(keep), parent[keep], is_new[keep])


def removable(requested: Tensor, binding: Tensor) -> Tensor:
    """Which of the ``requested`` (N,) splats may go: none of a face that would be left bare."""
    total = torch.bincount(binding)
    asked = torch.bincount(binding[requested], minlength=len(total))
    return requested & (asked < total)[binding]


def reset_opacities(opacity_logits: Tensor, opacity: float) -> Tensor:
    """Logits cut down to those of ``opacity``."""
    return opacity_logits.clamp_max(math.log(opacity / (1 - opacity)))


def _split_children(
    gaussians: Gaussians,
    face_scales: Tensor,
    split: Tensor,
    config: DensityConfig,
    draw_noise: Callable[[int], Tensor],
) -> Gaussians:
    parents = gaussians.select(split.repeat(_CHILDREN))
    deviation = parents.log_scales.exp()
    if config.split_noise == "upstream":
        deviation = deviation * face_scales[split].repeat(_CHILDREN)[:, None]
    noise = draw_noise(len(parents)).to(deviation) * deviation
    moved = (quaternion_to_matrix(parents.quats) @ noise[..., None])[..., 0]
    return replace(
        parents,
        positions=parents.positions + moved,
        log_scales=parents.log_scales - math.log(_SPLIT_SHRINK),
    )


def _strongest(mean_gradient: Tensor, candidates: Tensor, room: int) -> Tensor:
    """Mask of the ``room`` candidates with the largest gradient (ties in row order)."""
    order = torch.where(candidates, mean_gradient, -1).argsort(descending=True, stable=True)
    mask = torch.zeros_like(candidates)
    mask[order[: max(room, 0)]] = True
    return mask
