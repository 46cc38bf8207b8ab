"""What lies below the chin and is no hair; what glints in the hair and is no skin."""

from __future__ import annotations

import numpy as np

from fc4d_ray.portraits.geometry_prior import BACKGROUND, CLOTHING, HAIR, SKIN
from fc4d_ray.portraits.stray_hair import without_stray_hair

SIDE = 240
_ROWS, _COLUMNS = np.mgrid[:SIDE, :SIDE]
FACE = np.hypot((_ROWS - 120) / 1.3, _COLUMNS - 120) < 45
HEAD = np.hypot((_ROWS - 105) / 1.2, _COLUMNS - 120) < 75
LANDMARKS = np.full((68, 2), 120.0)
LANDMARKS[8] = (120, 178)


def _scene() -> tuple[np.ndarray, np.ndarray]:
    labels = np.where(FACE, SKIN, np.where(HEAD & (_ROWS < 150), HAIR, BACKGROUND))
    image = np.full((SIDE, SIDE, 3), 235, np.uint8)
    image[labels == HAIR] = (70, 45, 30)
    image[labels == SKIN] = (215, 170, 145)
    return labels.astype(np.uint8), image


def test_a_glint_in_the_hair_is_hair_and_the_face_stays_skin() -> None:
    labels, image = _scene()
    labels[45:53, 110:120] = SKIN
    image[45:53, 110:120] = (190, 170, 150)
    result = without_stray_hair(labels, image, LANDMARKS)
    assert (result[45:53, 110:120] == HAIR).all()
    assert (result[FACE] == SKIN).all()


def test_an_ear_at_the_edge_of_the_hair_stays_skin() -> None:
    labels, image = _scene()
    ear = np.s_[112:128, 190:200]
    labels[:, 196:] = BACKGROUND
    labels[ear] = np.where(labels[ear] == BACKGROUND, BACKGROUND, SKIN)
    wide = np.s_[105:140, 165:196]
    labels[wide] = SKIN
    result = without_stray_hair(labels, image, LANDMARKS)
    np.testing.assert_array_equal(result == SKIN, labels == SKIN)


def test_a_collar_of_another_colour_is_clothing() -> None:
    labels, image = _scene()
    labels[190:230, 60:180] = HAIR
    image[190:230, 60:180] = (40, 60, 160)
    result = without_stray_hair(labels, image, LANDMARKS)
    assert (result[190:230, 60:180] == CLOTHING).all()
    assert (result[40:100][labels[40:100] == HAIR] == HAIR).all()


def test_hair_that_nothing_joins_to_the_head_is_clothing() -> None:
    labels, image = _scene()
    collar = np.s_[200:225, 60:110]
    labels[collar], image[collar] = HAIR, (70, 45, 30)
    labels[225:228, 60:110], labels[228:, 60:110] = SKIN, CLOTHING
    lock = np.s_[140:225, 185:195]
    labels[lock], image[lock] = HAIR, (70, 45, 30)
    labels[120:150, 180:195], image[120:150, 180:195] = HAIR, (70, 45, 30)
    beard = np.s_[185:215, 112:130]
    labels[beard], image[beard] = HAIR, (70, 45, 30)
    result = without_stray_hair(labels, image, LANDMARKS)
    assert (result[collar] == CLOTHING).all()
    assert (result[225:228, 60:110] == CLOTHING).all(), "the collar's lower half"
    assert (result[beard] == HAIR).all()
    assert (result[lock] == HAIR).all(), "long hair hangs from the head"


def test_specks_of_hair_on_bare_shoulders_clothe_nobody() -> None:
    """A collar has a size; below a speck the shoulder stays skin down to the neckline."""
    labels, image = _scene()
    labels[195:215, 20:80], labels[215:, 20:80] = SKIN, CLOTHING
    speck = np.s_[196:200, 30:38]
    labels[speck], image[speck] = HAIR, (70, 45, 30)
    result = without_stray_hair(labels, image, LANDMARKS)
    assert (result[speck] == CLOTHING).all()
    assert (result[201:215, 20:80] == SKIN).all()
