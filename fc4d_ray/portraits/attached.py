"""On a smooth backdrop, what hangs on the person and does not look like the wall is the person's.

Geometry expects nothing far from the head, and a scarf's end or a long plait there teaches the
background its colours before anything else can. Where the backdrop is smooth it can be continued to
every place (``backdrop.py``), and what differs from it clearly, touches the person and reaches no
border of the picture is no part of a room.
"""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial import cKDTree

from fc4d_ray.portraits.backdrop import backdrop_deviation
from fc4d_ray.portraits.geometry_prior import BACKGROUND, CLOTHING, HAIR
from fc4d_ray.portraits.regions import Regions, local_texture

_LEAST_SMOOTHNESS = 0.8
_SURELY_OTHER = 30.0
"""Sum of the squared deviations, in the backdrop's own spreads, from which on a pixel is not it."""
_BACKDROP = 0.6
"""Share of background from which on a pixel may teach what the backdrop looks like."""
_LEAST_SHARE, _LEAST_CONTACT_PX = 0.001, 4
"""Of the crop, and pixels along which it touches the person: smaller things are specks."""
_LOOK_LAB, _PLACE_COUNTS = 10.0, 0.1
"""CIELAB units that count as much as this share of the crop's side in telling what is alike."""
_NEIGHBOURS, _EVENED = 8, 0.02


def with_attached_parts(
    regions: Regions,
    image: NDArray[np.uint8],  # (S, S, 3)
    inside: NDArray[np.bool_],  # (S, S), False where the crop shows nothing of the source
) -> Regions:
    """``regions`` with such parts labelled hair or clothing, whichever near them looks alike."""
    side = len(regions.probabilities)
    small = cv2.resize(image, (side, side), interpolation=cv2.INTER_AREA)
    valid = cv2.resize(inside.astype(np.uint8), (side, side), interpolation=cv2.INTER_AREA) > 0
    valid = ndimage.binary_erosion(valid, iterations=2, border_value=1)
    background = regions.probabilities[..., BACKGROUND]
    person = background < 0.5
    weights = np.where(background > _BACKDROP, background, 0) * valid
    weights *= ~ndimage.binary_dilation(person, iterations=max(2, side // 50))
    squares, smoothness = backdrop_deviation(small, local_texture(small), weights)
    if smoothness < _LEAST_SMOOTHNESS:
        return regions
    other = (squares > _SURELY_OTHER) & valid & ~person
    other = ndimage.binary_opening(other, np.ones((3, 3)))
    parts, count = ndimage.label(other)
    if not count:
        return regions
    numbers = np.arange(1, count + 1)
    large = ndimage.sum_labels(other, parts, numbers) > _LEAST_SHARE * other.size
    rim = ndimage.binary_dilation(person, np.ones((3, 3)), iterations=2) & ~person
    touches = ndimage.sum_labels(rim, parts, numbers) >= _LEAST_CONTACT_PX
    # Below, the crop cuts the body; at the sides and on top it cuts the room.
    edge = ~valid
    edge[:, [0, -1]] = edge[0] = True
    edge = ndimage.binary_dilation(edge, iterations=2)
    free = ndimage.sum_labels(edge, parts, numbers) == 0
    chosen = np.isin(parts, numbers[large & touches & free])
    return replace(regions, probabilities=_joined(regions.probabilities, small, chosen))


def _joined(
    probabilities: NDArray[np.float32], image: NDArray[np.uint8], chosen: NDArray[np.bool_]
) -> NDArray[np.float32]:
    """Weights (s, s, 4) with the chosen pixels hair or clothing, whichever near looks like them."""
    if not chosen.any():
        return probabilities
    label = probabilities.argmax(-1)
    rows, columns = np.nonzero(chosen)
    lab = cv2.cvtColor(image.astype(np.float32) / 255, cv2.COLOR_RGB2LAB)
    far = len(image) * _PLACE_COUNTS
    looks = np.concatenate([lab / _LOOK_LAB, np.indices(label.shape).transpose(1, 2, 0) / far], -1)
    distances = []
    for kind in (HAIR, CLOTHING):
        known = (label == kind) & ~chosen
        if known.sum() < _NEIGHBOURS:
            distances.append(np.full(len(rows), np.inf))
            continue
        nearest, _ = cKDTree(looks[known]).query(looks[rows, columns], _NEIGHBOURS)
        distances.append(nearest.mean(1))
    if np.isinf(distances).all():
        return probabilities
    is_cloth = np.zeros(label.shape, np.float32)
    is_cloth[rows, columns] = distances[1] < distances[0]
    # One thing is one kind: most of the neighbourhood decides.
    sigma = len(image) * _EVENED
    share = cv2.GaussianBlur(is_cloth, (0, 0), sigma) / np.maximum(
        cv2.GaussianBlur(chosen.astype(np.float32), (0, 0), sigma), 1e-6
    )
    joined = probabilities.copy()
    joined[chosen] = 0
    joined[chosen, np.where(share[chosen] > 0.5, CLOTHING, HAIR)] = 1
    return joined
