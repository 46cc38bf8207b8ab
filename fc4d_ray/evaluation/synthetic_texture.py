"""Procedural skin, hair and clothing for synthetic people, evaluated at surface points.

Everything is a function of canonical coordinates (where a point lies on the mean head, metres), so
a texture has detail at any resolution, sticks to moving skin and looks the same from every view.
Colours are linear reflectances in 0…1.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise, product

import numpy as np
from numpy.typing import NDArray

from fc4d_ray.heads.rig import Region
from fc4d_ray.images import smoothstep

_SKIN_LIGHT = np.array([0.80, 0.52, 0.40])
_SKIN_DARK = np.array([0.16, 0.075, 0.045])
_HAIR_TONES = np.array([[0.02, 0.015, 0.012], [0.10, 0.05, 0.025], [0.45, 0.29, 0.13]])
_IRIS_TONES = np.array([[0.09, 0.04, 0.02], [0.10, 0.22, 0.35], [0.10, 0.22, 0.10]])
_PRIMES = np.array([0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9], np.uint64)
_BROW = range(17, 27)
_OUTER_LIP = range(48, 60)
_INNER_LIP = range(60, 68)


@dataclass(frozen=True)
class FaceMarks:
    """Where features lie on the mean head, metres."""

    landmarks: NDArray[np.float64]  # [68, 3]
    eye_centres: NDArray[np.float64]  # [2, 3] right, left
    eye_front_z: float


@dataclass(frozen=True)
class Texture:
    """The looks of one synthetic person."""

    skin: NDArray[np.float64]  # [3]
    hair: NDArray[np.float64]
    iris: NDArray[np.float64]
    lips: NDArray[np.float64]
    cloth: NDArray[np.float64]  # [2, 3] the two colours of the weave
    freckles: float
    """Share of freckled cells on nose and cheeks, 0…1."""
    brow_strength: float
    cloth_stripe_m: float
    noise_seed: int
    marks: FaceMarks

    @staticmethod
    def random(marks: FaceMarks, generator: np.random.Generator) -> Texture:
        """Draw a person's looks."""
        melanin = generator.uniform(0, 1) ** 1.5
        skin = _SKIN_LIGHT ** (1 - melanin) * _SKIN_DARK**melanin
        skin = (skin * generator.uniform(0.93, 1.07, 3)).clip(0.02, 0.9)
        hair = _HAIR_TONES[generator.integers(3)] * generator.uniform(0.8, 1.25)
        return Texture(
            skin=skin,
            hair=hair.clip(0, 0.8),
            iris=_IRIS_TONES[generator.integers(3)] * generator.uniform(0.8, 1.2),
            lips=(skin * [0.85, 0.45, 0.45]).clip(0.02, 0.9),
            cloth=generator.uniform(0.04, 0.7, (2, 3)),
            freckles=float(generator.choice([0.0, 0.1, 0.3]) * (melanin < 0.5)),
            brow_strength=float(generator.uniform(0.6, 0.95)),
            cloth_stripe_m=float(generator.uniform(0.012, 0.03)),
            noise_seed=int(generator.integers(2**31)),
            marks=marks,
        )

    def albedo(
        self,
        points: NDArray[np.floating],  # [N, 3] canonical, metres
        region: NDArray[np.integer],  # [N] heads.rig.Region
        hair: NDArray[np.bool_],  # [N]
        cloth: NDArray[np.bool_],  # [N]
    ) -> NDArray[np.float64]:
        """Reflectance (N, 3)."""
        result = np.zeros((len(points), 3))
        bare = ~hair & ~cloth
        result[bare] = self._skin(points[bare])
        plain = {
            Region.TEETH: np.array([0.78, 0.74, 0.64]),
            Region.TONGUE: np.array([0.35, 0.10, 0.09]),
            Region.MOUTH: np.array([0.16, 0.03, 0.03]),
        }
        for kind, colour in plain.items():
            result[region == kind] = colour
        eye = region == Region.EYE
        result[eye] = self._eye(points[eye])
        result[hair] = self._hair(points[hair])
        result[cloth] = self._cloth(points[cloth])
        return result.clip(0.003, 0.95)

    def _skin(self, points: NDArray) -> NDArray[np.float64]:
        seed = self.noise_seed
        mottle = 0.10 * value_noise(points / 0.02, seed) + 0.06 * value_noise(points / 0.006, seed)
        pores = 0.05 * value_noise(points / 0.0022, seed + 1)
        colour = self.skin * (1 + mottle + pores)[:, None]
        colour = colour * (1 - 0.35 * self._redness(points)[:, None] * np.array([0.0, 1.0, 0.9]))
        colour = self._freckled(colour, points)
        lips = self._on_lips(points)
        shade = 1 + 0.15 * value_noise(points / np.array([0.0012, 0.006, 0.006]), seed + 2)
        colour = np.where(lips[:, None], self.lips * shade[:, None], colour)
        brow = self._brow(points)[:, None] * self.brow_strength
        return colour * (1 - brow) + 0.8 * self.hair * brow

    def _redness(self, points: NDArray) -> NDArray[np.float64]:
        marks = self.marks.landmarks
        spots = np.stack([marks[30], *(0.5 * (marks[[2, 14]] + marks[[31, 35]]))])
        distance = np.sqrt(((points[:, None] - spots) ** 2).sum(-1)).min(1)
        return np.exp(-np.square(distance / 0.018))

    def _freckled(self, colour: NDArray, points: NDArray) -> NDArray[np.float64]:
        if self.freckles == 0:
            return colour
        cell = 0.004
        index = np.floor(points / cell).astype(np.int64)
        centre = np.stack([_hash(index, self.noise_seed + k) for k in (11, 12, 13)], -1)
        distance = np.linalg.norm(points / cell - index - 0.25 - 0.5 * centre, axis=-1)
        chosen = _hash(index, self.noise_seed + 14) < self.freckles
        nose = self.marks.landmarks[29]
        chosen &= (np.abs(points - nose) < [0.05, 0.03, 0.06]).all(1)
        spot = chosen * (1 - smoothstep(distance, 0.2, 0.35))
        return colour * (1 - 0.5 * spot[:, None] * np.array([0.7, 0.9, 1.0]))

    def _on_lips(self, points: NDArray) -> NDArray[np.bool_]:
        outline = self.marks.landmarks[list(_OUTER_LIP), :2]
        inside = _in_polygon(points[:, :2], outline)
        return inside & (points[:, 2] > 0.05)

    def _brow(self, points: NDArray) -> NDArray[np.float64]:
        """Opacity 0…1 of the eyebrows, with their hairs."""
        arcs = self.marks.landmarks[list(_BROW), :2].reshape(2, 5, 2)
        distance = np.minimum(*(_polyline_distance(points[:, :2], arc) for arc in arcs))
        body = 1 - smoothstep(distance, 0.0018, 0.0042)
        hairs = value_noise(points * [1 / 0.0008, 1 / 0.004, 0.0], self.noise_seed + 3)
        return body * (points[:, 2] > 0.02) * (0.8 + 0.2 * hairs).clip(0, 1)

    def _eye(self, points: NDArray) -> NDArray[np.float64]:
        marks = self.marks
        centres = np.where(points[:, :1] > 0, marks.eye_centres[1], marks.eye_centres[0])
        radius = np.linalg.norm((points - centres)[:, :2], axis=1)
        is_front = points[:, 2] > centres[:, 2]
        fibres = 0.25 * value_noise(points / 0.0006, self.noise_seed + 4)
        colour = np.tile([0.80, 0.77, 0.74], (len(points), 1))
        iris = is_front & (radius < 0.0059)
        colour[iris] = (self.iris * (1 + fibres)[:, None])[iris]
        colour[iris & (radius > 0.0052)] *= 0.4
        colour[is_front & (radius < 0.0022)] = 0.005
        return colour

    def _hair(self, points: NDArray) -> NDArray[np.float64]:
        azimuth = np.arctan2(points[:, 0], points[:, 2] + 0.02)
        strands = np.stack([azimuth / 0.02, points[:, 1] / 0.03, np.zeros(len(points))], -1)
        fine = np.stack([azimuth / 0.007, points[:, 1] / 0.02, np.zeros(len(points))], -1)
        seed = self.noise_seed + 5
        factor = 1 + 0.30 * value_noise(strands, seed) + 0.25 * value_noise(fine, seed + 1)
        return self.hair * factor[:, None]

    def _cloth(self, points: NDArray) -> NDArray[np.float64]:
        phase = points[:, 1] / self.cloth_stripe_m + 0.4 * np.sin(points[:, 0] / 0.05)
        stripe = smoothstep(np.sin(2 * np.pi * phase), -0.2, 0.2)[:, None]
        weave = 1 + 0.1 * value_noise(points / 0.0035, self.noise_seed + 7)
        return (self.cloth[0] * stripe + self.cloth[1] * (1 - stripe)) * weave[:, None]


def value_noise(points: NDArray[np.floating], seed: int) -> NDArray[np.float64]:
    """Smooth noise (N,) in -1…1 with features of size 1, the same for equal points and seeds."""
    corner = np.floor(points)
    fraction = points - corner
    t = fraction * fraction * (3 - 2 * fraction)
    near = corner.astype(np.int64).astype(np.uint64) * _PRIMES
    far = near + _PRIMES
    keys, weights = (near.T, far.T), ((1 - t).T, t.T)
    total = np.zeros(len(points))
    for x, y, z in product((0, 1), repeat=3):
        value = _mix(keys[x][0] + keys[y][1] + keys[z][2], seed)
        total += weights[x][0] * weights[y][1] * weights[z][2] * value
    return 2 * total - 1


def _hash(index: NDArray[np.int64], seed: int) -> NDArray[np.float64]:
    """Uniform 0…1 per integer lattice point (..., 3)."""
    return _mix((index.astype(np.uint64) * _PRIMES).sum(-1), seed)


def _mix(key: NDArray[np.uint64], seed: int) -> NDArray[np.float64]:
    """Uniform 0…1 per key: multiply and shift, as in splitmix64."""
    h = key + np.uint64(seed * 0x2545F491 % 2**64)
    h = (h ^ (h >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    h = (h ^ (h >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    h = h ^ (h >> np.uint64(31))
    return (h >> np.uint64(11)).astype(np.float64) / float(1 << 53)


def _in_polygon(points: NDArray, outline: NDArray) -> NDArray[np.bool_]:
    """Whether points (N, 2) lie in the closed outline (M, 2), by the even-odd rule."""
    inside = np.zeros(len(points), bool)
    x, y = points[:, 0], points[:, 1]
    for (ax, ay), (bx, by) in zip(outline, np.roll(outline, -1, 0), strict=True):
        if ay == by:
            continue
        crossing = ax + (y - ay) / (by - ay) * (bx - ax)
        inside ^= ((ay > y) != (by > y)) & (x < crossing)
    return inside


def _polyline_distance(points: NDArray, line: NDArray) -> NDArray[np.float64]:
    distance = np.full(len(points), np.inf)
    for a, b in pairwise(line):
        along = ((points - a) @ (b - a) / ((b - a) @ (b - a))).clip(0, 1)
        distance = np.minimum(
            distance, np.linalg.norm(points - a - along[:, None] * (b - a), axis=1)
        )
    return distance
