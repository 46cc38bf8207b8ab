"""Compiled projection of 3D Gaussians to image-plane ellipses, forward and backward.

One call treats the splats ``[first, last)`` of one camera and releases the GIL. Arithmetic is
float64 whatever the arrays hold: the kernels are scalar code, and splats near the near plane lose
half their digits otherwise. Formulas follow gsplat 1.5.3 (pinhole); S is the 2D covariance.
Helpers are inlined by force: handing over their arrays costs more than their arithmetic.
"""

from __future__ import annotations

from math import ceil, log, sqrt

import numpy as np
from numba import njit

MIN_ALPHA = 1.0 / 255.0
"""A splat adds nothing where its alpha is below this."""

EXTENT_SIGMAS = 3.33
"""Upper limit of the reported radius, in standard deviations."""

TANGENT_MARGIN = 0.15
"""How far outside the image (fraction of its size) the Jacobian still follows the direction."""


@njit(cache=True, nogil=True, error_model="numpy", forceinline=True)
def _rotation(w, x, y, z, out):
    """Rotation matrix of a unit quaternion."""
    out[0, 0] = 1.0 - 2.0 * (y * y + z * z)
    out[0, 1] = 2.0 * (x * y - w * z)
    out[0, 2] = 2.0 * (x * z + w * y)
    out[1, 0] = 2.0 * (x * y + w * z)
    out[1, 1] = 1.0 - 2.0 * (x * x + z * z)
    out[1, 2] = 2.0 * (y * z - w * x)
    out[2, 0] = 2.0 * (x * z - w * y)
    out[2, 1] = 2.0 * (y * z + w * x)
    out[2, 2] = 1.0 - 2.0 * (x * x + y * y)


@njit(cache=True, nogil=True, error_model="numpy", forceinline=True)
def _project_one(
    n, means, quats, scales, view, intrinsics, size, local, rotation, axes, image_axes
):
    """Intermediate values both passes need.

    Fills ``local`` (camera-space x, y, z, clamped tx, ty, whether clamped x, y, quaternion norm),
    ``rotation`` (3, 3), ``axes`` (3, 3: camera-space principal axes times scale, S_c = A A^T) and
    ``image_axes`` (2, 3: J A, so that S = B B^T).
    """
    mx, my, mz = np.float64(means[n, 0]), np.float64(means[n, 1]), np.float64(means[n, 2])
    for i in range(3):
        local[i] = view[i, 0] * mx + view[i, 1] * my + view[i, 2] * mz + view[i, 3]
    x, y, z = local[0], local[1], local[2]
    fx, fy, cx, cy = intrinsics[0], intrinsics[1], intrinsics[2], intrinsics[3]
    margin_x = TANGENT_MARGIN * size[0] / fx
    margin_y = TANGENT_MARGIN * size[1] / fy
    tan_x = min((size[0] - cx) / fx + margin_x, max(-(cx / fx + margin_x), x / z))
    tan_y = min((size[1] - cy) / fy + margin_y, max(-(cy / fy + margin_y), y / z))
    local[3] = tan_x * z
    local[4] = tan_y * z
    local[5] = 0.0 if tan_x == x / z else 1.0
    local[6] = 0.0 if tan_y == y / z else 1.0
    qw, qx, qy, qz = (
        np.float64(quats[n, 0]),
        np.float64(quats[n, 1]),
        np.float64(quats[n, 2]),
        np.float64(quats[n, 3]),
    )
    norm = sqrt(qw * qw + qx * qx + qy * qy + qz * qz)
    local[7] = norm
    if norm == 0.0:
        return
    _rotation(qw / norm, qx / norm, qy / norm, qz / norm, rotation)
    for i in range(3):
        for j in range(3):
            axes[i, j] = (
                view[i, 0] * rotation[0, j]
                + view[i, 1] * rotation[1, j]
                + view[i, 2] * rotation[2, j]
            ) * scales[n, j]
    for j in range(3):
        image_axes[0, j] = fx / z * (axes[0, j] - tan_x * axes[2, j])
        image_axes[1, j] = fy / z * (axes[1, j] - tan_y * axes[2, j])


@njit(cache=True, nogil=True, error_model="numpy")
def project_forward(
    first,
    last,
    means,  # [N, 3]
    quats,  # [N, 4] wxyz
    scales,  # [N, 3]
    opacities,  # [N]
    view,  # [4, 4] float64
    intrinsics,  # [4] float64: fx, fy, cx, cy
    size,  # [2] float64: width, height
    limits,  # [4] float64: near, far, radius_clip, eps2d
    antialiased,
    means2d,  # out [N, 2]
    depths,  # out [N]
    conics,  # out [N, 3]
    radii,  # out [N, 2] int32, zeros on entry; stays 0 for culled splats
    compensations,  # out [N]
):
    local, rotation = np.empty(8), np.empty((3, 3))
    axes, b = np.empty((3, 3)), np.empty((2, 3))
    near, far, radius_clip, eps2d = limits[0], limits[1], limits[2], limits[3]
    for n in range(first, last):
        means2d[n, 0] = means2d[n, 1] = depths[n] = 0.0
        conics[n, 0] = conics[n, 1] = conics[n, 2] = compensations[n] = 0.0
        z = view[2, 0] * means[n, 0] + view[2, 1] * means[n, 1] + view[2, 2] * means[n, 2]
        z += view[2, 3]
        if not (z >= near and z <= far):
            continue
        _project_one(n, means, quats, scales, view, intrinsics, size, local, rotation, axes, b)
        if local[7] == 0.0:
            continue
        sxx = b[0, 0] * b[0, 0] + b[0, 1] * b[0, 1] + b[0, 2] * b[0, 2]
        sxy = b[0, 0] * b[1, 0] + b[0, 1] * b[1, 1] + b[0, 2] * b[1, 2]
        syy = b[1, 0] * b[1, 0] + b[1, 1] * b[1, 1] + b[1, 2] * b[1, 2]
        sharp = sxx * syy - sxy * sxy
        sxx += eps2d
        syy += eps2d
        det = sxx * syy - sxy * sxy
        if not (det > 0.0 and det < np.inf):
            continue
        compensation = sqrt(max(0.0, sharp / det))
        opacity = opacities[n] * compensation if antialiased else np.float64(opacities[n])
        if not opacity >= MIN_ALPHA:
            continue
        extent = min(EXTENT_SIGMAS, sqrt(2.0 * log(opacity / MIN_ALPHA)))
        radius_x, radius_y = ceil(extent * sqrt(sxx)), ceil(extent * sqrt(syy))
        if radius_x <= radius_clip and radius_y <= radius_clip:
            continue
        u = intrinsics[0] * local[0] / z + intrinsics[2]
        v = intrinsics[1] * local[1] / z + intrinsics[3]
        # Off screen by the full extent, as gsplat's reference has it (its CUDA code shrinks the
        # box by opacity first); the picture is the same.
        reach_x, reach_y = ceil(EXTENT_SIGMAS * sqrt(sxx)), ceil(EXTENT_SIGMAS * sqrt(syy))
        if not (u + reach_x > 0.0 and u - reach_x < size[0]):
            continue
        if not (v + reach_y > 0.0 and v - reach_y < size[1]):
            continue
        radii[n, 0] = min(radius_x, 2.0e9)
        radii[n, 1] = min(radius_y, 2.0e9)
        means2d[n, 0], means2d[n, 1], depths[n] = u, v, z
        conics[n, 0], conics[n, 1], conics[n, 2] = syy / det, -sxy / det, sxx / det
        compensations[n] = compensation


@njit(cache=True, nogil=True, error_model="numpy", forceinline=True)
def _quaternion_gradient(n, quats, norm, g, out):
    """Pull the gradient ``g`` (3, 3) of the rotation matrix back to the raw quaternion."""
    w, x, y, z = quats[n, 0] / norm, quats[n, 1] / norm, quats[n, 2] / norm, quats[n, 3] / norm
    gw = 2.0 * (x * (g[2, 1] - g[1, 2]) + y * (g[0, 2] - g[2, 0]) + z * (g[1, 0] - g[0, 1]))
    gx = 2.0 * (
        y * (g[0, 1] + g[1, 0])
        + z * (g[0, 2] + g[2, 0])
        + w * (g[2, 1] - g[1, 2])
        - 2.0 * x * (g[1, 1] + g[2, 2])
    )
    gy = 2.0 * (
        x * (g[0, 1] + g[1, 0])
        + z * (g[1, 2] + g[2, 1])
        + w * (g[0, 2] - g[2, 0])
        - 2.0 * y * (g[0, 0] + g[2, 2])
    )
    gz = 2.0 * (
        x * (g[0, 2] + g[2, 0])
        + y * (g[1, 2] + g[2, 1])
        + w * (g[1, 0] - g[0, 1])
        - 2.0 * z * (g[0, 0] + g[1, 1])
    )
    along = gw * w + gx * x + gy * y + gz * z
    out[n, 0] += (gw - along * w) / norm
    out[n, 1] += (gx - along * x) / norm
    out[n, 2] += (gy - along * y) / norm
    out[n, 3] += (gz - along * z) / norm


@njit(cache=True, nogil=True, error_model="numpy", forceinline=True)
def _covariance_gradient(n, b, eps2d, g_conics, g_compensations, out):
    """Gradient (2, 2) of the blurred covariance from those of its inverse and the compensation."""
    sharp_xx = b[0, 0] * b[0, 0] + b[0, 1] * b[0, 1] + b[0, 2] * b[0, 2]
    sxy = b[0, 0] * b[1, 0] + b[0, 1] * b[1, 1] + b[0, 2] * b[1, 2]
    sharp_yy = b[1, 0] * b[1, 0] + b[1, 1] * b[1, 1] + b[1, 2] * b[1, 2]
    sxx, syy = sharp_xx + eps2d, sharp_yy + eps2d
    det = sxx * syy - sxy * sxy
    ca, cb, cc = syy / det, -sxy / det, sxx / det
    # d(inverse) = -C dS C; the conic's off-diagonal number stands for both entries.
    va, vb, vc = np.float64(g_conics[n, 0]), 0.5 * g_conics[n, 1], np.float64(g_conics[n, 2])
    p00, p01 = ca * va + cb * vb, ca * vb + cb * vc
    p10, p11 = cb * va + cc * vb, cb * vb + cc * vc
    out[0] = -(p00 * ca + p01 * cb)
    out[1] = -(p00 * cb + p01 * cc)
    out[2] = -(p10 * cb + p11 * cc)
    ratio = (sharp_xx * sharp_yy - sxy * sxy) / det
    g_compensation = g_compensations[n]
    if g_compensation != 0.0 and ratio > 0.0:
        factor = g_compensation / (2.0 * sqrt(ratio) * det)
        out[0] += factor * (sharp_yy - ratio * syy)
        out[1] += factor * (ratio - 1.0) * sxy
        out[2] += factor * (sharp_xx - ratio * sxx)


@njit(cache=True, nogil=True, error_model="numpy")
def project_backward(
    first,
    last,
    means,
    quats,
    scales,
    view,
    intrinsics,
    size,
    limits,
    radii,
    g_means2d,  # [N, 2]
    g_depths,  # [N]
    g_conics,  # [N, 3]
    g_compensations,  # [N]
    g_means,  # in/out [N, 3], added to
    g_quats,  # in/out [N, 4]
    g_scales,  # in/out [N, 3]
    g_view,  # out [3, 4] float64: sum over these splats
):
    local, rotation = np.empty(8), np.empty((3, 3))
    axes, b = np.empty((3, 3)), np.empty((2, 3))
    g_cov, g_b, g_axes = np.empty(3), np.empty((2, 3)), np.empty((3, 3))
    g_rotation, g_point = np.empty((3, 3)), np.empty(3)
    fx, fy = intrinsics[0], intrinsics[1]
    g_view[:] = 0.0
    for n in range(first, last):
        if radii[n, 0] <= 0 and radii[n, 1] <= 0:
            continue
        _project_one(n, means, quats, scales, view, intrinsics, size, local, rotation, axes, b)
        x, y, z, tx, ty = local[0], local[1], local[2], local[3], local[4]
        _covariance_gradient(n, b, limits[3], g_conics, g_compensations, g_cov)
        for j in range(3):
            g_b[0, j] = 2.0 * (g_cov[0] * b[0, j] + g_cov[1] * b[1, j])
            g_b[1, j] = 2.0 * (g_cov[1] * b[0, j] + g_cov[2] * b[1, j])
        j00, j11, j02, j12 = fx / z, fy / z, -fx * tx / (z * z), -fy * ty / (z * z)
        g_j00 = g_j02 = g_j11 = g_j12 = 0.0
        for j in range(3):
            g_j00 += g_b[0, j] * axes[0, j]
            g_j02 += g_b[0, j] * axes[2, j]
            g_j11 += g_b[1, j] * axes[1, j]
            g_j12 += g_b[1, j] * axes[2, j]
            g_axes[0, j] = j00 * g_b[0, j]
            g_axes[1, j] = j11 * g_b[1, j]
            g_axes[2, j] = j02 * g_b[0, j] + j12 * g_b[1, j]
        gu, gv = np.float64(g_means2d[n, 0]), np.float64(g_means2d[n, 1])
        free_x, free_y = 1.0 - local[5], 1.0 - local[6]
        g_point[0] = gu * j00 - free_x * g_j02 * fx / (z * z)
        g_point[1] = gv * j11 - free_y * g_j12 * fy / (z * z)
        g_point[2] = (
            g_depths[n]
            - (gu * fx * x + gv * fy * y + g_j00 * fx + g_j11 * fy) / (z * z)
            - ((1.0 + free_x) * g_j02 * j02 + (1.0 + free_y) * g_j12 * j12) / z
        )
        for i in range(3):
            g_means[n, i] += (
                view[0, i] * g_point[0] + view[1, i] * g_point[1] + view[2, i] * g_point[2]
            )
            for j in range(3):
                g_world = (
                    view[0, i] * g_axes[0, j]
                    + view[1, i] * g_axes[1, j]
                    + view[2, i] * g_axes[2, j]
                )
                g_rotation[i, j] = g_world * scales[n, j]
                g_scales[n, j] += g_world * rotation[i, j]
        _quaternion_gradient(n, quats, local[7], g_rotation, g_quats)
        for i in range(3):
            for k in range(3):
                g_view[i, k] += g_point[i] * means[n, k] + (
                    g_axes[i, 0] * rotation[k, 0] * scales[n, 0]
                    + g_axes[i, 1] * rotation[k, 1] * scales[n, 1]
                    + g_axes[i, 2] * rotation[k, 2] * scales[n, 2]
                )
            g_view[i, 3] += g_point[i]
