"""A smooth backdrop: what a studio wall or a clear sky would show behind the head.

Beside the head a graded backdrop has colours that occur nowhere at the borders of the picture, so
learning its colours there is not enough. A low polynomial of the place, fitted robustly to what is
surely background, goes on behind the head; what looks just like that is hardly anything else.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from fc4d_ray.images import smoothstep

DEGREE = 5
_ROUNDS = 12
_SCALES = (0.12, 0.012)
"""Residual, of full scale 1, up to which pixels count in the first and in the last round."""
_RIDGE = 1e-4
_LEAST_SPREAD_LAB = 2.0
_USUAL_SQUARES = 8.0
"""Sum of the squared deviations within which a backdrop's own pixels stay (95 % of them)."""
_TEXTURE_SPREAD = 0.25
_SMOOTH_LAB, _ROUGH_LAB = 1.5, 4.5
"""Typical residual of a perfectly smooth backdrop, and of one that is none (a room, a field)."""
_SHADOW_LIGHTNESS = (8.0, 26.0)
"""Below the first lightness (CIELAB) looking like the wall means nothing: everything does so in
its own shadow. Above the second it means all it can."""


def continued_backdrop(
    image: NDArray[np.uint8],  # (s, s, 3) RGB
    texture: NDArray[np.floating],  # (s, s) log of the local spread
    weights: NDArray[np.floating],  # (s, s) 0-1, how surely a pixel is background
) -> NDArray[np.float32]:
    """How far each pixel (s, s) looks just like the backdrop continued to its place, 0-1.

    All 0 where the background is no smooth one.
    """
    squares, smoothness = backdrop_deviation(image, texture, weights)
    alike = np.clip(1 - (squares - _USUAL_SQUARES) / (2 * _USUAL_SQUARES), 0, 1)
    lightness = _lab(image.astype(np.float32) / 255)[..., 0]
    lit = smoothstep(lightness, *_SHADOW_LIGHTNESS)
    return (smoothness * alike * lit).astype(np.float32)


def backdrop_deviation(
    image: NDArray[np.uint8],  # (s, s, 3) RGB
    texture: NDArray[np.floating],  # (s, s) log of the local spread
    weights: NDArray[np.floating],  # (s, s) 0-1, how surely a pixel is background
) -> tuple[NDArray[np.float64], float]:
    """How far each pixel is from the backdrop continued to its place, and how smooth that is.

    Deviations (s, s) are squares of colour and texture in the backdrop's own spreads; smoothness
    goes from 0, where the background is no smooth one or hardly any is seen, to 1.
    """
    sure = weights > 0.5 * max(float(weights.max()), 1e-9)
    if sure.sum() < 4 * (DEGREE + 1) ** 2:
        return np.zeros(weights.shape), 0.0
    colours = _lab(image.astype(np.float32) / 255)
    residual = np.linalg.norm(colours - _lab(_continued(image, weights)), axis=-1)
    typical = float(np.median(residual[sure]))
    smoothness = np.clip((_ROUGH_LAB - typical) / (_ROUGH_LAB - _SMOOTH_LAB), 0, 1)
    spread = max(_LEAST_SPREAD_LAB, typical)
    rough = np.clip(texture - np.quantile(texture[sure], 0.95), 0, None)
    squares = np.square(residual / spread) + np.square(rough / _TEXTURE_SPREAD)
    return squares, float(smoothness)


def _continued(image: NDArray[np.uint8], weights: NDArray[np.floating]) -> NDArray[np.float32]:
    """The polynomial (s, s, 3), 0-1: least squares whose weights fall off with the residual."""
    values = image.reshape(-1, 3).astype(np.float64) / 255
    basis = _polynomials(image.shape[0])
    weight = weights.reshape(-1).astype(np.float64)
    trust, solution = weight, np.zeros((basis.shape[1], 3))
    for scale in np.geomspace(*_SCALES, _ROUNDS):
        weighted = basis * trust[:, None]
        ridge = _RIDGE * weight.sum() * np.eye(basis.shape[1])
        solution = np.linalg.solve(weighted.T @ basis + ridge, weighted.T @ values)
        misfit = np.linalg.norm(values - basis @ solution, axis=1)
        trust = weight / (1 + np.square(misfit / scale)) ** 2
    return (basis @ solution).clip(0, 1).reshape(image.shape).astype(np.float32)


def _polynomials(side: int) -> NDArray[np.float64]:
    """All products x^i y^j up to ``DEGREE`` (side * side, n), over -1…1."""
    at = (np.arange(side) + 0.5) / side * 2 - 1
    x, y = (axis.ravel() for axis in np.meshgrid(at, at))
    powers = [(i, j) for i in range(DEGREE + 1) for j in range(DEGREE + 1 - i)]
    return np.stack([x**i * y**j for i, j in powers], -1)


def _lab(image: NDArray[np.float32]) -> NDArray[np.float32]:
    return cv2.cvtColor(image, cv2.COLOR_RGB2LAB)
