"""Background, skin, hair and clothing of a levelled crop, without any trained network.

The four classes start from head geometry, learn their looks, texture and places from the very
picture (one Gaussian mixture each), and are smoothed along the picture's contours; learning and
smoothing alternate. Telling the three kinds of foreground apart is what lets each colour model
stay simple, so the matte comes from the same computation.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from fc4d_ray.images import smoothstep
from fc4d_ray.portraits.backdrop import continued_backdrop
from fc4d_ray.portraits.geometry_prior import (
    BACKGROUND,
    CLOTHING,
    HAIR,
    SKIN,
    GeometryPrior,
    geometry_prior,
)
from fc4d_ray.portraits.mixtures import GaussianMixture, fit_mixture
from fc4d_ray.portraits.potts import solve_potts

COMPONENTS = {BACKGROUND: 10, SKIN: 4, HAIR: 5, CLOTHING: 7}
CONTINUED = 0.98
"""How much less a pixel that continues a smooth backdrop teaches about the person."""
CONTINUED_LOG_ODDS = 4.0
"""How much that speaks against the person: things rarely look just like the wall behind them."""
SURE_CLOTHING = (0.5, 0.8)
COLOUR_TRUST = 0.55
"""Power of the colour likelihoods: neighbouring pixels are far from independent."""
OUTLIER_LOG_DENSITY = -15.0
SMOOTHNESS = 2.2
VARIANCE_FLOOR = np.array([0.03, 0.03, 6.0, 5.0, 5.0, 0.06])
"""x and y in head units squared, L, a, b in CIELAB units squared, log texture squared."""
SHADE_BLIND = np.array([1, 1, 0.25, 1, 1, 0.25], np.float32)
"""Factors on the features under which lit and shaded skin look alike."""
GENTLY_SHADED = np.array([1, 1, 0.6, 1, 1, 1], np.float32)
"""Factors under which a backdrop may brighten or darken from one end to the other."""
PLACE = 2
"""The leading features, which say where a pixel is; the others say how it looks."""
DOUBT = (0.02, 0.05, 0.3, 1.0)
"""Least sample weight, per round, of background that looks unlike the usual backdrop."""
MINOR_BACKDROP = 0.08
"""Far from the head, looks rarer than this may be a scarf or long hair as well as backdrop."""
PRIOR_FADE = (1.0, 0.85, 0.75, 0.7)
"""Power of the geometry prior per round: looks take over as they become known."""


@dataclass(frozen=True)
class Regions:
    """Class weights on the working grid."""

    probabilities: NDArray[np.float32]
    """(s, s, 4), in the order of ``geometry_prior.LABELS``"""
    evidence: NDArray[np.float32]
    """(s, s), log odds of foreground against background from looks and geometry alone"""
    agreement: float
    """Intersection over union of the last two rounds' foregrounds"""
    prior: GeometryPrior

    @property
    def foreground(self) -> NDArray[np.float32]:
        return 1 - self.probabilities[..., BACKGROUND]


def segment(
    crop: NDArray[np.uint8],  # (S, S, 3)
    landmarks: NDArray,  # (68, 2) crop pixels
    inside: NDArray[np.bool_],  # (S, S), False where the crop shows nothing of the source
    *,
    working_side: int,
    seed: int,
    foreground: NDArray[np.uint8] | None = None,  # (S, S) a known matte
) -> Regions:
    """Class weights of the crop on a ``working_side`` grid."""
    scale = working_side / crop.shape[0]
    size = (working_side, working_side)
    small = cv2.resize(crop, size, interpolation=cv2.INTER_AREA)
    valid = cv2.resize(inside.astype(np.uint8), size, interpolation=cv2.INTER_AREA) > 0
    prior = geometry_prior(landmarks * scale, working_side)
    prior_log = np.log(prior.probabilities)
    if foreground is not None:
        known = cv2.resize(foreground, size, interpolation=cv2.INTER_AREA).astype(np.float32) / 255
        prior_log = _with_known_foreground(prior_log, known)
    features = _features(small, prior)
    edges = contour_weights(small)
    generator = np.random.default_rng(seed)

    belief = np.exp(prior_log)
    belief /= belief.sum(-1, keepdims=True)
    texture = features[:, -1].reshape(valid.shape)
    continued = continued_backdrop(small, texture, belief[..., BACKGROUND] ** 6 * valid)
    # Where geometry is sure of the person, an equal colour is chance.
    continued *= 1 - smoothstep(belief[..., CLOTHING], *SURE_CLOTHING)
    continued[prior.face] = 0
    prior_log[..., SKIN:] -= CONTINUED_LOG_ODDS * continued[..., None]
    samples, unlike_backdrop = _first_samples(features, continued, belief, valid, generator)
    previous = None
    agreement = 1.0
    scores = prior_log
    for round_index in range(len(PRIOR_FADE)):
        likelihoods = _log_likelihoods(features, samples, valid, generator)
        scores = PRIOR_FADE[round_index] * prior_log + COLOUR_TRUST * likelihoods
        costs = scores.max(-1, keepdims=True) - scores
        last = round_index == len(PRIOR_FADE) - 1
        belief = solve_potts(
            np.minimum(costs, 12.0),
            SMOOTHNESS * edges[0],
            SMOOTHNESS * edges[1],
            iterations=200 if last else 80,
            start=belief if round_index else None,
        )
        samples = belief.copy()
        samples[..., BACKGROUND] *= np.maximum(1 - unlike_backdrop, DOUBT[round_index])
        # Else a patch of backdrop, once taken for hair, teaches what hair looks like.
        samples[..., SKIN:] *= 1 - CONTINUED * continued[..., None]
        foreground_now = belief[..., BACKGROUND] < 0.5
        if previous is not None:
            union = (foreground_now | previous).sum()
            agreement = float((foreground_now & previous).sum() / max(union, 1))
        previous = foreground_now
    odds = _log_sum(scores[..., 1:]) - scores[..., BACKGROUND]
    return Regions(belief, odds.astype(np.float32), agreement, prior)


def label_map(regions: Regions, matte: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """(S, S) labels 0-3 at the matte's size; background exactly where the matte is below half."""
    size = matte.shape[::-1]
    weights = cv2.resize(regions.probabilities[..., 1:], size, interpolation=cv2.INTER_CUBIC)
    labels = (weights.argmax(-1) + 1).astype(np.uint8)
    labels[matte < 128] = BACKGROUND
    return labels


def contour_weights(image: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Smoothing weights of the edges to the right and downwards, in [0.04, 1].

    Contrast is measured against its local average, so that hair on a dark wall has contours too.
    """
    lab = _lab(cv2.GaussianBlur(image, (0, 0), 1.0))
    right = np.zeros(lab.shape[:2], np.float32)
    down = np.zeros(lab.shape[:2], np.float32)
    right[:, :-1] = ((lab[:, 1:] - lab[:, :-1]) ** 2).sum(-1)
    down[:-1] = ((lab[1:] - lab[:-1]) ** 2).sum(-1)
    spread = image.shape[0] / 12
    typical = cv2.GaussianBlur((right + down) / 2, (0, 0), spread)
    typical = 0.65 * typical + 0.35 * typical.mean() + 0.4
    return (
        np.maximum(np.exp(-right / (2.0 * typical)), 0.04),
        np.maximum(np.exp(-down / (2.0 * typical)), 0.04),
    )


def _lab(image: NDArray[np.uint8]) -> NDArray[np.float32]:
    return cv2.cvtColor(image.astype(np.float32) / 255, cv2.COLOR_RGB2LAB)


def _features(image: NDArray[np.uint8], prior: GeometryPrior) -> NDArray[np.float32]:
    """(s * s, 6): head x, head y, L, a, b, log texture."""
    lab = _lab(cv2.bilateralFilter(image, 5, 18.0, 2.0))
    stacked = np.concatenate([prior.head_xy, lab, local_texture(image)[..., None]], -1)
    return stacked.reshape(-1, stacked.shape[-1]).astype(np.float32)


def local_texture(image: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Logarithm (s, s) of the spread of CIELAB lightness around each pixel."""
    lightness = _lab(image)[..., 0]
    mean = cv2.blur(lightness, (5, 5))
    variance = np.maximum(cv2.blur(lightness**2, (5, 5)) - mean**2, 0)
    # The smallest spread nearby: a lone contour then leaves no textured halo beside it.
    return 0.5 * np.log(cv2.erode(variance, np.ones((7, 7), np.uint8)) + 0.5)


def _first_samples(
    features: NDArray,
    continued: NDArray,  # (s, s) 0-1, see backdrop.py
    belief: NDArray,
    valid: NDArray,
    generator: np.random.Generator,
) -> tuple[NDArray, NDArray]:
    """Sample weights (s, s, 4) of the first round, from where geometry is nearly sure.

    Around the head geometry is unsure: what there looks like the far background is no sample of
    the person. Also gives (s, s) in 0-1 how unlike that background each pixel looks.
    """
    samples = np.where(belief > 0.6 * belief[..., SKIN:].sum(-1, keepdims=True), belief, 0) ** 3
    samples[..., BACKGROUND] = belief[..., BACKGROUND] ** 6
    like_backdrop = _typicality(
        features * GENTLY_SHADED,
        samples[..., BACKGROUND] * valid,
        6,
        generator,
        minor=MINOR_BACKDROP,
    )
    like_backdrop = np.maximum(like_backdrop, continued)
    face = belief[..., SKIN] > 0.97
    like_skin = _typicality(features * SHADE_BLIND, face * valid, 3, generator)
    unlike = (1 - 0.995 * like_backdrop) ** 2
    samples[..., SKIN] *= np.where(face, 1, unlike)
    for label in (HAIR, CLOTHING):
        samples[..., label] *= unlike * (1 - 0.97 * like_skin)
    samples[..., BACKGROUND] *= np.maximum(like_backdrop, 0.01)
    return samples, 1 - like_backdrop


def _typicality(
    features: NDArray,
    weights: NDArray,
    components: int,
    generator: np.random.Generator,
    minor: float = 0.0,
) -> NDArray:
    """(s, s) in 0-1: how far each pixel's looks are among those of the weighted samples.

    Mixture components below the share ``minor`` do not count.
    """
    flat = weights.reshape(-1).astype(np.float64)
    if (flat > 0.5 * flat.max()).sum() < 30:
        return np.zeros(weights.shape)
    looks = features[:, PLACE:]
    mixture = _fit_label(looks, flat, components, generator).without_minor(minor)
    log_density = mixture.log_density(looks)
    usual = np.quantile(log_density[flat > 0.5 * flat.max()], 0.02 + minor)
    return np.clip((log_density - usual) / 8.0 + 1.0, 0, 1).reshape(weights.shape)


def _fit_label(
    features: NDArray,
    weights: NDArray,
    components: int,
    generator: np.random.Generator,
) -> GaussianMixture:
    return fit_mixture(
        features,
        weights,
        components=components,
        variance_floor=VARIANCE_FLOOR[-features.shape[1] :],
        generator=generator,
    )


def _log_likelihoods(
    features: NDArray, belief: NDArray, valid: NDArray, generator: np.random.Generator
) -> NDArray[np.float32]:
    """(s, s, 4) log densities of every pixel's looks, given its place, under each label's model.

    The models are learnt from ``belief``. A backdrop goes on behind the head where none of it
    could be sampled: half of its density forgets places.
    """
    side = len(valid)
    logs = []
    for label, components in COMPONENTS.items():
        weights = (belief[..., label] * valid).reshape(-1).astype(np.float64)
        if weights.sum() < 30:
            weights = weights + 1e-6
        mixture = _fit_label(features, weights, components, generator)
        log_density = mixture.log_density(features, given=PLACE)
        if label == BACKGROUND:
            looks = features[:, PLACE:]
            anywhere = _fit_label(looks, weights, components, generator)
            log_density = np.logaddexp(log_density, anywhere.log_density(looks)) - np.log(2.0)
        logs.append(log_density)
    return np.logaddexp(np.stack(logs, -1), OUTLIER_LOG_DENSITY).reshape(side, side, -1)


def _with_known_foreground(prior_log: NDArray, known: NDArray) -> NDArray:
    """Pin the background's share to a matte that came with the file."""
    parts = prior_log[..., 1:] - _log_sum(prior_log[..., 1:])[..., None]
    odds = np.clip(known, 1e-6, 1 - 1e-6)
    return np.concatenate(
        [4 * np.log(1 - odds)[..., None], 4 * np.log(odds)[..., None] + parts], -1
    )


def _log_sum(values: NDArray) -> NDArray:
    top = values.max(-1, keepdims=True)
    return (top + np.log(np.exp(values - top).sum(-1, keepdims=True)))[..., 0]


__all__ = ["CLOTHING", "HAIR", "SKIN", "Regions", "contour_weights", "label_map", "segment"]
