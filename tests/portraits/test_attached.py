"""A scarf that hangs where geometry expects nothing, before a smooth wall and before others."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from fc4d_ray.evaluation.synthetic import make_person
from fc4d_ray.portraits.attached import with_attached_parts
from fc4d_ray.portraits.geometry_prior import BACKGROUND, CLOTHING, HAIR
from fc4d_ray.portraits.regions import Regions, segment

SIZE, SIDE = 384, 192
SCARF = (205, 40, 160)


@pytest.fixture(scope="module")
def shot():
    person = make_person(1)
    return person.portrait(person.portrait_camera(0, SIZE, 22))


def _regions(person: np.ndarray) -> Regions:
    """As if segmented: hair above the chin, clothing below it, and nothing of the scarf."""
    label = np.where(np.arange(SIDE)[:, None] < 0.6 * SIDE, HAIR, CLOTHING)
    label = np.where(person, label, BACKGROUND)
    return Regions(np.eye(4, dtype=np.float32)[label], np.zeros((SIDE, SIDE)), 1.0, None)


def _picture(shot, wall: np.ndarray, *strokes: tuple) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Picture, and on the working grid the person without and the strokes of the scarf."""
    alpha = shot.matte[..., None] / 255.0
    scarf = np.zeros((SIZE, SIZE), np.uint8)
    for start, end in strokes:
        cv2.line(scarf, start, end, 255, 22)
    image = shot.image * alpha + wall * (1 - alpha)
    image = np.where((scarf > 0)[..., None] & (alpha < 0.5), SCARF, image).astype(np.uint8)
    small = [cv2.resize(m, (SIDE, SIDE), interpolation=cv2.INTER_AREA) > 127
             for m in (shot.matte, scarf)]  # fmt: skip
    return image, small[0], small[1] & ~small[0]


@pytest.fixture(scope="module")
def smooth() -> np.ndarray:
    x = np.linspace(90, 130, SIZE)[None, :, None]
    return np.broadcast_to(x, (SIZE, SIZE, 3))


def _edge(shot) -> int:
    """Where the hair ends at the level of the brows."""
    row = int(shot.landmarks[17:27, 1].mean())
    return int(np.flatnonzero(shot.matte[row] > 127).max())


def test_what_hangs_on_the_head_is_the_persons(shot, smooth) -> None:
    x, y = _edge(shot), int(shot.landmarks[17:27, 1].mean())
    image, person, scarf = _picture(shot, smooth, ((x - 8, y), (x + 50, y + 110)))
    inside = np.ones((SIZE, SIZE), bool)
    joined = with_attached_parts(_regions(person), image, inside).probabilities.argmax(-1)
    core = cv2.erode(scarf.astype(np.uint8), np.ones((3, 3))) > 0
    assert core.sum() > 300
    assert (joined[core] != BACKGROUND).mean() > 0.95
    away = ~cv2.dilate((scarf | person).astype(np.uint8), np.ones((9, 9))).astype(bool)
    assert (joined[away] == BACKGROUND).all()
    assert (joined[person] == _regions(person).probabilities.argmax(-1)[person]).all()


def test_what_reaches_the_border_or_floats_is_the_rooms(shot, smooth) -> None:
    x, y = _edge(shot), int(shot.landmarks[17:27, 1].mean())
    shelf = ((x - 8, y), (SIZE, y))
    balloon = ((x + 60, y - 60), (x + 62, y - 58))
    for stroke in (shelf, balloon):
        image, person, _ = _picture(shot, smooth, stroke)
        regions = _regions(person)
        joined = with_attached_parts(regions, image, np.ones((SIZE, SIZE), bool))
        np.testing.assert_array_equal(joined.probabilities, regions.probabilities)


def test_before_a_room_nothing_is_concluded(shot) -> None:
    noise = np.random.default_rng(0).uniform(0, 255, (24, 24, 3)).astype(np.float32)
    room = cv2.resize(noise, (SIZE, SIZE), interpolation=cv2.INTER_CUBIC).clip(0, 255)
    x, y = _edge(shot), int(shot.landmarks[17:27, 1].mean())
    image, person, _ = _picture(shot, room, ((x - 8, y), (x + 50, y + 110)))
    regions = _regions(person)
    assert with_attached_parts(regions, image, np.ones((SIZE, SIZE), bool)) is regions


def test_a_whole_person_gains_nothing(shot) -> None:
    """On real segmentations of synthetic people, whose backdrops are smooth, nothing changes."""
    inside = np.ones((SIZE, SIZE), bool)
    regions = segment(shot.image, shot.landmarks, inside, working_side=SIDE, seed=0)
    joined = with_attached_parts(regions, shot.image, inside)
    changed = joined.probabilities.argmax(-1) != regions.probabilities.argmax(-1)
    assert changed.mean() < 0.002
