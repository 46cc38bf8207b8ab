"""Smooth labelling of a pixel grid: the convex relaxation of the Potts model.

Minimises over label weights u on the simplex of every pixel

    sum_k <cost_k, u_k> + 1/2 sum_k sum_pixels |(w_right d_x u_k, w_down d_y u_k)|

by the first-order primal-dual method (Chambolle and Pock 2011, section 6.2). Edge weights fall
where the image changes, so that label borders settle on contours.
"""

from __future__ import annotations

import numba
import numpy as np
from numpy.typing import NDArray


def solve_potts(
    costs: NDArray,  # (h, w, K)
    weights_right: NDArray,  # (h, w) of the edge to the right neighbour
    weights_down: NDArray,  # (h, w) of the edge to the lower neighbour
    *,
    iterations: int = 200,
    start: NDArray | None = None,  # (h, w, K) earlier weights to begin from
) -> NDArray[np.float32]:
    """(h, w, K) label weights, each pixel's summing to one. Edge weights must be positive."""
    costs = np.ascontiguousarray(costs, np.float32)
    if start is None:
        start = np.zeros_like(costs)
        np.put_along_axis(start, costs.argmin(2)[..., None], 1.0, 2)
    return _primal_dual(
        costs,
        np.ascontiguousarray(weights_right, np.float32) * np.float32(0.5),
        np.ascontiguousarray(weights_down, np.float32) * np.float32(0.5),
        np.ascontiguousarray(start, np.float32),
        iterations,
    )


@numba.njit(cache=True, fastmath=True)
def _primal_dual(costs, right, down, start, iterations):
    height, width, labels = costs.shape
    u = start.copy()
    leading = start.copy()
    dual_x = np.zeros_like(u)
    dual_y = np.zeros_like(u)
    step = np.float32(0.35)
    one = np.float32(1.0)
    values = np.empty(labels, np.float32)
    for _ in range(iterations):
        for y in range(height):
            for x in range(width):
                for k in range(labels):
                    p = dual_x[y, x, k]
                    q = dual_y[y, x, k]
                    if x + 1 < width:
                        p += step * (leading[y, x + 1, k] - leading[y, x, k])
                    if y + 1 < height:
                        q += step * (leading[y + 1, x, k] - leading[y, x, k])
                    p_limit, q_limit = right[y, x], down[y, x]
                    norm = (p / p_limit) ** 2 + (q / q_limit) ** 2
                    if norm > one:
                        shrink = one / np.sqrt(norm)
                        p *= shrink
                        q *= shrink
                    dual_x[y, x, k] = p
                    dual_y[y, x, k] = q
        for y in range(height):
            for x in range(width):
                for k in range(labels):
                    divergence = dual_x[y, x, k] + dual_y[y, x, k]
                    if x > 0:
                        divergence -= dual_x[y, x - 1, k]
                    if y > 0:
                        divergence -= dual_y[y - 1, x, k]
                    values[k] = u[y, x, k] + step * (divergence - costs[y, x, k])
                shift = _simplex_shift(values, labels)
                for k in range(labels):
                    new = max(values[k] - shift, np.float32(0.0))
                    leading[y, x, k] = np.float32(2.0) * new - u[y, x, k]
                    u[y, x, k] = new
    return u


@numba.njit(cache=True, fastmath=True)
def _simplex_shift(values, labels):
    """Amount to take off every value so that the positive parts sum to one (few labels)."""
    shift = np.float32(-1e30)
    total = np.float32(0.0)
    for k in range(labels):
        total += values[k]
    shift = (total - np.float32(1.0)) / labels
    for _ in range(labels):
        total = np.float32(0.0)
        count = 0
        for k in range(labels):
            if values[k] > shift:
                total += values[k]
                count += 1
        new = (total - np.float32(1.0)) / count
        if new <= shift:
            break
        shift = new
    return shift
