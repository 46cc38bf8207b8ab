"""Compiled alpha compositing of depth-sorted ellipses, forward and backward.

One call treats the tiles ``[first, last)`` and releases the GIL. The loop over splats is outside,
the pixels of the tile stay in cache; in each image row only the interval inside the ellipse
sigma <= ln(255 * opacity) is visited. Formulas and thresholds follow gsplat 1.5.3.
"""

from __future__ import annotations

from math import ceil, floor, sqrt

import numpy as np
from numba import njit

from fc4d_ray.rendering._projection_kernels import MIN_ALPHA
from fc4d_ray.rendering._simd import (
    LANES,
    exp_of_negative,
    load,
    ramp,
    repeat,
    select,
    some,
    store,
    total,
)
from fc4d_ray.rendering._tile_kernels import TILE_HEIGHT, TILE_WIDTH

STOP_TRANSMITTANCE = 1e-4
"""A pixel takes no further splat once its transmittance would fall to this or below."""

MAX_SIGMA = 6.0
"""Above ln(255), so that nothing visible lies beyond; bounds the argument of the exponential."""

MOMENTS = 8
"""Per (tile, splat) pair: sums over pixels of s, s dx, s dy, s dx^2, s dx dy, s dy^2 with s the
gradient of sigma and (dx, dy) pixel minus mean, then of the two absolute mean gradients."""

STRIDE = TILE_WIDTH + LANES
"""Row length of a tile's buffers: the last vector of a row may reach over its end."""

PIXELS = TILE_HEIGHT * STRIDE

CHECK_EVERY = 64
"""After so many splats the forward pass looks whether its tile still has an open pixel."""


@njit(cache=True, nogil=True)
def _tile_box(tile, width, height):
    tiles_x = -(-width // TILE_WIDTH)
    left, top = (tile % tiles_x) * TILE_WIDTH, (tile // tiles_x) * TILE_HEIGHT
    return left, top, min(left + TILE_WIDTH, width), min(top + TILE_HEIGHT, height)


@njit(cache=True, nogil=True)
def _rows(record, top, bottom):
    """Rows ``[y0, y1)`` of the tile that the ellipse may reach, a hair more."""
    half = record[9] * 1.002 + 0.51
    y0 = max(top, int(min(max(ceil(record[1] - half), -1.0), 1e9)))
    y1 = min(bottom, int(min(max(floor(record[1] + half), -1.0), 1e9)))
    return y0, y1


@njit(cache=True, nogil=True)
def _columns(record, dy, left, right):
    """Pixels ``[x0, x1)`` of a tile's row that may lie inside the ellipse, a hair more."""
    inverse = record[10]
    square = record[6] - record[7] * dy * dy
    half = sqrt(square) * inverse if square > 0 else square * 0
    half += record[8] * 0.002 + 0.51
    centre = record[0] - record[3] * dy * inverse
    x0 = max(left, int(min(max(ceil(centre - half), -1.0), 1e9)))
    x1 = min(right, int(min(max(floor(centre + half), -1.0), 1e9)))
    return x0, x1


@njit(cache=True, nogil=True)
def _is_open(transmittance):
    """Whether a pixel of the tile still takes splats."""
    for at in range(0, PIXELS, LANES):  # noqa: SIM110  (numba has no any)
        if some(load(transmittance, at) > 0.0):
            return True
    return False


@njit(cache=True, nogil=True)
def composite_forward(
    first,
    last,
    records,  # [M, RECORD]
    features,  # [M, D] in depth order
    starts,
    ranks,
    background,  # [D]
    alpha_cap,
    image,  # out [H, W, D]
    transmittance,  # out [H, W]
    last_pair,  # out [H, W]: pairs of the tile that may count, 0 = none
):
    height, width, depth = image.shape
    dtype = records.dtype.type
    one, half, zero = dtype(1.0), dtype(0.5), dtype(0.0)
    cap, min_alpha = dtype(alpha_cap), dtype(MIN_ALPHA)
    stop, max_sigma = dtype(STOP_TRANSMITTANCE), dtype(MAX_SIGMA)
    # Transmittance of finished pixels is kept negative; beyond the image it is 0.
    open_t = np.empty(PIXELS, records.dtype)
    counted = np.empty(PIXELS, records.dtype)
    channels = np.empty(depth * PIXELS, records.dtype)
    for tile in range(first, last):
        left, top, right, bottom = _tile_box(tile, width, height)
        open_t[:] = zero
        counted[:] = zero
        channels[:] = zero
        for y in range(bottom - top):
            open_t[y * STRIDE : y * STRIDE + right - left] = one
        for pair in range(starts[tile], starts[tile + 1]):
            number = dtype(pair - starts[tile] + 1)
            if (pair - starts[tile]) % CHECK_EVERY == CHECK_EVERY - 1 and not _is_open(open_t):
                break
            rank = ranks[pair]
            r = records[rank]
            cap_lanes = repeat(cap)
            y0, y1 = _rows(r, top, bottom)
            for y in range(y0, y1):
                dy = dtype(y) + half - r[1]
                x0, x1 = _columns(r, dy, left, right)
                slope, offset = r[3] * dy, half * r[4] * dy * dy
                row = (y - top) * STRIDE - left
                for x in range(x0, x1, LANES):
                    at = row + x
                    t = load(open_t, at)
                    dx = ramp(dtype(x) + half - r[0])
                    sigma = (dx * (half * r[2]) + slope) * dx + offset
                    alpha = exp_of_negative(sigma) * r[5]
                    alpha = select(alpha < cap, alpha, cap_lanes)
                    seen = (t > zero) & (sigma >= zero) & (sigma < max_sigma) & (alpha >= min_alpha)
                    if not some(seen):
                        continue
                    after = (one - alpha) * t
                    used = seen & (after > stop)
                    weight = select(used, alpha * t, zero)
                    after = select(seen & (after <= stop), zero - t, t - weight)
                    store(open_t, at, after)
                    store(counted, at, select(used, repeat(number), load(counted, at)))
                    for k in range(depth):
                        place = k * PIXELS + at
                        store(channels, place, load(channels, place) + weight * features[rank, k])
        for y in range(top, bottom):
            for x in range(left, right):
                at = (y - top) * STRIDE + x - left
                t = abs(open_t[at])
                transmittance[y, x] = t
                last_pair[y, x] = counted[at]
                for k in range(depth):
                    image[y, x, k] = channels[k * PIXELS + at] + t * background[k]


@njit(cache=True, nogil=True)
def _load_tile(box, background, transmittance, last_pair, g_image, g_alpha, buffers, g_background):
    """Fill the tile's buffers for the backward pass; returns the last pair that counts."""
    left, top, right, bottom = box
    open_t, counted, behind, g_channels = buffers
    open_t[:] = 0
    counted[:] = 0
    behind[:] = 0
    g_channels[:] = 0
    g_background[:] = 0.0
    n_pairs = 0
    for y in range(top, bottom):
        for x in range(left, right):
            at = (y - top) * STRIDE + x - left
            t, g = transmittance[y, x], g_alpha[y, x]
            for k in range(g_image.shape[2]):
                g -= background[k] * g_image[y, x, k]
                g_background[k] += t * g_image[y, x, k]
                g_channels[k * PIXELS + at] = g_image[y, x, k]
            open_t[at] = t
            behind[at] = -t * g
            counted[at] = last_pair[y, x]
            n_pairs = max(n_pairs, int(last_pair[y, x]))
    return n_pairs


@njit(cache=True, nogil=True)
def composite_backward(
    first,
    last,
    records,
    features,
    starts,
    ranks,
    background,
    alpha_cap,
    transmittance,  # [H, W]
    last_pair,  # [H, W]
    g_image,  # [H, W, D]
    g_alpha,  # [H, W]
    absolute,  # whether to sum absolute gradients too
    moments,  # out [P, MOMENTS + D], zeros on entry
    g_background,  # out [T, D] float64
):
    height, width, depth = g_image.shape
    dtype = records.dtype.type
    one, half, zero = dtype(1.0), dtype(0.5), dtype(0.0)
    cap, min_alpha, max_sigma = dtype(alpha_cap), dtype(MIN_ALPHA), dtype(MAX_SIGMA)
    open_t = np.empty(PIXELS, records.dtype)
    counted = np.empty(PIXELS, records.dtype)
    behind = np.empty(PIXELS, records.dtype)  # colour gradient dot what lies behind
    g_channels = np.empty(depth * PIXELS, records.dtype)
    g_feature = np.empty(depth * LANES, records.dtype)
    buffers = (open_t, counted, behind, g_channels)
    nothing = repeat(zero)
    for tile in range(first, last):
        box = _tile_box(tile, width, height)
        left, top, right, bottom = box
        n_pairs = _load_tile(
            box,
            background,
            transmittance,
            last_pair,
            g_image,
            g_alpha,
            buffers,
            g_background[tile],
        )
        for pair in range(starts[tile] + n_pairs - 1, starts[tile] - 1, -1):
            number = dtype(pair - starts[tile] + 1)
            rank = ranks[pair]
            r = records[rank]
            g_feature[:] = zero
            m0 = m1 = m2 = m3 = m4 = m5 = m6 = m7 = nothing
            cap_lanes = repeat(cap)
            y0, y1 = _rows(r, top, bottom)
            for y in range(y0, y1):
                dy = dtype(y) + half - r[1]
                x0, x1 = _columns(r, dy, left, right)
                slope, offset = r[3] * dy, half * r[4] * dy * dy
                row = (y - top) * STRIDE - left
                s0 = s1 = s2 = nothing
                for x in range(x0, x1, LANES):
                    at = row + x
                    taken = load(counted, at) >= number
                    if not some(taken):
                        continue
                    dx = ramp(dtype(x) + half - r[0])
                    sigma = (dx * (half * r[2]) + slope) * dx + offset
                    raw = exp_of_negative(sigma) * r[5]
                    alpha = select(raw < cap, raw, cap_lanes)
                    taken = taken & (sigma >= zero) & (sigma < max_sigma) & (alpha >= min_alpha)
                    alpha = select(taken, alpha, zero)
                    inverse = one / (one - alpha)
                    t = load(open_t, at) * inverse
                    weight = alpha * t
                    dot = nothing
                    for k in range(depth):
                        g = load(g_channels, k * PIXELS + at)
                        dot = dot + g * features[rank, k]
                        store(g_feature, k * LANES, load(g_feature, k * LANES) + weight * g)
                    b = load(behind, at)
                    store(open_t, at, t)
                    store(behind, at, b + weight * dot)
                    # Saturated splats pass nothing on to opacity and sigma.
                    s = select(raw <= cap, alpha * (b * inverse - dot * t), zero)
                    s0 = s0 + s
                    s1 = s1 + s * dx
                    s2 = s2 + s * dx * dx
                    if absolute:
                        g = s * (dx * r[2] + slope)
                        m6 = m6 + select(g < zero, zero - g, g)
                        g = s * (dx * r[3] + r[4] * dy)
                        m7 = m7 + select(g < zero, zero - g, g)
                m0 = m0 + s0
                m1 = m1 + s1
                m2 = m2 + s0 * dy
                m3 = m3 + s2
                m4 = m4 + s1 * dy
                m5 = m5 + s0 * (dy * dy)
            m = moments[pair]
            m[0], m[1], m[2], m[3] = total(m0), total(m1), total(m2), total(m3)
            m[4], m[5] = total(m4), total(m5)
            if absolute:
                m[6], m[7] = total(m6), total(m7)
            for k in range(depth):
                m[MOMENTS + k] = total(load(g_feature, k * LANES))


@njit(cache=True, nogil=True)
def gather_gradients(
    first,
    last,
    order,
    records,
    splat_starts,
    slots,
    moments,
    g_means2d,  # out [N, 2], zeros on entry
    g_conics,  # out [N, 3]
    g_opacities,  # out [N]
    g_features,  # out [N, D]
    g_absolute,  # out [N, 2]
):
    """Sum the pairs of the splats ``[first, last)`` (depth order), always in the same order."""
    total = np.empty(moments.shape[1], np.float64)
    for rank in range(first, last):
        total[:] = 0.0
        for pair in range(splat_starts[rank], splat_starts[rank + 1]):
            row = moments[slots[pair]]
            for k in range(len(total)):
                total[k] += row[k]
        n = order[rank]
        r = records[rank]
        g_means2d[n, 0] = -(r[2] * total[1] + r[3] * total[2])
        g_means2d[n, 1] = -(r[3] * total[1] + r[4] * total[2])
        g_conics[n, 0] = 0.5 * total[3]
        g_conics[n, 1] = total[4]
        g_conics[n, 2] = 0.5 * total[5]
        g_opacities[n] = -total[0] / r[5]
        g_absolute[n, 0] = total[6]
        g_absolute[n, 1] = total[7]
        for k in range(g_features.shape[1]):
            g_features[n, k] = total[MOMENTS + k]
