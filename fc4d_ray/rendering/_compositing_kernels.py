"""Compiled alpha compositing of depth-sorted ellipses, forward and backward.

One call treats the tiles ``[first, last)`` and releases the GIL. The loop over splats is outside,
the pixels of the tile stay in cache; in each image row only the interval inside the ellipse
sigma <= ln(255 * opacity) is visited. Formulas and thresholds follow gsplat 1.5.3.
"""

from __future__ import annotations

from math import ceil, exp, floor, sqrt

import numpy as np
from numba import njit, types
from numba.extending import overload

from fc4d_ray.rendering._projection_kernels import MIN_ALPHA
from fc4d_ray.rendering._tile_kernels import TILE_HEIGHT, TILE_WIDTH

STOP_TRANSMITTANCE = 1e-4
"""A pixel takes no further splat once its transmittance would fall to this or below."""

MOMENTS = 8
"""Per (tile, splat) pair: sums over pixels of s, s dx, s dy, s dx^2, s dx dy, s dy^2 with s the
gradient of sigma and (dx, dy) pixel minus mean, then of the two absolute mean gradients."""


def _exp_of_negative(sigma):
    return exp(-sigma)


@overload(_exp_of_negative, inline="never")
def _exp_of_negative_typed(sigma):
    if sigma is types.float32:

        def polynomial(sigma):
            """e^-sigma for sigma in [0, 6]: (degree 7 in sigma / 4) to the fourth power."""
            x = sigma * np.float32(-0.25)
            p = np.float32(1.0 / 5040.0)
            p = p * x + np.float32(1.0 / 720.0)
            p = p * x + np.float32(1.0 / 120.0)
            p = p * x + np.float32(1.0 / 24.0)
            p = p * x + np.float32(1.0 / 6.0)
            p = p * x + np.float32(0.5)
            p = p * x + np.float32(1.0)
            p = p * x + np.float32(1.0)
            p = p * p
            return p * p

        return polynomial
    return lambda sigma: exp(-sigma)


@njit(cache=True, nogil=True)
def _row_interval(record, dy, left, right):
    """Pixels ``[x0, x1)`` of a tile's row that may lie inside the ellipse, a hair more."""
    a = record[2]
    half = sqrt(max(record[6] - record[7] * dy * dy, record[6] * 0)) / a
    centre = record[0] - record[3] * dy / a
    half += record[8] * 0.002 + 0.51
    x0 = int(max(ceil(centre - half), np.float64(left)))
    x1 = int(min(floor(centre + half), np.float64(right)))
    return x0, x1


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
    last_pair,  # out [H, W] int32: pairs of the tile that may count, 0 = none
):
    height, width, depth = image.shape
    tiles_x = -(-width // TILE_WIDTH)
    one = records.dtype.type(1.0)
    half = records.dtype.type(0.5)
    cap = records.dtype.type(alpha_cap)
    min_alpha = records.dtype.type(MIN_ALPHA)
    stop = records.dtype.type(STOP_TRANSMITTANCE)
    for tile in range(first, last):
        left, top = (tile % tiles_x) * TILE_WIDTH, (tile // tiles_x) * TILE_HEIGHT
        right, bottom = min(left + TILE_WIDTH, width), min(top + TILE_HEIGHT, height)
        transmittance[top:bottom, left:right] = one
        image[top:bottom, left:right] = 0
        last_pair[top:bottom, left:right] = 0
        for pair in range(starts[tile], starts[tile + 1]):
            rank = ranks[pair]
            r = records[rank]
            y0 = max(top, int(max(ceil(r[1] - r[9] * 1.002 - 0.51), -1.0)))
            y1 = min(bottom, int(min(floor(r[1] + r[9] * 1.002 + 0.51), 1e9)))
            for y in range(y0, y1):
                dy = y + half - r[1]
                x0, x1 = _row_interval(r, dy, left, right)
                slope, offset = r[3] * dy, half * r[4] * dy * dy
                for x in range(x0, x1):
                    t = transmittance[y, x]
                    if t < 0:
                        continue
                    dx = x + half - r[0]
                    sigma = (half * r[2] * dx + slope) * dx + offset
                    if sigma < 0 or sigma > 6:
                        continue
                    alpha = min(cap, r[5] * _exp_of_negative(sigma))
                    if alpha < min_alpha:
                        continue
                    after = t * (one - alpha)
                    if after <= stop:
                        transmittance[y, x] = -t
                        continue
                    weight = alpha * t
                    for k in range(depth):
                        image[y, x, k] += weight * features[rank, k]
                    transmittance[y, x] = after
                    last_pair[y, x] = pair - starts[tile] + 1
        for y in range(top, bottom):
            for x in range(left, right):
                t = abs(transmittance[y, x])
                transmittance[y, x] = t
                for k in range(depth):
                    image[y, x, k] += t * background[k]


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
    moments,  # out [P, MOMENTS + D]
    g_background,  # out [T, D] float64
):
    height, width, depth = g_image.shape
    tiles_x = -(-width // TILE_WIDTH)
    one = records.dtype.type(1.0)
    half = records.dtype.type(0.5)
    cap = records.dtype.type(alpha_cap)
    min_alpha = records.dtype.type(MIN_ALPHA)
    t_now = np.empty((TILE_HEIGHT, TILE_WIDTH), records.dtype)
    behind = np.empty((TILE_HEIGHT, TILE_WIDTH), records.dtype)
    for tile in range(first, last):
        left, top = (tile % tiles_x) * TILE_WIDTH, (tile // tiles_x) * TILE_HEIGHT
        right, bottom = min(left + TILE_WIDTH, width), min(top + TILE_HEIGHT, height)
        g_background[tile] = 0.0
        for y in range(top, bottom):
            for x in range(left, right):
                t = transmittance[y, x]
                g = g_alpha[y, x]
                for k in range(depth):
                    g -= background[k] * g_image[y, x, k]
                    g_background[tile, k] += t * g_image[y, x, k]
                t_now[y - top, x - left] = t
                behind[y - top, x - left] = -t * g
        for pair in range(starts[tile + 1] - 1, starts[tile] - 1, -1):
            number = pair - starts[tile] + 1
            rank = ranks[pair]
            r = records[rank]
            m = moments[pair]
            m[:] = 0
            y0 = max(top, int(max(ceil(r[1] - r[9] * 1.002 - 0.51), -1.0)))
            y1 = min(bottom, int(min(floor(r[1] + r[9] * 1.002 + 0.51), 1e9)))
            for y in range(y0, y1):
                dy = y + half - r[1]
                x0, x1 = _row_interval(r, dy, left, right)
                slope, offset = r[3] * dy, half * r[4] * dy * dy
                s0 = s1 = s2 = one * 0
                for x in range(x0, x1):
                    if last_pair[y, x] < number:
                        continue
                    dx = x + half - r[0]
                    sigma = (half * r[2] * dx + slope) * dx + offset
                    if sigma < 0 or sigma > 6:
                        continue
                    raw = r[5] * _exp_of_negative(sigma)
                    alpha = min(cap, raw)
                    if alpha < min_alpha:
                        continue
                    inverse = one / (one - alpha)
                    t = t_now[y - top, x - left] * inverse
                    weight = alpha * t
                    dot = one * 0
                    for k in range(depth):
                        dot += features[rank, k] * g_image[y, x, k]
                        m[MOMENTS + k] += weight * g_image[y, x, k]
                    b = behind[y - top, x - left]
                    t_now[y - top, x - left] = t
                    behind[y - top, x - left] = b + weight * dot
                    if raw > cap:
                        continue
                    s = -alpha * (dot * t - b * inverse)
                    s0 += s
                    s1 += s * dx
                    s2 += s * dx * dx
                    if absolute:
                        m[6] += abs(s * (r[2] * dx + r[3] * dy))
                        m[7] += abs(s * (r[3] * dx + r[4] * dy))
                m[0] += s0
                m[1] += s1
                m[2] += s0 * dy
                m[3] += s2
                m[4] += s1 * dy
                m[5] += s0 * dy * dy


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
