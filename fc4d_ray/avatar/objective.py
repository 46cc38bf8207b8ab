"""One training step's pictures and loss, of either stage."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from fc4d_ray.avatar.binding import FaceFrames, local_to_world
from fc4d_ray.avatar.coin import CoinConfig, CoinNetwork
from fc4d_ray.avatar.gaussians import LEARNED, Gaussians
from fc4d_ray.avatar.losses import LossConfig, pixel_loss
from fc4d_ray.avatar.regularisers import metric_position_excess, position_excess, scale_excess
from fc4d_ray.avatar.splatting import SplatImage, rasterize, rows_in_view, view_colours
from fc4d_ray.avatar.structure import StructureLoss
from fc4d_ray.cameras import Camera


@dataclass(frozen=True)
class Picture:
    """What a step is to reproduce: a window of one training picture."""

    camera: Camera
    """Of the window."""
    view: int
    target: Tensor
    """(h, w, 3) composited over ``background``."""
    alpha: Tensor
    """(h, w) matte."""
    background: Tensor
    """(3,)"""


@dataclass(frozen=True)
class OffsetModel:
    """COIN's network with the place code of every splat."""

    network: CoinNetwork
    code: Tensor
    """(N, P)"""
    config: CoinConfig
    structure: StructureLoss | None
    step: int = 0
    """Of the stage; decides whether the structural loss is due."""
    places: Tensor | None = None
    """(N, K) learned vectors, where the config wants them"""

    def code_of(self, rows: Tensor) -> Tensor:
        """(n, P + K) what the network is told of where these splats are."""
        if self.places is None:
            return self.code[rows]
        return torch.cat([self.code[rows], _TakeRows.apply(self.places, rows)], 1)

    @property
    def structure_factor(self) -> int:
        """By how much the structural loss counts in this step: 0, or its interval."""
        interval = self.config.structure_interval
        return interval if self.step % interval == 0 else 0


@dataclass(frozen=True)
class Objective:
    """The loss of one step, and what density control and curves want to know."""

    loss: Tensor
    terms: dict[str, Tensor]
    """Weighted terms of the loss by name."""
    image: Tensor
    """(h, w, 3) that the pixel loss looked at."""
    rows: Tensor
    """(n,) splats that took part."""
    drawn: SplatImage


def objective(
    gaussians: Gaussians,
    frames: FaceFrames,  # one row per face
    picture: Picture,
    losses: LossConfig,
    sh_degree: int,
    offsets: OffsetModel | None,
    held: Tensor | None = None,  # (F,) bool
) -> Objective:
    """Render the window and weigh it against its target.

    Splats on faces that are ``held`` are drawn, but learn nothing from this picture.

    Without ``offsets`` this is GaussianAvatars' loss. With them (equations 2-4) base and offset
    colours are drawn in one pass of six channels, since neither changes the blending weights; the
    pixel terms look at base plus offset, the structural term at the base alone.
    """
    rows = rows_in_view(gaussians, frames, picture.camera)
    seen = take_rows(gaussians, rows)
    if held is not None:
        seen = _without_gradient(seen, held[seen.binding])
    frames = frames.gather(seen.binding)
    world = local_to_world(seen, frames)
    colours = view_colours(world, picture.camera, sh_degree)
    base = colours.clamp_min(0)
    terms: dict[str, Tensor] = {}
    if offsets is None:
        drawn = rasterize(world, base, picture.camera, picture.background)
        image = drawn.image
    else:
        offset = offsets.network(picture.view, seen.sh0, offsets.code_of(rows))
        both = torch.cat([base, (colours + offset).clamp_min(0)], 1)
        drawn = rasterize(world, both, picture.camera, picture.background.repeat(2))
        base_image, image = drawn.image.split(3, -1)
        terms |= _offset_terms(base_image, offset, len(gaussians), picture, offsets)
    terms["pixel"] = pixel_loss(image, picture.target, losses)
    if losses.alpha > 0:
        terms["alpha"] = losses.alpha * (drawn.alpha - picture.alpha).abs().mean()
    terms |= _regulariser_terms(seen, frames.scale, drawn.visible, losses)
    return Objective(torch.stack(list(terms.values())).sum(), terms, image, rows, drawn)


def _offset_terms(
    base_image: Tensor,  # (h, w, 3)
    offset: Tensor,  # (n, 3) of the splats in sight
    n_splats: int,
    picture: Picture,
    offsets: OffsetModel,
) -> dict[str, Tensor]:
    """Equations 3 and 4, and the embedding's own small weight."""
    config = offsets.config
    averaged_over = {
        "splats_in_sight": len(offset),
        "all_splats": n_splats,
        "pixels": picture.camera.width * picture.camera.height,
    }[config.offset_mean]
    mean = offset.abs().sum() / max(averaged_over * offset.shape[1], 1)
    terms = {"offset": config.offset_weight * mean}
    if config.structure_weight > 0:
        weight = config.structure_weight * offsets.structure_factor
        # A term of 0 where it is not due keeps the averages of the curves comparable.
        terms["structure"] = (
            weight * offsets.structure(base_image, picture.target)
            if weight > 0
            else base_image.new_zeros(())
        )
    if config.embedding_l2 > 0:
        embedding = offsets.network.view_embeddings[picture.view]
        terms["embedding"] = config.embedding_l2 * embedding.square().sum()
    return terms


def _regulariser_terms(
    seen: Gaussians, face_scales: Tensor, visible: Tensor, losses: LossConfig
) -> dict[str, Tensor]:
    terms = {}
    unit = face_scales[:, None] if losses.metric else 1.0
    if losses.position > 0:
        excess = metric_position_excess if losses.metric else position_excess
        terms["position"] = losses.position * excess(
            seen.positions * unit, visible, losses.position_threshold
        )
    if losses.scale > 0:
        terms["scale"] = losses.scale * scale_excess(
            seen.log_scales.exp() * unit, visible, losses.scale_threshold
        )
    return terms


def take_rows(gaussians: Gaussians, rows: Tensor) -> Gaussians:
    """``gaussians.select`` for rows that are all different, with a much cheaper gradient."""
    if len(rows) == len(gaussians):
        return gaussians
    taken = {name: _TakeRows.apply(getattr(gaussians, name), rows) for name in LEARNED}
    return Gaussians(**taken, binding=gaussians.binding[rows])


def _without_gradient(gaussians: Gaussians, held: Tensor) -> Gaussians:
    """The same splats; no gradient reaches those that are ``held`` (N,)."""
    kept = {}
    for name in LEARNED:
        tensor = getattr(gaussians, name)
        mask = held.reshape(-1, *[1] * (tensor.dim() - 1))
        kept[name] = torch.where(mask, tensor.detach(), tensor)
    return replace(gaussians, **kept)


class _TakeRows(torch.autograd.Function):
    """``tensor[rows]`` whose backward pass copies rows instead of accumulating them."""

    @staticmethod
    def forward(ctx: Any, tensor: Tensor, rows: Tensor) -> Tensor:
        ctx.save_for_backward(rows)
        ctx.shape = tensor.shape
        return tensor.index_select(0, rows)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (rows,) = ctx.saved_tensors
        return gradient.new_zeros(ctx.shape).index_copy_(0, rows, gradient), None
