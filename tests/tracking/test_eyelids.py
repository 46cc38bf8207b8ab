"""Blinks found in pictures whose lids carry more than vertex colours know."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch

from fc4d_ray.cameras import orbit_camera
from fc4d_ray.heads.anny import load_anny_head
from fc4d_ray.heads.rig import Region
from fc4d_ray.priors.shape.surface_colour import Material
from fc4d_ray.priors.video.actions import ViewAnimator
from fc4d_ray.rendering.mesh import interpolate, rasterize_mesh
from fc4d_ray.tracking.eyelids import refine_blinks

SIZE = 320
CLOSURES = ((0.0, 0.0), (0.5, 0.5), (1.0, 1.0), (1.0, 0.0))


@pytest.fixture(scope="module")
def filmed():
    """Rig, colours, camera, the picture at rest with painted lashes, and it blinking."""
    head = load_anny_head()
    rig = head.rig(np.zeros(len(head.identity_basis)))
    colour = np.full((len(rig.neutral), 3), (0.8, 0.62, 0.52), np.float32)
    eyes = rig.region == Region.EYE
    colour[eyes] = 0.9
    centre = rig.neutral[eyes & (rig.neutral[:, 0] > 0)].mean(0)
    aside = np.hypot(np.abs(rig.neutral[:, 0]) - centre[0], rig.neutral[:, 1] - centre[1])
    colour[eyes & (aside < 0.006)] = (0.2, 0.12, 0.1)
    camera = orbit_camera(10, size=SIZE, fov_deg=9.0)
    picture = _render(rig, colour, camera)
    marks, _ = camera.project(rig.landmarks(torch.from_numpy(rig.neutral)).double().numpy())
    for lid in ((36, 37, 38, 39), (42, 43, 44, 45)):
        line = (marks[list(lid)] - [0, 1.0]).round().astype(np.int32)
        cv2.polylines(picture, [line[:, None]], False, (50, 30, 25, 255), 2, cv2.LINE_AA)
    material = np.where(eyes, Material.EYE, Material.SKIN).astype(np.uint8)
    animator = ViewAnimator(rig, colour, material, camera, picture, SIZE)
    frames = []
    for left, right in CLOSURES:
        actions = {"eyeBlinkLeft": left, "eyeBlinkRight": right}
        frame = animator.render(rig.pose(rig.parameters_from_actions(actions))[0].numpy())
        frames.append(frame[..., :3])
    return rig, colour, camera, animator.rest_frame[..., :3], np.stack(frames)


def _render(rig, colour, camera) -> np.ndarray:
    fragments = rasterize_mesh(rig.neutral, rig.faces, camera)
    faces = torch.from_numpy(rig.faces).long()
    image = interpolate(torch.from_numpy(colour), faces, fragments).numpy()
    alpha = (fragments.face >= 0)[..., None]
    return np.ascontiguousarray((np.concatenate([image * alpha, alpha], -1) * 255).astype(np.uint8))


def test_each_eye_is_found_as_far_shut_as_it_is(filmed) -> None:
    rig, colour, camera, rest, frames = filmed
    wrong = np.full((len(frames), len(rig.action_names)), 0.0, np.float32)
    columns = [rig.action_names.index(n) for n in ("eyeBlinkLeft", "eyeBlinkRight")]
    wrong[:, columns] = 0.4
    found = refine_blinks(rig, colour, wrong, [camera], [rest], [frames])
    np.testing.assert_allclose(found[:, columns], CLOSURES, atol=0.08)


def test_nothing_but_the_blinks_is_touched(filmed) -> None:
    rig, colour, camera, rest, frames = filmed
    actions = np.random.default_rng(0).uniform(0, 0.2, (1, len(rig.action_names)))
    actions = actions.astype(np.float32)
    before = actions.copy()
    found = refine_blinks(rig, colour, actions, [camera], [rest], [frames[:1]])
    np.testing.assert_array_equal(actions, before)
    others = [i for i, name in enumerate(rig.action_names) if not name.startswith("eyeBlink")]
    np.testing.assert_array_equal(found[:, others], before[:, others])
    assert ((found >= 0) & (found <= 1)).all()
