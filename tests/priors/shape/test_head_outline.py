"""A cranium that stands out of the matte is laid inside it; the face stays where it is."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from fc4d_ray.evaluation.synthetic import SyntheticPerson, SyntheticPortrait, make_person
from fc4d_ray.heads.anny import AnnyHead
from fc4d_ray.heads.rig import HeadRig, Region
from fc4d_ray.images import smoothstep
from fc4d_ray.priors.shape.head_outline import follow_outline
from fc4d_ray.rendering.mesh import rasterize_mesh


@pytest.fixture(scope="module")
def bald(head: AnnyHead) -> tuple[SyntheticPerson, SyntheticPortrait]:
    person = make_person(6, head)
    assert person.hair_thickness_m == 0
    return person, person.portrait(person.portrait_camera(0, 256, 22))


def _with_tall_skull(rig: HeadRig, share: float) -> HeadRig:
    height = rig.neutral[:, 1].astype(np.float64)
    taller = rig.neutral.copy()
    taller[:, 1] += (share * height * smoothstep(height, 0.05, 0.1)).astype(np.float32)
    return replace(rig, neutral=taller)


def _misfit(rig: HeadRig, portrait: SyntheticPortrait) -> int:
    """Pixels above the brows in the skull or in the matte, but not in both."""
    skull = rasterize_mesh(rig.neutral, rig.faces, portrait.camera).face >= 0
    brows = int(portrait.landmarks[17:27, 1].min())
    return int((skull ^ (portrait.matte > 127))[:brows].sum())


@pytest.mark.parametrize("share", [0.15, -0.06])
def test_a_bare_skull_ends_where_the_matte_ends(bald, share) -> None:
    person, portrait = bald
    wrong = _with_tall_skull(person.head_rig, share)
    inside = np.ones(portrait.matte.shape, bool)
    found = follow_outline(wrong, portrait.camera, portrait.matte, portrait.labels, inside)
    assert _misfit(found, portrait) < 0.4 * _misfit(wrong, portrait)
    moved = np.linalg.norm(found.neutral - wrong.neutral, axis=1)
    assert moved[person.head_rig.neutral[:, 1] < 0.025].max() == 0, "eyes, nose, mouth, neck"
    assert moved[person.head_rig.region == Region.EYE].max() < 1e-4


def test_a_skull_under_hair_stays(person, portrait) -> None:
    inside = np.ones(portrait.matte.shape, bool)
    found = follow_outline(
        person.head_rig, portrait.camera, portrait.matte, portrait.labels, inside
    )
    assert np.abs(found.neutral - person.head_rig.neutral).max() < 0.002


def test_the_end_of_the_source_image_is_no_outline(bald) -> None:
    person, portrait = bald
    rows = np.arange(256)[:, None]
    cut = int(portrait.landmarks[17:27, 1].min()) - 30
    inside = np.broadcast_to(rows >= cut, portrait.matte.shape)
    matte = np.where(inside, portrait.matte, 0).astype(np.uint8)
    labels = np.where(inside, portrait.labels, 0).astype(np.uint8)
    found = follow_outline(person.head_rig, portrait.camera, matte, labels, inside)
    top = person.head_rig.neutral[:, 1] > 0.11
    assert np.abs(found.neutral - person.head_rig.neutral)[top].max() < 0.006
