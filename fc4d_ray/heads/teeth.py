"""Two rows of teeth, and the mouth behind them, for head models that have none.

Each row is an arch behind the lips: a front wall, a chewing edge and a short back wall, sampled
densely enough that single teeth can be painted on it. Upper teeth are fixed to the skull, lower
ones to the jaw. A dark bag encloses both: without it an open mouth shows the inside of the cheeks.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fc4d_ray.images import smoothstep

COLUMNS = 33
"""Points along an arch, odd so that one lies on the mid-line."""

TEETH_PER_ROW = 14
_AROUND = 24  # points on a ring of the mouth bag
_ROUNDNESS = 2.8
"""Exponent of the arch: canines stand a centimetre behind the incisors, molars three."""
_ROWS = 6  # root … edge on the front wall, then edge … root on the back wall


@dataclass(frozen=True)
class TeethRows:
    """Both rows in the head frame."""

    vertices: NDArray[np.float32]  # [V, 3] metres
    faces: NDArray[np.int32]  # [F, 3]
    is_lower: NDArray[np.bool_]  # [V]
    mirror: NDArray[np.int32]  # [V] partner on the other side


def make_teeth(landmarks: NDArray[np.floating]) -> TeethRows:
    """Rows that fit the mouth of a neutral face with these landmarks (68, 3), metres."""
    left, right = landmarks[54], landmarks[48]
    width = np.linalg.norm(left - right)
    centre = 0.5 * (landmarks[62] + landmarks[66])
    # Anatomy: the arch is as wide as the mouth at rest, for a smile bares molars, and lies behind
    # the lips. The upper incisors' edges hang a little below the line where the lips meet; the
    # lower lip of an open mouth covers most of the lower ones.
    upper = _row(centre + np.array([0, -0.0035, -0.0105]), width * 0.50, height=0.0105, sign=1.0)
    lower = _row(centre + np.array([0, -0.0065, -0.013]), width * 0.47, height=0.0095, sign=-1.0)
    faces = _strip_faces()
    count = len(upper)
    mirror = np.arange(count).reshape(_ROWS, COLUMNS)[:, ::-1].ravel()
    return TeethRows(
        vertices=np.concatenate([upper, lower]).astype(np.float32),
        faces=np.concatenate([faces, faces[:, ::-1] + count]).astype(np.int32),
        is_lower=np.arange(2 * count) >= count,
        mirror=np.concatenate([mirror, mirror + count]).astype(np.int32),
    )


@dataclass(frozen=True)
class MouthBag:
    """The cavity behind the lips, open in front, in the head frame; faces look inwards."""

    vertices: NDArray[np.float32]  # [V, 3] metres
    faces: NDArray[np.int32]  # [F, 3]
    jaw_share: NDArray[np.float32]  # [V] 0 fixed to the skull … 1 fixed to the jaw
    mirror: NDArray[np.int32]  # [V] partner on the other side


def make_mouth_bag(landmarks: NDArray[np.floating]) -> MouthBag:
    """A bag round both rows of teeth; it opens with the jaw and hides the inside of the cheeks."""
    width = np.linalg.norm(landmarks[54] - landmarks[48])
    centre = 0.5 * (landmarks[62] + landmarks[66])
    angle = 2 * np.pi * np.arange(_AROUND) / _AROUND
    # It begins behind the incisors, which it must not hide.
    # Per ring: half width in mouth widths, half height, depth, how far the corners lie behind.
    rings = (
        (0.54, 0.0125, 0.0130, 0.008),
        (0.58, 0.0135, 0.0200, 0.007),
        (0.57, 0.0140, 0.0310, 0.007),
        (0.38, 0.0100, 0.0430, 0.003),
        (0.02, 0.0010, 0.0490, 0.0),
    )
    points = [
        centre
        + np.stack(
            [
                half * width * np.cos(angle),
                height * np.sin(angle),
                -depth - corner * np.cos(angle) ** 2,
            ],
            1,
        )
        for half, height, depth, corner in rings
    ]
    share = np.tile(smoothstep(-np.sin(angle), -0.25, 0.25), len(rings))
    ring = np.arange(len(rings) * _AROUND).reshape(len(rings), _AROUND)
    a, b = ring[:-1], np.roll(ring, -1, 1)[:-1]
    c, d = ring[1:], np.roll(ring, -1, 1)[1:]
    faces = np.stack([a, d, c, a, b, d], -1).reshape(-1, 3)
    partner = ring[:, (_AROUND // 2 - np.arange(_AROUND)) % _AROUND]
    return MouthBag(
        np.concatenate(points).astype(np.float32),
        faces.astype(np.int32),
        share.astype(np.float32),
        partner.ravel().astype(np.int32),
    )


def tooth_row_shade() -> NDArray[np.float32]:
    """Albedo factor (V,) in 0…1 of both rows: bright crowns, darker gaps, gums and far ends."""
    column = np.tile(np.linspace(-1, 1, COLUMNS), _ROWS)
    gap = np.abs(np.sin(np.pi * TEETH_PER_ROW / 2 * np.arcsin(column * 0.98) / (np.pi / 2)))
    row = np.repeat(np.array([0.75, 0.95, 1.0, 0.8, 0.5, 0.4]), COLUMNS)
    one = (
        row
        * (0.80 + 0.20 * gap.clip(0, 0.35) / 0.35)
        * (1.0 - 0.75 * smoothstep(np.abs(column), 0.45, 0.95))
    )
    return np.concatenate([one, one * 0.92]).astype(np.float32)


def _row(edge_centre: NDArray, half_width: float, height: float, sign: float) -> NDArray:
    """One arch (rows * columns, 3); ``sign`` +1 for the upper row, whose roots point up."""
    t = np.linspace(-1, 1, COLUMNS)
    arch = np.stack(
        [half_width * t, np.zeros(COLUMNS), -1.1 * half_width * np.abs(t) ** _ROUNDNESS], 1
    )
    lift = np.array([1.0, 0.5, 0.0, 0.0, 0.5, 1.0]) * height * sign
    inward = np.array([0.0012, 0.0002, 0.0, 0.0035, 0.005, 0.006])
    rows = [
        edge_centre + arch * np.array([1 - d * 8, 1, 1]) + np.array([0, h, -d])
        for h, d in zip(lift, inward, strict=True)
    ]
    return np.concatenate(rows)


def _strip_faces() -> NDArray[np.int32]:
    grid = np.arange(_ROWS * COLUMNS).reshape(_ROWS, COLUMNS)
    a, b, c, d = grid[:-1, :-1], grid[:-1, 1:], grid[1:, :-1], grid[1:, 1:]
    quads = np.stack([a, c, d, a, d, b], -1).reshape(-1, 3)
    return quads
