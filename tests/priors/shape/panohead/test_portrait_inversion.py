"""A portrait on its way into PanoHead: crop, target, refusal, placement."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from fc4d_ray.assets.tiny_panohead import make_tiny_generator
from fc4d_ray.errors import ImageTooSmall
from fc4d_ray.priors.shape.panohead.alignment import UNIT_M, align
from fc4d_ray.priors.shape.panohead.config import PanoHeadShapeConfig
from fc4d_ray.priors.shape.panohead.inversion import latent_statistics
from fc4d_ray.priors.shape.panohead.inversion_config import InversionConfig
from fc4d_ray.priors.shape.panohead.perceptual import make_perceptual
from fc4d_ray.priors.shape.panohead.portrait_inversion import (
    Portrait,
    invert_person,
    make_targets,
)

NONE = make_perceptual("none", None)
CONFIG = PanoHeadShapeConfig(
    device="cpu",
    depth_size=32,
    min_square_px=64,
    inversion=InversionConfig(latent_steps=3, tuning_steps=2, perceptual="none"),
)


@pytest.fixture(scope="module")
def pixels(portrait) -> Portrait:
    inside = np.ones(portrait.matte.shape, bool)
    return Portrait(portrait.image, portrait.matte, portrait.labels, portrait.landmarks, inside)


@pytest.fixture(scope="module")
def generator():
    return make_tiny_generator(4)


def test_the_target_is_the_framed_portrait(pixels, fitted, generator) -> None:
    alignment = align(fitted.camera, pixels.landmarks)
    labels = torch.from_numpy(alignment.label)[None]
    targets = make_targets(pixels, alignment, generator, labels, CONFIG)
    assert targets.images.shape == (1, 3, 32, 32) and targets.weights is None
    assert -1 <= float(targets.images.min()) < float(targets.images.max()) <= 1
    # The face fills the middle of the frame.
    skin = np.median(pixels.pixels[pixels.labels == 1], 0) / 127.5 - 1
    middle = targets.images[0, :, 14:24, 12:20].flatten(1).median(1).values.numpy()
    assert np.abs(middle - skin).max() < 0.25
    faded = replace(CONFIG, inversion=replace(CONFIG.inversion, background_weight=0.25))
    weights = make_targets(pixels, alignment, generator, labels, faded).weights
    assert weights.shape == (1, 1, 32, 32)
    assert float(weights.min()) == 0.25 and float(weights[0, 0, 16, 16]) == 1


def test_small_faces_are_refused_with_the_option_to_change(pixels, fitted, generator) -> None:
    demanding = replace(CONFIG, min_square_px=512)
    with pytest.raises(ImageTooSmall, match="raise ingest.crop_size"):
        invert_person(generator, None, NONE, fitted, pixels, demanding, 0, lambda *_: None)


def test_equal_seeds_give_equal_people_and_the_face_places_them(pixels, fitted, generator) -> None:
    statistics = latent_statistics(generator, 50)
    people = [
        invert_person(generator, statistics, NONE, fitted, pixels, CONFIG, seed, lambda *_: None)
        for seed in (1, 1, 2)
    ]
    one, same, other = people
    assert one.notes == same.notes
    for name, values in one.delta.items():
        assert torch.equal(values, same.delta[name]), name
    assert any(not torch.equal(values, other.delta[name]) for name, values in one.delta.items())
    assert one.notes["placed_by"] == "face depth"
    factor = one.notes["scale_factor"]
    assert one.person.placement.scale_m == pytest.approx(UNIT_M * factor, rel=1e-4)
    assert one.notes["face_depth_residual_m"] < 0.03
    assert generator.settings.rays.near == 2.25, "the shared generator keeps its near plane"
