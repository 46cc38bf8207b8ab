"""A scalp that looks like the face is skin; hair of another colour or texture stays hair."""

from __future__ import annotations

import numpy as np
import pytest

from fc4d_ray.portraits.bare_scalp import without_imagined_hair
from fc4d_ray.portraits.geometry_prior import BACKGROUND, HAIR, SKIN

SIDE = 200
_ROWS, _COLUMNS = np.mgrid[:SIDE, :SIDE]
HEAD = np.hypot((_ROWS - 100) / 1.3, _COLUMNS - 100) < 60
TOP = HEAD & (_ROWS < 80)
LABELS = np.where(TOP, HAIR, np.where(HEAD, SKIN, BACKGROUND)).astype(np.uint8)


def _picture(top: tuple[int, int, int], noise: float = 0.0) -> np.ndarray:
    image = np.full((SIDE, SIDE, 3), 240.0)
    image[HEAD] = (205, 160, 130)
    image[TOP] = top
    image[HEAD] -= 0.1 * (_ROWS[HEAD] - 100)[:, None]
    rough = np.random.default_rng(0).normal(0, noise, (SIDE, SIDE, 1)) * TOP[..., None]
    return (image + rough).clip(0, 255).astype(np.uint8)


def test_a_scalp_like_the_face_becomes_skin() -> None:
    result = without_imagined_hair(LABELS, _picture((205, 160, 130)))
    assert (result[TOP] == SKIN).all()
    np.testing.assert_array_equal(result[~TOP], LABELS[~TOP])


@pytest.mark.parametrize(("top", "noise"), [((180, 140, 105), 0.0), ((205, 160, 130), 25.0)])
def test_other_colour_or_texture_stays_hair(top, noise) -> None:
    np.testing.assert_array_equal(without_imagined_hair(LABELS, _picture(top, noise)), LABELS)


def test_hair_without_skin_beside_it_is_left_alone() -> None:
    labels = np.where(HEAD, HAIR, BACKGROUND).astype(np.uint8)
    np.testing.assert_array_equal(without_imagined_hair(labels, _picture((205, 160, 130))), labels)


def test_a_forehead_taken_for_hair_becomes_skin_up_to_the_hairline() -> None:
    """The border lies on skin, the hair begins higher up and stays hair."""
    image = _picture((205, 160, 130))
    crown = HEAD & (_ROWS < 58)
    image[crown] = (60, 45, 35)
    result = without_imagined_hair(LABELS, image)
    assert (result[HEAD & (_ROWS < 54)] == HAIR).mean() > 0.98
    assert (result[TOP & (_ROWS > 63)] == SKIN).mean() > 0.95
    np.testing.assert_array_equal(result[~TOP], LABELS[~TOP])
