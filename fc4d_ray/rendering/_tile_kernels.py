"""Compiled depth sort and assignment of splats to image tiles.

Tiles are wide and low: a splat's pixels in one image row are then mostly in one tile, and what a
row costs (its exact interval) is paid once. Culling may be anything that keeps every pixel with
alpha >= 1/255: the picture does not depend on tiles.
"""

from __future__ import annotations

from math import ceil, floor, log, sqrt

import numpy as np
from numba import njit

TILE_WIDTH = 64
TILE_HEIGHT = 8

RECORD = 11
"""Numbers kept per visible splat, in depth order:
mean x, y, conic xx, xy, yy, opacity, 2 * tau * xx, determinant, half-width and half-height of the
ellipse sigma <= tau, tau = ln(255 * opacity), outside of which alpha < 1/255; 1 / xx."""


@njit(cache=True, nogil=True, error_model="numpy")
def sort_bits(keys, order):
    """Stable order of uint32 ``keys`` (bits of positive floats), least digit first, in place."""
    n = len(order)
    scratch = np.empty_like(order)
    counts = np.empty(2048, np.int64)
    for turn in range(3):
        shift = 11 * turn
        counts[:] = 0
        for i in range(n):
            counts[(np.int64(keys[order[i]]) >> shift) & 2047] += 1
        start = 0
        for digit in range(2048):
            start, counts[digit] = start + counts[digit], start
        for i in range(n):
            place = (np.int64(keys[order[i]]) >> shift) & 2047
            scratch[counts[place]] = order[i]
            counts[place] += 1
        order, scratch = scratch, order
    return order


@njit(cache=True, nogil=True, error_model="numpy")
def make_records(
    first, last, order, means2d, conics, opacities, features, records, sorted_features
):
    """Fill rows ``[first, last)`` of ``records`` (M, RECORD) and ``sorted_features`` (M, D).

    ``order`` (M,) names the splats, front to back.
    """
    for rank in range(first, last):
        n = order[rank]
        a, b, c = np.float64(conics[n, 0]), np.float64(conics[n, 1]), np.float64(conics[n, 2])
        tau = log(max(1.0, opacities[n] * 255.0))
        det = max(a * c - b * b, 1e-300)
        records[rank, 0] = means2d[n, 0]
        records[rank, 1] = means2d[n, 1]
        records[rank, 2] = a
        records[rank, 3] = b
        records[rank, 4] = c
        records[rank, 5] = opacities[n]
        records[rank, 6] = 2.0 * tau * a
        records[rank, 7] = det
        records[rank, 8] = min(sqrt(2.0 * tau * c / det), 1e9)
        records[rank, 9] = min(sqrt(2.0 * tau * a / det), 1e9)
        records[rank, 10] = 1.0 / a
        for k in range(features.shape[1]):
            sorted_features[rank, k] = features[n, k]


@njit(cache=True, nogil=True, error_model="numpy", forceinline=True)
def _tile_range(centre, half, n_tiles, tile_size):
    # The margin covers rounding of the records; the same as in the compositor.
    half = half * 1.002 + 0.01
    first = max(0.0, min(floor((centre - half) / tile_size), n_tiles - 0.0))
    last = max(0.0, min(ceil((centre + half) / tile_size), n_tiles - 0.0))
    return int(first), int(last)


@njit(cache=True, nogil=True, error_model="numpy")
def bin_splats(records, width, height):
    """Splats of each tile, front to back.

    Returns ``starts`` (T + 1,), ``ranks`` (P,): the pairs of tile t are
    ``ranks[starts[t]:starts[t + 1]]``; and the same pairs by splat, ``splat_starts`` (M + 1,),
    ``slots`` (P,) indices into ``ranks``.
    """
    tiles_x = -(-width // TILE_WIDTH)
    tiles_y = -(-height // TILE_HEIGHT)
    n = len(records)
    starts = np.zeros(tiles_x * tiles_y + 1, np.int64)
    splat_starts = np.zeros(n + 1, np.int64)
    for rank in range(n):
        x0, x1 = _tile_range(records[rank, 0], records[rank, 8], tiles_x, TILE_WIDTH)
        y0, y1 = _tile_range(records[rank, 1], records[rank, 9], tiles_y, TILE_HEIGHT)
        for ty in range(y0, y1):
            for tx in range(x0, x1):
                starts[ty * tiles_x + tx + 1] += 1
        splat_starts[rank + 1] = splat_starts[rank] + max(0, y1 - y0) * max(0, x1 - x0)
    for tile in range(tiles_x * tiles_y):
        starts[tile + 1] += starts[tile]
    cursor = starts[:-1].copy()
    ranks = np.empty(starts[-1], np.int32)
    slots = np.empty(starts[-1], np.int32)
    for rank in range(n):
        x0, x1 = _tile_range(records[rank, 0], records[rank, 8], tiles_x, TILE_WIDTH)
        y0, y1 = _tile_range(records[rank, 1], records[rank, 9], tiles_y, TILE_HEIGHT)
        pair = splat_starts[rank]
        for ty in range(y0, y1):
            for tx in range(x0, x1):
                slot = cursor[ty * tiles_x + tx]
                cursor[ty * tiles_x + tx] += 1
                ranks[slot] = rank
                slots[pair] = slot
                pair += 1
    return starts, ranks, splat_starts, slots
