"""Completing views of synthetic people whose geometry is exact, against their true renders."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch

from fc4d_ray.cameras import Camera, orbit_camera, view_name
from fc4d_ray.errors import ConfigError
from fc4d_ray.evaluation.synthetic import SyntheticPerson
from fc4d_ray.portraits.regions import HAIR, SKIN
from fc4d_ray.priors.image.classical import (
    ClassicalImageConfig,
    CompletedView,
    Provenance,
    complete_views,
)
from fc4d_ray.priors.shape.surface_colour import Material
from fc4d_ray.priors.shape.views import REFERENCE, ShapeView
from fc4d_ray.warping import warp_to_view

SIZE = 192
AZIMUTHS = (20, 5, 50, 80, -30, -60, 180, -160)
BACK, NEAR_BACK = -160, 180
"""The portrait is taken from 20 degrees, so -160 is the view opposite to it."""
CONFIG = ClassicalImageConfig()


def _shape_view(person: SyntheticPerson, name: str, azimuth: float, camera: Camera) -> ShapeView:
    """Exact depth and materials with one flat colour per material: all detail must be warped."""
    rgba, depth = person.render(camera)
    labels = np.where(depth > 0, person.labels(camera), 0)
    flat = np.zeros_like(rgba)
    for label in np.unique(labels[labels > 0]):
        inside = labels == label
        flat[inside, :3] = np.median(rgba[inside, :3], axis=0)
    flat[..., 3] = 255 * (depth > 0)
    return ShapeView(name, azimuth, camera, flat, depth, labels.astype(np.uint8))


@pytest.fixture(scope="module")
def views(person, portrait) -> list[ShapeView]:
    orbit = [
        _shape_view(person, view_name(a), float(a), orbit_camera(a, size=SIZE)) for a in AZIMUTHS
    ]
    x, _, z = portrait.camera.position
    azimuth = float(np.rad2deg(np.arctan2(x, z)))
    return [*orbit, _shape_view(person, REFERENCE, azimuth, portrait.camera)]


@pytest.fixture(scope="module")
def completed(views, portrait) -> dict[str, CompletedView]:
    done = complete_views(views, portrait.image, portrait.matte, portrait.labels, CONFIG, seed=1)
    assert [v.name for v in done] == [v.name for v in views]
    return {v.name: v for v in done}


def _truth(person: SyntheticPerson, azimuth: int) -> np.ndarray:
    return person.render(orbit_camera(azimuth, size=SIZE))[0]


def test_the_reference_keeps_the_portraits_own_pixels(completed, portrait) -> None:
    reference = completed[REFERENCE]
    np.testing.assert_array_equal(reference.rgba[..., :3], portrait.image)
    rows = np.arange(portrait.matte.shape[0])[:, None] < portrait.landmarks[8, 1]
    np.testing.assert_array_equal(
        np.where(rows, reference.rgba[..., 3], 0), np.where(rows, portrait.matte, 0)
    )
    inside = reference.rgba[..., 3] > 0
    assert (reference.provenance[inside] == Provenance.REFERENCE).all()
    assert (reference.provenance[~inside] == Provenance.NOTHING).all()


@pytest.mark.parametrize(
    ("azimuth", "mean_limit", "share"), [(20, 4.0, 0.6), (5, 4.5, 0.5), (50, 6.0, 0.3)]
)
def test_pixels_from_the_reference_equal_the_truth(
    person, completed, azimuth, mean_limit, share
) -> None:
    """Light and texture stick to the synthetic surface, so a warped pixel has one right value."""
    view = completed[view_name(azimuth)]
    truth = _truth(person, azimuth)
    warped = view.provenance == Provenance.REFERENCE
    assert warped.sum() > share * (truth[..., 3] > 250).sum()
    sure = cv2.erode(warped.astype(np.uint8), np.ones((5, 5), np.uint8)) > 0
    error = np.abs(view.rgba[..., :3].astype(float) - truth[..., :3])[sure]
    assert error.mean() < mean_limit, "of 255"
    flat = np.abs(np.median(truth[sure, :3], axis=0) - truth[sure, :3].astype(float)).mean()
    assert error.mean() < 0.3 * flat, "far better than a flat colour"


def test_the_reference_reaches_less_far_the_more_a_view_turns_away(completed) -> None:
    def share(azimuth: int) -> float:
        provenance = completed[view_name(azimuth)].provenance
        return float((provenance == Provenance.REFERENCE).sum() / (provenance > 0).sum())

    assert share(20) > share(50) > share(80) > share(BACK)
    assert share(20) > share(-30) > share(-60)
    assert share(BACK) < 0.03


def test_the_far_side_of_the_face_is_lent_by_the_near_one(completed, views) -> None:
    view = completed[view_name(-60)]
    mirrored = view.provenance == Provenance.MIRROR
    assert mirrored.sum() > 100
    assert (views[AZIMUTHS.index(-60)].material[mirrored] != Material.CLOTHING).all()


def test_the_back_comes_from_the_completed_back_view(completed) -> None:
    near_back = completed[view_name(NEAR_BACK)].provenance
    assert (near_back == Provenance.BACK).sum() > 0.5 * (near_back > 0).sum()
    back = completed[view_name(BACK)].provenance
    assert not (back == Provenance.BACK).any(), "the back itself is completed first"
    assert (back == Provenance.COMPLETED).sum() > 0.8 * (back > 0).sum()


def test_neighbouring_back_views_agree(completed, views) -> None:
    """Strands synthesised for the back reappear in the view next to it, moved by the warp."""
    back, near = views[AZIMUTHS.index(BACK)], views[AZIMUTHS.index(NEAR_BACK)]
    picture = torch.from_numpy(completed[back.name].rgba[..., :3]).permute(2, 0, 1).float()
    warped = warp_to_view(
        picture, torch.from_numpy(back.depth), back.camera, torch.from_numpy(near.depth),
        near.camera, mode="bilinear",
    )  # fmt: skip
    shown = (completed[near.name].provenance == Provenance.BACK) & warped.visible.numpy()
    shown = cv2.erode(shown.astype(np.uint8), np.ones((5, 5), np.uint8)) > 0
    mine = completed[near.name].rgba[..., :3].astype(float)
    assert np.abs(mine - warped.image.permute(1, 2, 0).numpy())[shown].mean() < 4


def test_labels_tell_where_there_is_something_and_alpha_is_the_shapes(completed, views) -> None:
    for view in views[:-1]:
        done = completed[view.name]
        np.testing.assert_array_equal(done.provenance > 0, view.depth > 0)
        np.testing.assert_array_equal(done.rgba[..., 3], view.rgba[..., 3])
        assert set(np.unique(done.provenance)) <= {int(p) for p in Provenance}


def test_hair_nobody_saw_gets_strands_of_its_true_contrast(
    person, completed, views, portrait
) -> None:
    back = completed[view_name(BACK)]
    hair = views[AZIMUTHS.index(BACK)].material == Material.HAIR
    hair = cv2.erode(hair.astype(np.uint8), np.ones((9, 9), np.uint8)) > 0

    def contrast(image: np.ndarray, mask: np.ndarray) -> float:
        grey = image[..., :3].astype(np.float32).mean(-1)
        return float((grey - cv2.GaussianBlur(grey, (0, 0), 4))[mask].std())

    assert 0.4 < contrast(back.rgba, hair) / contrast(_truth(person, BACK), hair) < 2.0
    bare = complete_views(
        [v for v in views if v.name in (view_name(BACK), REFERENCE)],
        portrait.image, portrait.matte, portrait.labels, replace(CONFIG, hair_strength=0.0), 1,
    )[0]  # fmt: skip
    assert contrast(bare.rgba, hair) < 0.75 * contrast(back.rgba, hair)


def test_no_backdrop_bleeds_in_at_the_outline(views, portrait, completed) -> None:
    """On a backdrop of pure green no view may turn green anywhere."""
    green = portrait.image.copy()
    alpha = portrait.matte[..., None] / 255
    green = (green * (portrait.matte[..., None] > 250) + (1 - alpha) * [0, 255, 0]).clip(0, 255)
    mixed = (portrait.matte > 0) & (portrait.matte <= 250)
    green[mixed] = [0, 255, 0]
    done = complete_views(
        views, green.astype(np.uint8), portrait.matte, portrait.labels, CONFIG, seed=1
    )
    for view in done[:-1]:
        r, g, b = (view.rgba[..., i].astype(int) for i in range(3))
        before = completed[view.name].rgba.astype(int)
        is_green = (g - np.maximum(r, b) > 60) & (before[..., 1] - before[..., [0, 2]].max(-1) < 30)
        assert is_green[view.rgba[..., 3] > 0].mean() < 0.002, view.name


def test_equal_seeds_give_equal_bytes_and_other_seeds_other_strands(
    views, portrait, completed
) -> None:
    def back(seed: int) -> np.ndarray:
        chosen = [v for v in views if v.name in (view_name(BACK), REFERENCE)]
        return complete_views(
            chosen, portrait.image, portrait.matte, portrait.labels, CONFIG, seed
        )[0].rgba

    assert back(1).tobytes() == completed[view_name(BACK)].rgba.tobytes()
    assert back(2).tobytes() != back(1).tobytes()


def test_views_without_materials_and_people_without_hair_work(views, portrait) -> None:
    plain = [replace(v, material=None) for v in views if v.name != REFERENCE][:2]
    labels = np.where(portrait.labels == HAIR, SKIN, portrait.labels)
    done = complete_views(
        [*plain, views[-1]], portrait.image, portrait.matte, labels, CONFIG, seed=1
    )
    assert len(done) == 3 and done[0].rgba[..., 3].any()


def test_the_configuration_names_its_options() -> None:
    with pytest.raises(ConfigError, match="image.grazing_cosine"):
        ClassicalImageConfig(grazing_cosine=(0.5, 0.2))
