"""Segmentation of synthetic people before graded backdrops, against their exact mattes."""

from __future__ import annotations

import numpy as np
import pytest

from fc4d_ray.evaluation.synthetic import SyntheticPortrait, make_person
from fc4d_ray.heads.anny import AnnyHead, load_anny_head
from fc4d_ray.portraits.bare_scalp import without_imagined_hair
from fc4d_ray.portraits.geometry_prior import SKIN
from fc4d_ray.portraits.matte import compute_matte
from fc4d_ray.portraits.regions import label_map, segment

SIDE = 256


@pytest.fixture(scope="module")
def head() -> AnnyHead:
    return load_anny_head()


def _segmented(portrait: SyntheticPortrait) -> tuple[np.ndarray, np.ndarray]:
    """Matte (S, S) and labels (S, S) of a portrait with exact landmarks."""
    inside = np.ones((SIDE, SIDE), bool)
    regions = segment(portrait.image, portrait.landmarks, inside, working_side=160, seed=0)
    matte = compute_matte(portrait.image, regions, inside).alpha
    return matte, without_imagined_hair(label_map(regions, matte), portrait.image)


@pytest.mark.parametrize("seed", [0, 4])
def test_no_backdrop_sticks_to_the_head(head: AnnyHead, seed: int) -> None:
    portrait = make_person(seed, head).portrait(size=SIDE)
    matte, _ = _segmented(portrait)
    above = np.s_[: int(portrait.landmarks[8, 1])]
    found, true = matte[above] > 127, portrait.matte[above] > 127
    assert (found & true).sum() / (found | true).sum() > 0.95


def test_a_bald_head_is_skin(head: AnnyHead) -> None:
    person = make_person(4, head)
    assert person.hair_thickness_m == 0
    portrait = person.portrait(size=SIDE)
    _, labels = _segmented(portrait)
    skull = (portrait.labels == SKIN) & (np.arange(SIDE)[:, None] < portrait.landmarks[24, 1])
    assert (labels[skull] == SKIN).mean() > 0.85
