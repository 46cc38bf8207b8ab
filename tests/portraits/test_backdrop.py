"""Graded walls go on behind the head; rooms, shadows and the person do not count as wall."""

from __future__ import annotations

import cv2
import numpy as np

from fc4d_ray.portraits.backdrop import continued_backdrop

SIDE = 96
_ROWS, _COLUMNS = np.mgrid[:SIDE, :SIDE]
PERSON = np.hypot(_ROWS - 52, 1.3 * (_COLUMNS - 48)) < 26
FAR = (np.hypot(_ROWS - 52, 1.1 * (_COLUMNS - 48)) > 38).astype(float)
TEXTURE = np.full((SIDE, SIDE), -0.5)


def _wall(lightness: float = 1.0) -> np.ndarray:
    across, down = (axis[..., None] / SIDE for axis in (_COLUMNS, _ROWS))
    upper = (1 - across) * [200, 180, 90] + across * [90, 120, 200]
    lower = (1 - across) * [60, 140, 70] + across * [210, 90, 120]
    wall = ((1 - down) * upper + down * lower) * lightness
    return wall.clip(0, 255).astype(np.uint8)


def test_a_graded_wall_goes_on_beside_the_head_and_the_head_stands_out() -> None:
    image = _wall()
    image[PERSON] = (70, 45, 30)
    alike = continued_backdrop(image, TEXTURE, FAR)
    beside = ~PERSON & (FAR == 0)
    assert beside.sum() > 300 and (alike[beside] > 0.8).mean() > 0.95
    assert alike[PERSON].max() < 0.1


def test_a_person_of_the_walls_colour_but_rough_is_no_wall() -> None:
    texture = np.where(PERSON, 1.0, -0.5)
    assert continued_backdrop(_wall(), texture, FAR)[PERSON].max() < 0.05


def test_a_room_and_a_shadow_say_nothing() -> None:
    room = np.random.default_rng(0).integers(0, 255, (6, 6, 3)).astype(np.uint8)
    room = cv2.resize(room, (SIDE, SIDE), interpolation=cv2.INTER_NEAREST)
    assert continued_backdrop(room, TEXTURE, FAR).max() == 0
    assert continued_backdrop(_wall(0.05), TEXTURE, FAR).max() == 0
    assert continued_backdrop(_wall(), TEXTURE, np.zeros((SIDE, SIDE))).max() == 0
