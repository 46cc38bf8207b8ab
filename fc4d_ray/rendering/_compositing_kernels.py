"""Compiled alpha compositing of depth-sorted ellipses, forward and backward.

One call treats the tiles ``[first, last)`` and releases the GIL. The loop over splats is outside,
the pixels of the tile stay in cache; in each image row only the interval inside the ellipse
sigma <= ln(255 * opacity) is visited. Formulas and thresholds follow gsplat 1.5.3.
"""

from __future__ import annotations

from math import sqrt

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

MARGIN = np.float32(0.002)
AROUND = np.float32(0.51)
"""An interval is widened by this share of the ellipse's half-width, for rounding, and by this many
pixels, from its ends to pixel centres. What lies outside the ellipse is then masked exactly."""

MINUS_ONE, ALMOST_ONE, FAR = np.float32(-1.0), np.float32(0.9999), np.float32(1e6)

CHECK_EVERY = 64
"""After so many splats the forward pass looks whether its tile still has an open pixel."""


@njit(cache=True, nogil=True, error_model="numpy")
def _tile_box(tile, width, height):
    tiles_x = -(-width // TILE_WIDTH)
    left, top = (tile % tiles_x) * TILE_WIDTH, (tile // tiles_x) * TILE_HEIGHT
    return left, top, min(left + TILE_WIDTH, width), min(top + TILE_HEIGHT, height)


@njit(cache=True, nogil=True, error_model="numpy", forceinline=True)
def _span(centre, half, first, last):
    """Those of the pixels ``[first, last)`` whose centres lie within ``half`` of ``centre``.

    Rounds by truncation: floor and ceil become calls into the C library. ``first`` is not
    negative, so truncation is right wherever the result matters.
    """
    start = int(min(max(centre - half, MINUS_ONE), FAR) + ALMOST_ONE)
    stop = int(min(max(centre + half, MINUS_ONE), FAR))
    return max(first, start), min(last, stop)


@njit(cache=True, nogil=True, error_model="numpy")
def _is_open(transmittance):
    """Whether a pixel of the tile still takes splats."""
    for at in range(0, PIXELS, LANES):  # noqa: SIM110  (numba has no any)
        if some(load(transmittance, at) > 0.0):
            return True
    return False


@njit(cache=True, nogil=True, error_model="numpy")
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
    cap_lanes, min_alpha = repeat(dtype(alpha_cap)), dtype(MIN_ALPHA)
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
            mean_x, mean_y = records[rank, 0], records[rank, 1]
            xx, xy, yy = records[rank, 2], records[rank, 3], records[rank, 4]
            opacity, reach, det = records[rank, 5], records[rank, 6], records[rank, 7]
            margin, inverse_xx = records[rank, 8] * MARGIN + AROUND, records[rank, 10]
            half_width = records[rank, 8] + margin
            narrow = half_width <= half * LANES
            x0, x1 = _span(mean_x, half_width, left, right)
            y0, y1 = _span(mean_y, records[rank, 9] * (one + MARGIN) + AROUND, top, bottom)
            for y in range(y0, y1):
                dy = dtype(y) + half - mean_y
                slope, offset = xy * dy, half * yy * dy * dy
                if not narrow:  # else one vector covers the whole width
                    square = reach - det * dy * dy
                    row_half = (sqrt(square) * inverse_xx if square > zero else zero) + margin
                    x0, x1 = _span(mean_x - slope * inverse_xx, row_half, left, right)
                row = (y - top) * STRIDE - left
                for x in range(x0, x1, LANES):
                    at = row + x
                    t = load(open_t, at)
                    dx = ramp(dtype(x) + half - mean_x)
                    sigma = (dx * (half * xx) + slope) * dx + offset
                    alpha = exp_of_negative(sigma) * opacity
                    alpha = select(alpha < cap_lanes, alpha, cap_lanes)
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


@njit(cache=True, nogil=True, error_model="numpy")
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


@njit(cache=True, nogil=True, error_model="numpy")
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
    cap_lanes, min_alpha, max_sigma = repeat(dtype(alpha_cap)), dtype(MIN_ALPHA), dtype(MAX_SIGMA)
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
            mean_x, mean_y = records[rank, 0], records[rank, 1]
            xx, xy, yy = records[rank, 2], records[rank, 3], records[rank, 4]
            opacity, reach, det = records[rank, 5], records[rank, 6], records[rank, 7]
            margin, inverse_xx = records[rank, 8] * MARGIN + AROUND, records[rank, 10]
            half_width = records[rank, 8] + margin
            narrow = half_width <= half * LANES
            x0, x1 = _span(mean_x, half_width, left, right)
            g_feature[:] = zero
            m0 = m1 = m2 = m3 = m4 = m5 = m6 = m7 = nothing
            y0, y1 = _span(mean_y, records[rank, 9] * (one + MARGIN) + AROUND, top, bottom)
            for y in range(y0, y1):
                dy = dtype(y) + half - mean_y
                slope, offset = xy * dy, half * yy * dy * dy
                if not narrow:  # else one vector covers the whole width
                    square = reach - det * dy * dy
                    row_half = (sqrt(square) * inverse_xx if square > zero else zero) + margin
                    x0, x1 = _span(mean_x - slope * inverse_xx, row_half, left, right)
                row = (y - top) * STRIDE - left
                s0 = s1 = s2 = nothing
                for x in range(x0, x1, LANES):
                    at = row + x
                    taken = load(counted, at) >= number
                    if not some(taken):
                        continue
                    dx = ramp(dtype(x) + half - mean_x)
                    sigma = (dx * (half * xx) + slope) * dx + offset
                    raw = exp_of_negative(sigma) * opacity
                    alpha = select(raw < cap_lanes, raw, cap_lanes)
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
                    s = select(raw <= cap_lanes, alpha * (b * inverse - dot * t), zero)
                    s0 = s0 + s
                    s1 = s1 + s * dx
                    s2 = s2 + s * dx * dx
                    if absolute:
                        g = s * (dx * xx + slope)
                        m6 = m6 + select(g < zero, zero - g, g)
                        g = s * (dx * xy + yy * dy)
                        m7 = m7 + select(g < zero, zero - g, g)
                m0 = m0 + s0
                m1 = m1 + s1
                m2 = m2 + s0 * dy
                m3 = m3 + s2
                m4 = m4 + s1 * dy
                m5 = m5 + s0 * (dy * dy)
            moments[pair, 0], moments[pair, 1], moments[pair, 2] = total(m0), total(m1), total(m2)
            moments[pair, 3], moments[pair, 4], moments[pair, 5] = total(m3), total(m4), total(m5)
            moments[pair, 6], moments[pair, 7] = total(m6), total(m7)
            for k in range(depth):
                moments[pair, MOMENTS + k] = total(load(g_feature, k * LANES))


@njit(cache=True, nogil=True, error_model="numpy")
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
    # No row views in these loops: each would count references, an atomic write that the threads
    # would fight over.
    width = moments.shape[1]
    sums = np.empty(width, np.float64)
    for rank in range(first, last):
        sums[:] = 0.0
        for pair in range(splat_starts[rank], splat_starts[rank + 1]):
            slot = slots[pair]
            for k in range(width):
                sums[k] += moments[slot, k]
        n = order[rank]
        xx, xy, yy = records[rank, 2], records[rank, 3], records[rank, 4]
        g_means2d[n, 0] = -(xx * sums[1] + xy * sums[2])
        g_means2d[n, 1] = -(xy * sums[1] + yy * sums[2])
        g_conics[n, 0] = 0.5 * sums[3]
        g_conics[n, 1] = sums[4]
        g_conics[n, 2] = 0.5 * sums[5]
        g_opacities[n] = -sums[0] / records[rank, 5]
        g_absolute[n, 0] = sums[6]
        g_absolute[n, 1] = sums[7]
        for k in range(width - MOMENTS):
            g_features[n, k] = sums[MOMENTS + k]
