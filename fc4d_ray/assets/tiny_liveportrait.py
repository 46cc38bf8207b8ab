"""Writes tiny LivePortrait networks in the released file formats.

Random weights, steered so that what comes out is a blurred copy of what goes in, moved a little
near the keypoints that a driver moves: faces stay faces, which everything after the video stage
needs to have something to work on.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fc4d_ray.priors.video.liveportrait.appearance import AppearanceExtractor
from fc4d_ray.priors.video.liveportrait.checkpoint import OFFSET_NETWORKS, RELEASED_FILES
from fc4d_ray.priors.video.liveportrait.decoder import SpadeDecoder, SpadeNorm, SpectralConv2d
from fc4d_ray.priors.video.liveportrait.keypoint_offsets import Perceptron
from fc4d_ray.priors.video.liveportrait.motion_extractor import MotionExtractor
from fc4d_ray.priors.video.liveportrait.warping import WarpingModule, WarpSizes

N_KEYPOINTS, N_BINS = 21, 66
WIDTHS = (8, 12, 16)
VOLUME_CHANNELS, VOLUME_DEPTH = 4, 2
FEATURES = 8
_COLOURS = 3
_CONTRAST = 6.0
"""Slope of the last logit over a colour: a sigmoid of it is nearly the colour again."""
_HEAT_GAIN, _STILL_LOGIT = 30.0, 2.0
_FAINT = 1e3
"""Spectral norms of layers that must not matter."""

Networks = dict[str, nn.Module]


def write_tiny_liveportrait(directory: Path, seed: int = 0) -> tuple[Path, ...]:
    """The five files under ``directory``, in the layout of the release; returns their paths.

    Equal seeds give equal weights.
    """
    networks = make_tiny_networks(seed)
    files = tuple(directory / name for name in RELEASED_FILES)
    for path in files[:-1]:
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.save(networks[path.stem].state_dict(), path)
    files[-1].parent.mkdir(parents=True, exist_ok=True)
    content: dict[str, Any] = {
        theirs: {f"module.{key}": value for key, value in networks[ours].state_dict().items()}
        for ours, theirs in OFFSET_NETWORKS.items()
    }
    torch.save(content, files[-1])
    return files


@torch.no_grad()
def make_tiny_networks(seed: int = 0) -> Networks:
    """The seven networks by the names of their files or parts."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        offsets = 3 * N_KEYPOINTS
        return {
            "appearance_feature_extractor": _appearance(),
            "motion_extractor": _motion(),
            "warping_module": _warping(),
            "spade_generator": _decoder(),
            "stitching": _faint_perceptron([2 * offsets, 16, offsets + 2]),
            "eye": _faint_perceptron([offsets + 3, 16, offsets]),
            "lip": _faint_perceptron([offsets + 2, 16, offsets]),
        }


def _appearance() -> AppearanceExtractor:
    """The first channels of the volume are the picture's colours, at every depth."""
    network = AppearanceExtractor(list(WIDTHS), VOLUME_CHANNELS, VOLUME_DEPTH, n_residual=1)
    for conv in (network.first.conv, *(block.conv for block in network.down_blocks)):
        _pass_colours(conv)
    second = network.second
    for colour in range(_COLOURS):
        rows = slice(colour * VOLUME_DEPTH, (colour + 1) * VOLUME_DEPTH)
        second.weight[rows], second.bias[rows] = 0, 0
        second.weight[rows, colour] = 1
    for block in network.resblocks_3d:
        block.conv2.weight.zero_()
        block.conv2.bias.zero_()
    return network


def _motion() -> MotionExtractor:
    """Keypoints spread over the face; pose near zero; a little expression from the picture."""
    network = MotionExtractor([1, 1, 1, 1], [8, 8, 16, 16], N_KEYPOINTS, N_BINS)
    detector = network.detector
    index = torch.arange(N_KEYPOINTS)
    spread = torch.stack([index % 5 - 2.0, index // 5 - 1.5, torch.zeros(N_KEYPOINTS)], 1)
    for head, scale in (("kp", 0.01), ("exp", 0.01), ("t", 0.005), ("scale", 0.01)):
        linear = getattr(detector, f"fc_{head}")
        linear.weight.mul_(scale)
        linear.bias.zero_()
    detector.fc_kp.bias.copy_((0.2 * spread).flatten())
    detector.fc_scale.bias.fill_(1)
    for angle in ("pitch", "yaw", "roll"):
        getattr(detector, f"fc_{angle}").weight.mul_(0.1)
        getattr(detector, f"fc_{angle}").bias.zero_()
    return network


def _warping() -> WarpingModule:
    """Each keypoint's motion wins where its heatmap rises; elsewhere nothing moves."""
    compressed = 1
    network = WarpingModule(
        WarpSizes(N_KEYPOINTS, VOLUME_CHANNELS, VOLUME_DEPTH, compressed, (4, 8), (4, 4), FEATURES)
    )
    dense = network.dense_motion_network
    decoder = dense.hourglass.decoder
    _centre_identity(decoder.conv, decoder.conv.out_channels)
    dense.mask.weight.mul_(0.01)
    dense.mask.bias.zero_()
    dense.mask.bias[0] = _STILL_LOGIT
    first_skip = decoder.up_blocks[-1].conv.out_channels
    for motion in range(1, N_KEYPOINTS + 1):
        dense.mask.weight[motion, first_skip + motion * (1 + compressed), 3, 3, 3] = _HEAT_GAIN
    dense.occlusion.weight.zero_()
    dense.occlusion.bias.fill_(8)
    third = network.third.conv
    third.weight.mul_(0.1)
    third.bias.zero_()
    for colour in range(_COLOURS):
        third.weight[colour] = 0
        volume = slice(colour * VOLUME_DEPTH, (colour + 1) * VOLUME_DEPTH)
        # Half of each sample falls outside of a volume that is two deep.
        third.weight[colour, volume, 1, 1] = 1
    network.fourth.weight.mul_(0.1)
    network.fourth.weight[:_COLOURS] = 0
    network.fourth.weight[range(_COLOURS), range(_COLOURS)] = 1
    network.fourth.bias.zero_()
    return network


def _decoder() -> SpadeDecoder:
    """The conditioning picture, enlarged and smoothed, through the last blocks' shortcuts."""
    network = SpadeDecoder(FEATURES, (8, 6, 4), hidden=4)
    for module in network.modules():
        if isinstance(module, SpectralConv2d):
            _random_spectral(module)
    for block in (network.up_0, network.up_1):
        _pass_condition(block.norm_s)
        shortcut = block.conv_s
        shortcut.weight_orig.zero_()
        shortcut.weight_orig[range(_COLOURS), range(_COLOURS)] = 1
        for vector in (shortcut.weight_u, shortcut.weight_v):
            vector.zero_()
            vector[0] = 1
        block.conv_1.weight_v.mul_(_FAINT)
        block.conv_1.bias.zero_()
    conv = network.conv_img[0]
    conv.weight.zero_()
    for colour in range(_COLOURS):
        conv.weight[4 * colour : 4 * colour + 4, colour] = _CONTRAST * _binomial()
    conv.bias.fill_(-_CONTRAST / 2)
    return network


def _faint_perceptron(sizes: list[int]) -> Perceptron:
    network = Perceptron(sizes)
    network.mlp[-1].weight.mul_(0.01)
    network.mlp[-1].bias.zero_()
    return network


def _random_spectral(conv: SpectralConv2d) -> None:
    """Random weights with vectors of some steps of power iteration, as training leaves them."""
    nn.init.normal_(conv.weight_orig, std=0.1)
    flat = conv.weight_orig.flatten(1)
    u = nn.functional.normalize(torch.randn(len(flat)), dim=0)
    for _ in range(3):
        v = nn.functional.normalize(flat.T @ u, dim=0)
        u = nn.functional.normalize(flat @ v, dim=0)
    conv.weight_u.copy_(u)
    conv.weight_v.copy_(v)


def _pass_condition(norm: SpadeNorm) -> None:
    """No trace of what is normalised: the result is the smoothed condition."""
    shared = norm.mlp_shared[0]
    shared.weight[:_COLOURS], shared.bias[:_COLOURS] = 0, 0
    norm.mlp_gamma.weight.zero_()
    norm.mlp_gamma.bias.fill_(-1)
    norm.mlp_beta.weight.zero_()
    norm.mlp_beta.bias.zero_()
    for colour in range(_COLOURS):
        shared.weight[colour, colour] = _binomial()
        norm.mlp_beta.weight[colour, colour] = _binomial()


def _pass_colours(conv: nn.Conv2d) -> None:
    """The first three channels out are the first three in."""
    conv.weight[:_COLOURS], conv.bias[:_COLOURS] = 0, 0
    conv.weight[range(_COLOURS), range(_COLOURS), 1, 1] = 1


def _centre_identity(conv: nn.Conv3d, channels: int) -> None:
    conv.weight.zero_()
    conv.bias.zero_()
    conv.weight[range(channels), range(channels), 1, 1, 1] = 1


def _binomial() -> Tensor:
    row = torch.tensor([0.25, 0.5, 0.25])
    return row[:, None] * row
