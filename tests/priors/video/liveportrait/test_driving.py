"""Motion modes against upstream's own animation loop, and what they promise."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from fc4d_ray.errors import ConfigError
from fc4d_ray.priors.video.liveportrait.checkpoint import LivePortraitNetworks
from fc4d_ray.priors.video.liveportrait.driving import (
    MotionConfig,
    SourceFaces,
    driven_keypoints,
    read_faces,
)
from fc4d_ray.priors.video.liveportrait.keypoint_motion import KeypointMotion
from fc4d_ray.priors.video.liveportrait.motion_extractor import FaceMotion
from fc4d_ray.priors.video.liveportrait.openness import openness_68, openness_203
from fc4d_ray.priors.video.liveportrait.smoothing import (
    kalman_smoothed,
    nearest_rotations,
)

Vectors = Mapping[str, NDArray]
PLAIN = MotionConfig(stitching=False)
MODES: dict[str, tuple[dict[str, Any], float]] = {
    **{
        f"{'rel' if relative else 'abs'}_{region}": (
            {"relative": relative, "region": region, "stitching": False},
            5e-6,
        )
        for relative in (True, False)
        for region in ("all", "exp", "pose", "lip", "eyes")
    },
    "rel_all_exprfriendly": ({"region": "all", "stitching": False}, 5e-6),
    "rel_all_stitch": ({"region": "all"}, 5e-6),
    "rel_all_stitch_mult": ({"region": "all", "multiplier": 1.5}, 5e-6),
    "rel_all_normlip": ({"region": "all", "stitching": False, "lip_normalisation": True}, 5e-6),
    "rel_all_stitch_normlip": ({"region": "all", "lip_normalisation": True}, 5e-6),
    "rel_exp_stitch": ({}, 5e-6),
    "rel_exp_stitch_mult": ({"multiplier": 1.5}, 5e-6),
    "rel_exp_normlip": ({"stitching": False, "lip_normalisation": True}, 5e-6),
    "rel_exp_stitch_normlip": ({"lip_normalisation": True}, 5e-6),
    "abs_all_stitch": ({"relative": False, "region": "all"}, 5e-6),
    "rel_all_eye_lip_stitch": (
        {"region": "all", "eye_retargeting": True, "lip_retargeting": True},
        5e-6,
    ),
    "abs_exp_eye": ({"relative": False, "stitching": False, "eye_retargeting": True}, 5e-6),
    "cli_default": ({"region": "all"}, 5e-6),
}


@pytest.fixture(scope="module")
def sources(vectors: Callable[[str], Vectors]) -> SourceFaces:
    v = vectors("small")
    motion = FaceMotion(
        *(
            torch.from_numpy(v[f"M_{name}"][:2])
            for name in ("kp", "exp", "pitch", "yaw", "roll", "t", "scale")
        )
    )
    eyes, lips = openness_203(v["lmk"][:2])
    return read_faces(motion, torch.from_numpy(eyes), torch.from_numpy(lips))


@pytest.fixture(scope="module")
def clip(vectors: Callable[[str], Vectors]) -> KeypointMotion:
    v = vectors("small")
    return KeypointMotion(
        "d5", 30.0, v["clip_R"], v["clip_exp"], v["clip_t"], v["clip_scale"],
        eyes=v["clip_c_eyes"][:, 0], lips=v["clip_c_lip"][:, 0],
    )  # fmt: skip


@pytest.mark.parametrize("mode", MODES)
def test_modes_match_upstream(
    mode: str,
    sources: SourceFaces,
    clip: KeypointMotion,
    vectors: Callable[[str], Vectors],
    small_networks: LivePortraitNetworks,
) -> None:
    options, tolerance = MODES[mode]
    driven = driven_keypoints(sources, clip, MotionConfig(**options), small_networks)
    np.testing.assert_allclose(driven, vectors("small")[f"xd_{mode}"], rtol=0, atol=tolerance)


@pytest.mark.parametrize("region", ["all", "exp", "pose", "lip", "eyes"])
def test_a_single_driving_picture_needs_a_neutral_face(
    region: Any,
    sources: SourceFaces,
    clip: KeypointMotion,
    vectors: Callable[[str], Vectors],
    small_networks: LivePortraitNetworks,
) -> None:
    v = vectors("small")
    neutral = v["lip_array"][0] * np.float32(region != "eyes")
    picture = replace(clip.chosen(np.array([3])), neutral=neutral)
    driven = driven_keypoints(sources, picture, replace(PLAIN, region=region), small_networks)
    np.testing.assert_allclose(driven, v[f"xd_img_rel_{region}"], rtol=0, atol=5e-6)


def test_the_papers_mode_keeps_the_pose_and_moves_all_views_alike(
    sources: SourceFaces, clip: KeypointMotion, small_networks: LivePortraitNetworks
) -> None:
    """Measured on keypoints: displacements of two views differ by their scale alone."""
    driven = driven_keypoints(sources, clip, PLAIN, small_networks)
    displacement = driven - sources.keypoints[:, None]
    expected = torch.from_numpy(clip.expression - clip.expression[:1])
    for view in range(2):
        in_units = displacement[view] / sources.motion.scale[view]
        np.testing.assert_allclose(in_units, expected, rtol=0, atol=2e-6)
    turned = replace(clip, rotation=clip.rotation[::-1].copy(), translation=clip.translation + 0.3)
    again = driven_keypoints(sources, turned, PLAIN, small_networks)
    assert torch.equal(again, driven)


def test_the_first_frame_and_multiplier_zero_are_the_source(
    sources: SourceFaces, clip: KeypointMotion, small_networks: LivePortraitNetworks
) -> None:
    first = driven_keypoints(sources, clip, PLAIN, small_networks)[:, 0]
    np.testing.assert_allclose(first, sources.keypoints, rtol=0, atol=1e-6)
    still = driven_keypoints(sources, clip, MotionConfig(multiplier=0), small_networks)
    assert torch.equal(still, sources.keypoints[:, None].expand_as(still))


def test_views_do_not_influence_each_other(
    sources: SourceFaces, clip: KeypointMotion, small_networks: LivePortraitNetworks
) -> None:
    config = MotionConfig(region="all", eye_retargeting=True, relative=False)
    both = driven_keypoints(sources, clip, config, small_networks)
    for view in range(2):
        index = slice(view, view + 1)
        motion = FaceMotion(*(value[index] for value in vars(sources.motion).values()))
        one = read_faces(motion, sources.eyes[index], sources.lips[index])
        alone = driven_keypoints(one, clip, config, small_networks)
        np.testing.assert_allclose(alone[0], both[view], rtol=0, atol=1e-6)


def test_openness(vectors: Callable[[str], Vectors]) -> None:
    v = vectors("small")
    eyes, lips = openness_203(v["lmk"])
    np.testing.assert_allclose(eyes, v["eye_ratio"], rtol=0, atol=5e-6)
    np.testing.assert_allclose(lips, v["lip_ratio"], rtol=0, atol=5e-6)


def test_openness_of_68_landmarks_is_height_over_width() -> None:
    face = np.zeros((1, 68, 2))
    face[0, 36:42] = [[0, 0], [1, -0.6], [3, -0.6], [4, 0], [3, 0.4], [1, 0.4]]
    face[0, 42:48] = [[6, 0], [7, 0], [9, 0], [10, 0], [9, 0], [7, 0]]
    face[0, [48, 54, 62, 66]] = [[0, 8], [5, 8], [2.5, 7], [2.5, 9]]
    eyes, lips = openness_68(face)
    np.testing.assert_allclose(eyes, [[0.25, 0.0]], atol=1e-6)
    np.testing.assert_allclose(lips, [[0.4]], atol=1e-6)
    three = np.concatenate([face, np.full((1, 68, 1), 2.0)], -1)
    np.testing.assert_allclose(openness_68(three)[0], eyes)


@pytest.mark.parametrize("variance", ["3e-7", "1e-4"])
def test_smoothing(vectors: Callable[[str], Vectors], variance: str) -> None:
    v = vectors("small")
    smoothed = kalman_smoothed(v["kalman_exp_in"], float(variance))
    np.testing.assert_allclose(smoothed, v[f"kalman_exp_{variance}"], rtol=0, atol=5e-6)
    assert kalman_smoothed(v["kalman_exp_in"][:1], float(variance)).shape == (1, 21, 3)


def test_smoothed_rotations_are_rotations() -> None:
    angle = np.random.default_rng(3).normal(0, 1, 40)
    turns = np.zeros((40, 3, 3), np.float32)
    turns[:, 2, 2] = 1
    turns[:, 0, 0] = turns[:, 1, 1] = np.cos(angle)
    turns[:, 0, 1], turns[:, 1, 0] = np.sin(angle), -np.sin(angle)
    np.testing.assert_allclose(nearest_rotations(turns), turns, atol=1e-6)
    mixed = kalman_smoothed(turns, 1.0)
    assert np.abs(mixed @ mixed.transpose(0, 2, 1) - np.eye(3)).max() > 0.1
    smooth = nearest_rotations(mixed)
    np.testing.assert_allclose(
        smooth @ smooth.transpose(0, 2, 1), np.broadcast_to(np.eye(3), smooth.shape), atol=1e-5
    )
    np.testing.assert_allclose(np.linalg.det(smooth), 1, atol=1e-5)


def test_unknown_openness_is_refused(
    sources: SourceFaces, clip: KeypointMotion, small_networks: LivePortraitNetworks
) -> None:
    blind = replace(clip, eyes=None)
    with pytest.raises(ConfigError, match="eye_retargeting: openness of driving clip d5"):
        driven_keypoints(sources, blind, MotionConfig(eye_retargeting=True), small_networks)
    with pytest.raises(ConfigError, match="lip_normalisation"):
        driven_keypoints(
            replace(sources, lips=None), clip, MotionConfig(lip_normalisation=True), small_networks
        )
    with pytest.raises(ConfigError, match=r"motion\.multiplier"):
        MotionConfig(multiplier=-1)
