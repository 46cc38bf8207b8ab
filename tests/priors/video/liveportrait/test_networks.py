"""Every network against the upstream networks' outputs on the same deterministic weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from fc4d_ray.priors.video.liveportrait.checkpoint import (
    LivePortraitNetworks,
    build_appearance,
    build_decoder,
    build_motion,
    build_perceptron,
    build_warping,
)
from fc4d_ray.priors.video.liveportrait.decoder_inference import InferenceDecoder
from fc4d_ray.priors.video.liveportrait.keypoint_offsets import keypoint_delta, stitch
from fc4d_ray.priors.video.liveportrait.keypoints import place_keypoints, rotation_matrix

Vectors = Mapping[str, NDArray]
KitState = Callable[[str, str], dict[str, Tensor]]
BUILDERS = {
    "appearance_feature_extractor": build_appearance,
    "motion_extractor": build_motion,
    "warping_module": build_warping,
    "spade_generator": build_decoder,
    "stitching": build_perceptron,
    "eye": build_perceptron,
    "lip": build_perceptron,
}
N_PAIRS = {"full": 1, "small": 2}
"""Pairs that are warped and decoded; the full networks take seconds for each."""

each_configuration = pytest.mark.parametrize(
    "configuration", ["small", pytest.param("full", marks=pytest.mark.slow)]
)


def _network(kit_state: KitState, configuration: str, name: str) -> torch.nn.Module:
    state = kit_state(configuration, name)
    module = BUILDERS[name](state)
    assert list(module.state_dict()) == list(state)
    module.load_state_dict(state, strict=True)
    return module.eval().requires_grad_(False)


def _pictures(bytes_: NDArray) -> Tensor:
    return torch.from_numpy(bytes_).permute(0, 3, 1, 2).float() / 255


def _close(value: Tensor, expected: NDArray, tolerance: float) -> None:
    np.testing.assert_allclose(value.numpy(), expected, rtol=0, atol=tolerance)


@each_configuration
def test_appearance_features(
    kit_state: KitState, vectors: Callable[[str], Vectors], configuration: str
) -> None:
    v = vectors(configuration)
    network = _network(kit_state, configuration, "appearance_feature_extractor")
    features = network(_pictures(v["src_u8"]))
    step = 4 if configuration == "full" else 1
    _close(features[:, :: 4 if step == 4 else 1, ::step, ::4, ::4], v["F_slice"], 1e-4)
    depth, height = features.shape[2] // 2, features.shape[3] // 4
    side = v["F_crop"].shape[-1]
    crop = features[0, :, depth, height : height + side, height : height + side]
    _close(crop, v["F_crop"], 1e-4)
    _close(features.mean((3, 4)), v["F_mean"], 1e-4)
    _close(features.std((3, 4)), v["F_std"], 1e-4)


@each_configuration
def test_motion_and_keypoints(
    kit_state: KitState, vectors: Callable[[str], Vectors], configuration: str
) -> None:
    v = vectors(configuration)
    network = _network(kit_state, configuration, "motion_extractor")
    pictures = _pictures(np.concatenate([v["src_u8"], v["drv_u8"]]))
    raw = network.raw(pictures)
    for head in ("pitch", "yaw", "roll"):
        _close(raw[head], v[f"M_raw_{head}"], 5e-5 if configuration == "small" else 2e-4)
    for head in ("kp", "exp", "t", "scale"):
        _close(raw[head], v[f"M_raw_{head}"], 2e-5)
    motion = network(pictures)
    for angle in ("pitch", "yaw", "roll"):
        _close(getattr(motion, f"{angle}_deg"), v[f"M_{angle}"], 1e-3)
    _close(motion.canonical, v["M_kp"], 2e-5)
    _close(motion.expression, v["M_exp"], 2e-5)
    # The algebra is held to its own noise on the kit's own inputs.
    given = {name: torch.from_numpy(v[f"M_{name}"]) for name in ("pitch", "yaw", "roll")}
    rotation = rotation_matrix(given["pitch"], given["yaw"], given["roll"])
    _close(rotation, v["R"], 5e-6)
    placed = place_keypoints(
        torch.from_numpy(v["M_kp"]), torch.from_numpy(v["R"]), torch.from_numpy(v["M_exp"]),
        torch.from_numpy(v["M_scale"]), torch.from_numpy(v["M_t"]),
    )  # fmt: skip
    _close(placed, v["x"], 5e-6)


@each_configuration
def test_warp_and_decode(
    kit_state: KitState, vectors: Callable[[str], Vectors], configuration: str
) -> None:
    v, n = vectors(configuration), N_PAIRS[configuration]
    step = 2 if configuration == "full" else 1
    pictures = _pictures(v["src_u8"])[v["W_pick_src"][:n]]
    features = _network(kit_state, configuration, "appearance_feature_extractor")(pictures)
    warping = _network(kit_state, configuration, "warping_module")
    source = warping.prepare(features, torch.from_numpy(v["W_kp_s"][:n]))
    motion = warping.dense_motion_network(source, torch.from_numpy(v["W_kp_d"][:n]))
    depth = 4 if configuration == "full" else 1
    _close(motion.deformation[:, ::depth, ::step, ::step], v["W_deform_slice"][:n], 5e-5)
    _close(motion.mask[:, :, motion.mask.shape[2] // 2, ::4, ::4], v["W_mask_slice"][:n], 5e-5)
    _close(motion.occlusion, v["W_occlusion"][:n], 5e-5)
    warped = warping.apply_motion(source, motion)
    channels = 16 if configuration == "full" else 1
    _close(warped[:, ::channels, ::2, ::2], v["W_out_slice"][:n], 2e-4)
    _close(warped.mean((2, 3)), v["W_out_mean"][:n], 2e-4)
    _close(warped.std((2, 3)), v["W_out_std"][:n], 2e-4)

    decoder = _network(kit_state, configuration, "spade_generator")
    sigmas = dict(zip(v["sigma_names"], v["sigma"], strict=True))
    for name, module in decoder.named_modules():
        if hasattr(module, "sigma"):
            np.testing.assert_allclose(float(module.sigma), sigmas.pop(name), rtol=1e-6)
    assert not sigmas
    picture = InferenceDecoder(decoder)(warped)
    pool = 4 if configuration == "full" else 2
    _close(torch.nn.functional.avg_pool2d(picture, pool), v["out_down"][:n], 2e-4)
    side = picture.shape[-1]
    middle = slice(side // 2 - 32, side // 2 + 32)
    eighth = slice(side // 8, side // 8 + 64)
    _close(picture[:, :, middle, middle], v["out_crop"][:n], 2e-4)
    _close(picture[:, :, eighth, eighth], v["out_crop2"][:n], 2e-4)
    _close(picture.mean((2, 3)), v["out_mean"][:n], 2e-4)
    _close(picture.std((2, 3)), v["out_std"][:n], 2e-4)


@each_configuration
def test_small_perceptrons(
    kit_state: KitState, vectors: Callable[[str], Vectors], configuration: str
) -> None:
    v = vectors(configuration)
    keypoints = torch.from_numpy(v["x"][:2])
    driven = torch.from_numpy(v["xd_rel_all"][:, 3])
    stitching = _network(kit_state, configuration, "stitching")
    both = torch.cat([keypoints.flatten(1), driven.flatten(1)], 1)
    _close(stitching(both), v["stitch_delta"], 5e-6)
    _close(stitch(stitching, keypoints, driven), v["stitch_x"], 5e-6)
    for name in ("eye", "lip"):
        network = _network(kit_state, configuration, name)
        delta = keypoint_delta(network, keypoints, torch.from_numpy(v[f"retarget_{name}_in"]))
        _close(delta, v[f"retarget_{name}"], 5e-6)


def test_joined_decoder_is_the_decoder(kit_state: KitState) -> None:
    decoder = _network(kit_state, "small", "spade_generator").double()
    features = torch.randn(2, 16, 16, 16, dtype=torch.float64)
    with torch.no_grad():
        _close(InferenceDecoder(decoder)(features), decoder(features).numpy(), 1e-12)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_other_precisions(small_networks: LivePortraitNetworks, dtype: torch.dtype) -> None:
    """Half precision is for speed: the picture stays within a few levels of the exact one."""
    import copy

    picture = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    driven = 0.05 * torch.randn(1, 21, 3, generator=torch.Generator().manual_seed(1))
    results = []
    for precision in (torch.float32, dtype):
        nets = copy.deepcopy(small_networks)
        for module in nets.modules:
            module.to(precision)
        image = picture.to(precision)
        motion = nets.motion(image)
        assert motion.canonical.dtype == (
            torch.float64 if precision == torch.float64 else torch.float32
        )
        keypoints = motion.canonical.to(precision)
        source = nets.warping.prepare(nets.appearance(image), keypoints)
        out = nets.decoder(nets.warping(source, keypoints + driven.to(precision)))
        results.append(out.double())
    difference = (results[0] - results[1]).abs()
    assert difference.max() < (1e-4 if dtype == torch.float64 else 0.3)
    assert difference.mean() < (1e-5 if dtype == torch.float64 else 0.03)
