"""Differentiable alpha compositing of projected splats (CPU, compiled, deterministic)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fc4d_ray.rendering._compositing_kernels import (
    MOMENTS,
    composite_backward,
    composite_forward,
    gather_gradients,
)
from fc4d_ray.rendering._tile_kernels import (
    RECORD,
    bin_splats,
    make_records,
    sort_bits,
)
from fc4d_ray.rendering.threads import run_pieces, thread_count

SPLATS_PER_PIECE = 4096
PIECES_PER_THREAD = 8


@dataclass(frozen=True)
class _CameraTiles:
    """One camera's visible splats in depth order and the tiles they touch."""

    order: NDArray[np.int64]
    records: NDArray
    features: NDArray
    starts: NDArray[np.int64]
    ranks: NDArray[np.int32]
    splat_starts: NDArray[np.int64]
    slots: NDArray[np.int32]
    piece_bounds: NDArray[np.int64]

    @property
    def n_pieces(self) -> int:
        return len(self.piece_bounds) - 1


def composite_splats(
    means2d: Tensor,  # [..., 2] pixels; "..." is the same M rows in all five
    conics: Tensor,  # [..., 3]
    opacities: Tensor,  # [...]
    features: Tensor,  # [..., D]
    backgrounds: Tensor,  # [C, D]
    depths: Tensor,  # [...] for sorting only
    camera_splats: list[NDArray[np.int64]],  # per camera: the flat rows to draw, ascending
    width: int,
    height: int,
    *,
    alpha_cap: float,
    absgrad: bool,
) -> tuple[Tensor, Tensor]:
    """Images (C, H, W, D) over their backgrounds and alphas (C, H, W).

    Gradients for the first five arguments. With ``absgrad`` the backward pass also stores
    ``means2d.absgrad`` (..., 2), the sum over pixels of the absolute gradient.
    """
    return _Compositing.apply(
        means2d,
        conics,
        opacities,
        features,
        backgrounds,
        depths.detach(),
        camera_splats,
        (width, height, alpha_cap, absgrad),
    )


def _depth_order(depths: NDArray, rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """``rows`` front to back; ties keep their order."""
    if depths.dtype == np.float32:
        return sort_bits(depths.view(np.uint32), rows.copy())
    return rows[np.argsort(depths[rows], kind="stable")]


def _piece(index: int, n_splats: int) -> tuple[int, int]:
    return index * SPLATS_PER_PIECE, min((index + 1) * SPLATS_PER_PIECE, n_splats)


def _arrange(
    rows: NDArray[np.int64],
    means2d: NDArray,
    conics: NDArray,
    opacities: NDArray,
    features: NDArray,
    depths: NDArray,
    width: int,
    height: int,
) -> _CameraTiles:
    order = _depth_order(depths, rows)
    records = np.empty((len(order), RECORD), means2d.dtype)
    sorted_features = np.empty((len(order), features.shape[1]), features.dtype)

    def fill(piece: int) -> None:
        make_records(
            *_piece(piece, len(order)),
            order,
            means2d,
            conics,
            opacities,
            features,
            records,
            sorted_features,
        )

    run_pieces(fill, -(-len(order) // SPLATS_PER_PIECE))
    starts, ranks, splat_starts, slots = bin_splats(records, width, height)
    n_tiles = len(starts) - 1
    n_pieces = min(n_tiles, PIECES_PER_THREAD * thread_count())
    # Pieces of about equal work; an empty tile costs something too.
    cost = starts + np.arange(n_tiles + 1) * 16
    wanted = np.linspace(0, cost[-1], n_pieces + 1)[1:-1]
    inner = np.searchsorted(cost, wanted)
    bounds = np.unique(np.concatenate([[0], inner, [n_tiles]])).astype(np.int64)
    return _CameraTiles(order, records, sorted_features, starts, ranks, splat_starts, slots, bounds)


class _Compositing(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        means2d: Tensor,
        conics: Tensor,
        opacities: Tensor,
        features: Tensor,
        backgrounds: Tensor,
        depths: Tensor,
        camera_splats: list[NDArray[np.int64]],
        options: tuple[int, int, float, bool],
    ) -> tuple[Tensor, Tensor]:
        width, height, alpha_cap, _ = options
        n_cameras, n_channels = backgrounds.shape
        flat = (means2d.reshape(-1, 2), conics.reshape(-1, 3), opacities.reshape(-1))
        flat = (*flat, features.reshape(-1, n_channels), depths.reshape(-1))
        splats = [t.detach().contiguous().numpy() for t in flat]
        background = backgrounds.detach().contiguous().numpy()
        image = means2d.new_empty(n_cameras, height, width, n_channels)
        transmittance = means2d.new_empty(n_cameras, height, width)
        last_pair = torch.empty_like(transmittance)
        tiles = []
        for camera, rows in enumerate(camera_splats):
            arranged = _arrange(rows, *splats, width, height)
            tiles.append(arranged)
            out = [t[camera].numpy() for t in (image, transmittance, last_pair)]

            def kernel(
                piece: int, arranged=arranged, background=background[camera], out=out
            ) -> None:
                composite_forward(
                    arranged.piece_bounds[piece],
                    arranged.piece_bounds[piece + 1],
                    arranged.records,
                    arranged.features,
                    arranged.starts,
                    arranged.ranks,
                    background,
                    alpha_cap,
                    *out,
                )

            run_pieces(kernel, arranged.n_pieces)
        ctx.options, ctx.tiles = options, tiles
        ctx.save_for_backward(means2d, backgrounds, transmittance, last_pair)
        return image, 1.0 - transmittance

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, g_image: Tensor, g_alpha: Tensor) -> tuple[Tensor | None, ...]:
        means2d, backgrounds, transmittance, last_pair = ctx.saved_tensors
        _, _, alpha_cap, absgrad = ctx.options
        n_channels, rows = backgrounds.shape[1], means2d.shape[:-1]
        tails = ((2,), (3,), (), (n_channels,), (2,))
        results = [means2d.new_zeros(*rows, *tail) for tail in tails]
        outputs = [t.view(-1, *tail).numpy() for t, tail in zip(results, tails, strict=True)]
        g_backgrounds = torch.zeros_like(backgrounds)
        background = backgrounds.detach().contiguous().numpy()
        g_image, g_alpha = g_image.contiguous(), g_alpha.contiguous()
        for camera, arranged in enumerate(ctx.tiles):
            per_pixel = [t[camera].numpy() for t in (transmittance, last_pair, g_image, g_alpha)]
            moments = np.zeros((len(arranged.ranks), MOMENTS + n_channels), outputs[0].dtype)
            g_background = np.empty((len(arranged.starts) - 1, n_channels))

            def kernel(
                piece: int,
                arranged=arranged,
                background=background[camera],
                per_pixel=per_pixel,
                out=(moments, g_background),
            ) -> None:
                composite_backward(
                    arranged.piece_bounds[piece],
                    arranged.piece_bounds[piece + 1],
                    arranged.records,
                    arranged.features,
                    arranged.starts,
                    arranged.ranks,
                    background,
                    alpha_cap,
                    *per_pixel,
                    absgrad,
                    *out,
                )

            def gather(piece: int, arranged=arranged, moments=moments) -> None:
                gather_gradients(
                    *_piece(piece, len(arranged.order)),
                    arranged.order,
                    arranged.records,
                    arranged.splat_starts,
                    arranged.slots,
                    moments,
                    *outputs,
                )

            run_pieces(kernel, arranged.n_pieces)
            run_pieces(gather, -(-len(arranged.order) // SPLATS_PER_PIECE))
            total = torch.from_numpy(g_background.sum(0))
            g_backgrounds[camera] = total.to(g_backgrounds.dtype)
        if absgrad:
            means2d.absgrad = results[4]
        return *results[:4], g_backgrounds, None, None, None
