from __future__ import annotations

import json
from dataclasses import dataclass

import numpy as np
import pytest
import torch

from fc4d_ray.avatar.avatar import Avatar
from fc4d_ray.evaluation.avatar_quality import (
    AvatarStills,
    PersonStills,
    measure_avatar,
    summarise,
)
from fc4d_ray.evaluation.criteria import verdicts
from fc4d_ray.evaluation.expressions import lip_opening_growth


@dataclass(frozen=True)
class Photograph:
    portrait: np.ndarray
    matte: np.ndarray
    landmarks: np.ndarray
    inside: np.ndarray


class CountingAvatar:
    """Grey everywhere; counts how often it is drawn."""

    def __init__(self) -> None:
        self.renders = 0

    def render(self, camera, parameters):
        self.renders += 1
        level = 0.25 + 0.5 * float(parameters["actions"].max())
        colour = torch.tensor([level, level, level, 1.0])
        return colour.expand(camera.height, camera.width, 4)


def test_stills_are_made_once_each() -> None:
    avatar = CountingAvatar()
    stills = AvatarStills(avatar)
    for _ in range(2):
        assert stills.at(30).shape == (512, 512, 3)
        stills.acting("smile", 30)
        stills.through_lens(0.5)
        stills.through_lens(2.0)
    assert avatar.renders == 4
    assert stills.at(30)[0, 0, 0] != stills.acting("jaw open", 30)[0, 0, 0]


def test_a_true_person_is_measured_through_the_same_stills(person) -> None:
    stills = PersonStills(person)
    rest, opened = stills.at(0), stills.acting("jaw open", 0)
    assert rest.shape == opened.shape == (512, 512, 3)
    growth = lip_opening_growth(rest, opened)
    assert growth is not None and growth > 0.1
    assert (rest[0] == 255).all(), "on white"
    np.testing.assert_array_equal(rest, stills.at(0))
    assert (rest != stills.at(30)).any()


@pytest.fixture(scope="module")
def figures(faithful_avatar: Avatar, person) -> dict:
    camera = person.portrait_camera(azimuth_deg=8, size=512)
    portrait = person.portrait(camera)
    everywhere = np.ones(portrait.matte.shape, bool)
    photograph = Photograph(portrait.image, portrait.matte, portrait.landmarks, everywhere)
    return measure_avatar(faithful_avatar, photograph, camera)


def test_a_faithful_avatar_is_recognised_and_whole(figures: dict) -> None:
    summary = summarise(figures)
    assert summary["portrait_has_face"]
    assert summary["azimuth_deg"] == pytest.approx(8, abs=0.5)
    assert summary["id_own"] < 0.3
    assert summary["id_0"] < 0.35
    assert summary["silhouette_iou"] > 0.97
    assert summary["faces_behind"] == 0
    assert len(figures["wholeness"]["shares"]) == 24
    assert figures["wholeness"]["shares"]["+0"] > 0.98
    assert summary["whole"] == min(figures["wholeness"]["shares"].values())


def test_its_mouth_opens(figures: dict) -> None:
    acted = figures["expressions"]
    assert set(acted["lip_growth"]) == {"+0", "+30", "-30"}
    assert acted["lip_growth"]["+0"] > 0.1
    assert set(acted["blink_fall"]["+0"]) == {"right", "left", "mean"}


def test_figures_are_plain_json(figures: dict) -> None:
    assert json.loads(json.dumps(figures)) == figures
    assert json.loads(json.dumps(verdicts(summarise(figures)))) == verdicts(summarise(figures))


def test_worst_views_stand_for_all(figures: dict) -> None:
    changed = json.loads(json.dumps(figures))
    changed["expressions"]["lip_growth"] = {"+0": 0.3, "+30": 0.2, "-30": 0.25}
    changed["expressions"]["smile_distance"] = {"+0": 0.3, "+30": 0.44, "-30": 0.4}
    changed["expressions"]["blink_fall"]["+30"] = None
    summary = summarise(changed)
    assert (summary["lips"], summary["smile"], summary["blink"]) == (0.2, 0.44, None)
