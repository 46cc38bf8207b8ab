"""Colour completion on pictures in flat colours, where every vertex has a known answer."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from fc4d_ray.heads.rig import Region
from fc4d_ray.portraits.regions import CLOTHING, HAIR, SKIN
from fc4d_ray.priors.shape.surface_colour import (
    Material,
    SurfaceColour,
    complete_surface_colour,
)

PAINT = {SKIN: (200, 60, 40), HAIR: (30, 40, 190), CLOTHING: (40, 180, 60)}
BACKDROP = (250, 0, 250)
OF_KIND = {Material.SKIN: SKIN, Material.HAIR: HAIR, Material.CLOTHING: CLOTHING}


def _flat(labels: np.ndarray) -> np.ndarray:
    image = np.full((*labels.shape, 3), BACKDROP, np.uint8)
    for label, colour in PAINT.items():
        image[labels == label] = colour
    return image


def _complete(fitted, portrait, image: np.ndarray, head) -> SurfaceColour:
    rig = fitted.rig
    extra = np.full(len(rig.neutral) - len(head.mirror), -1)
    return complete_surface_colour(
        rig.neutral, rig.faces, rig.region, np.concatenate([head.mirror, extra]), fitted.camera,
        image, portrait.matte, portrait.labels, np.ones(len(rig.neutral)),
    )  # fmt: skip


def _torso_skin(surface: SurfaceColour, fitted) -> np.ndarray:
    torso = np.isin(fitted.rig.region, (Region.NECK, Region.BUST))
    return torso & (surface.material == Material.SKIN)


@pytest.fixture(scope="module")
def flat(fitted, portrait, head) -> SurfaceColour:
    return _complete(fitted, portrait, _flat(portrait.labels), head)


@pytest.mark.parametrize("kind", list(OF_KIND))
def test_every_vertex_has_its_own_kinds_colour_seen_or_not(flat, fitted, kind) -> None:
    rows = (flat.material == kind) & ~_torso_skin(flat, fitted)
    assert rows.sum() > 100
    wanted = np.array(PAINT[OF_KIND[kind]]) / 255
    colour = flat.colour[rows]
    shown = flat.seen[rows] > 0.8
    assert np.percentile(np.abs(colour - wanted)[shown].max(1), 99) < 0.03
    # Hollows that are not shown are darker, but of the same hue.
    distance = _distance_of_hue(colour, wanted)
    assert np.percentile(distance, 99) < 0.03
    assert distance.max() < 0.25, "neither backdrop nor another kind bleeds in"
    brightness = colour.sum(1) / wanted.sum()
    assert brightness.min() > 0.3 and brightness.max() < 1.15


def _distance_of_hue(colour: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """How far (V,) colours are from the wanted one at its brightness."""
    as_bright = colour * (wanted.sum() / colour.sum(1, keepdims=True))
    return np.abs(as_bright - wanted).max(1)


def test_skin_borrows_from_mirrored_skin_only(flat, fitted) -> None:
    colour = flat.colour[_torso_skin(flat, fitted)]
    assert _distance_of_hue(colour, np.array(PAINT[SKIN]) / 255).max() < 0.25


def test_hair_never_takes_skin_colour_nor_skin_hair(flat, fitted) -> None:
    skin, hair = (np.array(PAINT[k]) / 255 for k in (SKIN, HAIR))
    for kind, own, other in ((Material.HAIR, hair, skin), (Material.SKIN, skin, hair)):
        colour = flat.colour[(flat.material == kind) & ~_torso_skin(flat, fitted)]
        nearer = np.linalg.norm(colour - other, axis=1) < np.linalg.norm(colour - own, axis=1)
        assert not nearer.any()


def test_materials_follow_the_regions(flat, fitted) -> None:
    region = fitted.rig.region
    for kind, material in (
        (Region.FACE, Material.SKIN), (Region.EAR, Material.SKIN), (Region.HAIR, Material.HAIR),
        (Region.CLOTHING, Material.CLOTHING), (Region.EYE, Material.EYE),
        (Region.TEETH, Material.TEETH), (Region.TONGUE, Material.MOUTH),
    ):  # fmt: skip
        assert (flat.material[region == kind] == material).all(), kind.name
    assert (flat.material[region == Region.SCALP] == Material.HAIR).all(), "the portrait has hair"
    low = (region == Region.BUST) & (fitted.rig.neutral[:, 1] < -0.24)
    assert (flat.material[low] == Material.CLOTHING).mean() > 0.9


def test_seen_vertices_take_the_portraits_colour(fitted, portrait) -> None:
    surface = fitted.colour
    pixels, _ = fitted.camera.project(fitted.rig.neutral.astype(np.float64))
    sure = (surface.seen > 0.8) & (surface.material == Material.SKIN)
    assert sure.sum() > 300
    columns, rows = pixels[sure].astype(int).T
    error = np.abs(surface.colour[sure] - portrait.image[rows, columns] / 255)
    assert error.mean() < 0.03
    assert np.percentile(error.max(1), 90) < 0.1


def test_the_unseen_cheek_takes_the_seen_ones_hue(head, fitted) -> None:
    """What is not seen follows its mirror image, but for the light."""
    surface = fitted.colour
    face = (fitted.rig.region == Region.FACE) & (fitted.rig.neutral[:, 2] > 0.0)
    unseen = np.flatnonzero(face & (surface.seen < 0.05))
    unseen = unseen[unseen < len(head.mirror)]
    lent = unseen[surface.seen[head.mirror[unseen]] > 0.7]
    assert len(lent) > 50, "turned by 20 degrees, one cheek is seen better than the other"
    own, other = surface.colour[lent], surface.colour[head.mirror[lent]]
    hues = [colour / colour.sum(1, keepdims=True) for colour in (own, other)]
    assert np.abs(hues[0] - hues[1]).mean() < 0.02
    assert np.abs(own - other).mean() < 0.15


def test_what_is_seen_depends_on_the_camera(fitted) -> None:
    neutral, seen = fitted.rig.neutral, fitted.colour.seen
    assert ((seen >= 0) & (seen <= 1)).all()
    toward = neutral @ (fitted.camera.position / np.linalg.norm(fitted.camera.position))
    back = (toward < -0.05) & (neutral[:, 1] > -0.05)
    assert seen[back].max() < 0.05, "nothing behind the head is seen"
    face = (fitted.rig.region == Region.FACE) & (neutral[:, 2] > 0.07)
    assert np.median(seen[face]) > 0.5


def test_teeth_tongue_and_mouth_are_painted_plausibly(fitted) -> None:
    colour, region = fitted.colour.colour, fitted.rig.region
    assert ((colour >= 0) & (colour <= 1)).all()
    teeth, tongue = colour[region == Region.TEETH].mean(0), colour[region == Region.TONGUE].mean(0)
    mouth = colour[region == Region.MOUTH].mean(0)
    assert teeth.mean() > 1.5 * mouth.mean()
    assert np.ptp(teeth) < 0.3 * teeth.max(), "nearly white"
    assert tongue[0] > 1.5 * tongue[1], "red"


def test_a_portrait_of_nothing_still_gets_finite_colours(fitted, portrait, head) -> None:
    empty = np.zeros_like(portrait.labels)
    rig = fitted.rig
    extra = np.full(len(rig.neutral) - len(head.mirror), -1)
    surface = complete_surface_colour(
        rig.neutral, rig.faces, rig.region, np.concatenate([head.mirror, extra]), fitted.camera,
        portrait.image, empty, empty, np.ones(len(rig.neutral)),
    )  # fmt: skip
    assert np.isfinite(surface.colour).all() and surface.seen.max() == 0


def test_the_rim_of_hair_does_not_colour_the_back_of_the_head(fitted, portrait, head, flat) -> None:
    """The outermost pixels of hair are mixed with the wall; behind, hair is as most of it is."""
    image = _flat(portrait.labels)
    distance = cv2.distanceTransform((portrait.matte > 127).astype(np.uint8), cv2.DIST_L2, 5)
    image[(portrait.labels == HAIR) & (distance < 9)] = (250, 250, 250)
    rimmed = _complete(fitted, portrait, image, head)
    hair = rimmed.material == Material.HAIR
    toward = fitted.rig.neutral @ (fitted.camera.position / np.linalg.norm(fitted.camera.position))
    behind = hair & (toward < np.percentile(toward[hair], 20))
    assert (rimmed.colour[hair & (rimmed.seen > 0.2)].max(0) > 0.5).all(), "the rim is seen"
    assert np.abs(rimmed.colour[behind] - flat.colour[behind]).mean() < 0.06


def test_unseen_hair_of_two_colours_takes_one_of_them(fitted, portrait, head) -> None:
    """A blue and yellow headscarf is not green behind."""
    image = _flat(portrait.labels)
    hair = portrait.labels == HAIR
    left = np.arange(hair.shape[1]) < np.median(np.nonzero(hair)[1]) + 10
    yellow = (230, 200, 40)
    image[hair & ~left] = yellow
    surface = _complete(fitted, portrait, image, head)
    rows = surface.material == Material.HAIR
    toward = fitted.rig.neutral @ (fitted.camera.position / np.linalg.norm(fitted.camera.position))
    behind = rows & (toward < np.percentile(toward[rows], 15))
    colour = surface.colour[behind] / surface.colour[behind].max(1, keepdims=True)
    own = np.array([PAINT[HAIR], yellow], float)
    own /= own.max(1, keepdims=True)
    nearest = np.linalg.norm(colour[:, None] - own, axis=-1).min(1)
    middle = np.linalg.norm(own[0] - own[1]) / 2
    assert np.median(nearest) < 0.25 * middle


def test_a_mark_on_one_side_of_the_neck_is_none_on_the_other(fitted, portrait, head) -> None:
    image = _flat(portrait.labels)
    chin = portrait.landmarks[8]
    rows, columns = np.indices(portrait.labels.shape)
    near = columns < chin[0] if fitted.camera.position[0] < 0 else columns > chin[0]
    mark = (portrait.labels == SKIN) & (rows > chin[1] + 4) & near
    assert mark.sum() > 30
    image[mark] = (20, 20, 20)
    surface = _complete(fitted, portrait, image, head)
    skin = surface.material == Material.SKIN
    neck = skin & (fitted.rig.region == Region.NECK) & (fitted.rig.neutral[:, 1] < -0.09)
    partner = np.concatenate([head.mirror, np.full(len(fitted.rig.neutral) - len(head.mirror), -1)])
    marked = neck & (surface.seen > 0.3) & (surface.colour.max(1) < 0.2)
    across = partner[np.flatnonzero(marked)]
    across = across[(across >= 0) & (surface.seen[across] < 0.02) & skin[across]]
    assert len(across) > 5
    assert np.median(surface.colour[across].max(1)) > 0.3
