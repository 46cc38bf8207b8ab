"""Reads the released LivePortrait files: weights only, sizes taken from the tensors' shapes.

The four base files are plain state dicts; the fifth holds the three small networks under names of
their own. Nothing but tensors is read (``assets.safe_pickle``), and every name must be there.
"""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fc4d_ray.assets.safe_pickle import read_checkpoint
from fc4d_ray.errors import WeightsMissing
from fc4d_ray.priors.video.liveportrait.appearance import AppearanceExtractor
from fc4d_ray.priors.video.liveportrait.decoder import SpadeDecoder
from fc4d_ray.priors.video.liveportrait.keypoint_offsets import Perceptron
from fc4d_ray.priors.video.liveportrait.motion_extractor import MotionExtractor
from fc4d_ray.priors.video.liveportrait.warping import WarpingModule, WarpSizes

BASE_NETWORKS = (
    "appearance_feature_extractor",
    "motion_extractor",
    "warping_module",
    "spade_generator",
)
OFFSET_NETWORKS = {
    "stitching": "retarget_shoulder",
    "eye": "retarget_eye",
    "lip": "retarget_mouth",
}
"""Our name of each small network and its name in the file."""

RELEASED_FILES = (
    *(f"base_models/{name}.pth" for name in BASE_NETWORKS),
    "retargeting_models/stitching_retargeting_module.pth",
)
"""Paths inside the release's folder, in the order ``read_networks`` wants them."""

_SIGNATURES = {
    "appearance_feature_extractor": "resblocks_3d.3dr0.conv1.weight",
    "motion_extractor": "detector.fc_exp.weight",
    "warping_module": "dense_motion_network.mask.weight",
    "spade_generator": "G_middle_0.conv_0.weight_orig",
    "stitching_retargeting_module": "retarget_shoulder",
}
"""A name that only this file holds."""

StateDict = Mapping[str, Tensor]


@dataclass(frozen=True)
class LivePortraitNetworks:
    """The seven networks, on one device, in evaluation mode."""

    appearance: AppearanceExtractor
    motion: MotionExtractor
    warping: WarpingModule
    decoder: SpadeDecoder
    stitching: Perceptron
    eye: Perceptron
    lip: Perceptron

    @property
    def modules(self) -> tuple[nn.Module, ...]:
        """All of them."""
        return tuple(vars(self).values())

    def to(self, device: torch.device | str) -> LivePortraitNetworks:
        """Move to ``device``, in place."""
        for module in self.modules:
            module.to(device)
        return self


def read_networks(files: tuple[Path, ...]) -> LivePortraitNetworks:
    """The networks of the five files named in ``RELEASED_FILES``, in that order, on the CPU.

    Raises:
        WeightsMissing: a file is absent, cut short, holds another network, lacks values, or the
            files do not belong together; the message names the file.
        UnsafePickle: a file holds more than tensors and plain values.
    """
    *base, offsets = files
    states = [_read_base(path, name) for path, name in zip(base, BASE_NETWORKS, strict=True)]
    builders = (build_appearance, build_motion, build_warping, build_decoder)
    modules = [
        _loaded(path, builder, state)
        for path, builder, state in zip(base, builders, states, strict=True)
    ]
    small = _read_offsets(offsets)
    networks = LivePortraitNetworks(
        *modules, **{name: _loaded(offsets, build_perceptron, small[name]) for name in small}
    )
    _check_agreement(networks, files)
    return networks


def build_appearance(state: StateDict) -> AppearanceExtractor:
    """An extractor of the sizes the state dict's shapes tell."""
    n_blocks = _count(state, "down_blocks.{}.conv.weight")
    widths = [_size(state, "first.conv.weight")]
    widths += [_size(state, f"down_blocks.{i}.conv.weight") for i in range(n_blocks)]
    channels = _size(state, "resblocks_3d.3dr0.conv1.weight")
    return AppearanceExtractor(
        widths,
        channels,
        _size(state, "second.weight") // channels,
        _count(state, "resblocks_3d.3dr{}.conv1.weight"),
    )


def build_motion(state: StateDict) -> MotionExtractor:
    """A motion extractor of the sizes the state dict's shapes tell."""
    stages = range(_count(state, "detector.stages.{}.0.dwconv.weight"))
    return MotionExtractor(
        depths=[_count(state, f"detector.stages.{i}.{{}}.dwconv.weight") for i in stages],
        dims=[_size(state, f"detector.stages.{i}.0.dwconv.weight") for i in stages],
        n_keypoints=_size(state, "detector.fc_kp.weight") // 3,
        n_bins=_size(state, "detector.fc_pitch.weight"),
    )


def build_warping(state: StateDict) -> WarpingModule:
    """A warping module of the sizes the state dict's shapes tell."""
    dense = "dense_motion_network"
    down, up = f"{dense}.hourglass.encoder.down_blocks", f"{dense}.hourglass.decoder.up_blocks"
    decoded = _size(state, f"{dense}.hourglass.decoder.conv.weight")
    return WarpingModule(
        WarpSizes(
            n_keypoints=_size(state, f"{dense}.mask.weight") - 1,
            volume_channels=_size(state, f"{dense}.compress.weight", 1),
            volume_depth=_size(state, f"{dense}.occlusion.weight", 1) // decoded,
            compressed_channels=_size(state, f"{dense}.compress.weight"),
            down_widths=_widths(state, f"{down}.{{}}.conv.weight"),
            up_widths=_widths(state, f"{up}.{{}}.conv.weight"),
            channels_out=_size(state, "third.conv.weight"),
        )
    )


def build_decoder(state: StateDict) -> SpadeDecoder:
    """A decoder of the sizes the state dict's shapes tell."""
    return SpadeDecoder(
        channels_in=_size(state, "fc.weight", 1),
        widths=(
            _size(state, "fc.weight"),
            _size(state, "up_0.conv_1.weight_orig"),
            _size(state, "up_1.conv_1.weight_orig"),
        ),
        hidden=_size(state, "up_0.norm_0.mlp_shared.0.weight"),
    )


def build_perceptron(state: StateDict) -> Perceptron:
    """A perceptron of the sizes the state dict's shapes tell."""
    weights = [name for name in state if name.endswith(".weight")]
    return Perceptron([_size(state, weights[0], 1), *(_size(state, name) for name in weights)])


def _read_base(path: Path, network: str) -> StateDict:
    state = _read(path)
    if _SIGNATURES[network] not in state:
        raise WeightsMissing(f"{path}: expected the {network} network, found {_describe(state)}")
    return _tensors(path, state)


def _read_offsets(path: Path) -> dict[str, StateDict]:
    content = _read(path)
    missing = [name for name in OFFSET_NETWORKS.values() if name not in content]
    if missing:
        raise WeightsMissing(
            f"{path}: expected {', '.join(OFFSET_NETWORKS.values())}, found {_describe(content)}"
        )
    return {
        ours: _tensors(
            path, {key.replace("module.", ""): value for key, value in content[theirs].items()}
        )
        for ours, theirs in OFFSET_NETWORKS.items()
    }


def _read(path: Path) -> Mapping[str, Any]:
    if not path.is_file():
        raise WeightsMissing(f"{path} not found")
    with path.open("rb") as file:
        is_zip = file.read(2) == b"PK"
    if path.stat().st_size == 0 or (is_zip and not zipfile.is_zipfile(path)):
        raise WeightsMissing(f"{path} is cut short ({path.stat().st_size} bytes): copy it again")
    content = read_checkpoint(path)
    if not isinstance(content, Mapping):
        raise WeightsMissing(f"{path}: expected a state dict, found a {type(content).__name__}")
    return content


def _tensors(path: Path, state: Mapping[str, Any]) -> StateDict:
    """The state with floating tensors in single precision."""
    for name, value in state.items():
        if not isinstance(value, Tensor):
            raise WeightsMissing(f"{path}: {name!r} is a {type(value).__name__}, not a tensor")
        if value.is_floating_point() and not bool(value.isfinite().all()):
            raise WeightsMissing(f"{path}: {name!r} holds values that are no finite numbers")
    return {
        name: value.float() if value.is_floating_point() else value for name, value in state.items()
    }


def _loaded(path: Path, build: Any, state: StateDict) -> Any:
    try:
        with torch.device("meta"):
            module = build(state)
        module.load_state_dict(dict(state), strict=True, assign=True)
    except KeyError as error:
        raise WeightsMissing(f"{path}: it lacks {error.args[0]!r}") from error
    except (RuntimeError, ValueError, ZeroDivisionError) as error:
        detail = str(error).replace("\n\t", " ")
        raise WeightsMissing(f"{path}: not the released network ({detail[:400]})") from error
    return module.eval().requires_grad_(False)


def _check_agreement(networks: LivePortraitNetworks, files: tuple[Path, ...]) -> None:
    """Files of different releases may each be whole and still not fit each other."""
    appearance, dense = networks.appearance, networks.warping.dense_motion_network
    n_keypoints = dense.mask.out_channels - 1
    decoded = dense.hourglass.channels_out
    depth = dense.occlusion.in_channels // decoded
    pairs = {
        "feature volumes": (
            (appearance.volume_channels, appearance.volume_depth),
            (dense.compress.in_channels, depth),
        ),
        "keypoints": (networks.motion.detector.fc_kp.out_features // 3, n_keypoints),
        "decoder inputs": (networks.warping.fourth.out_channels, networks.decoder.fc.in_channels),
        "stitching offsets": (
            networks.stitching.mlp[-1].out_features, 3 * n_keypoints + 2,
        ),
    }  # fmt: skip
    for what, (one, other) in pairs.items():
        if one != other:
            raise WeightsMissing(
                f"{files[0].parent}: these files do not belong together: "
                f"{what} of {one} and of {other}"
            )


def _describe(content: Mapping[str, Any]) -> str:
    for network, name in _SIGNATURES.items():
        if name in content:
            return f"the {network}"
    names = ", ".join(repr(str(name)) for name in list(content)[:3])
    return f"something else ({names or 'nothing'} …)"


def _size(state: StateDict, name: str, axis: int = 0) -> int:
    return state[name].shape[axis]


def _count(state: StateDict, pattern: str) -> int:
    """How many of ``pattern`` with 0, 1, 2 … in its place there are."""
    count = 0
    while pattern.format(count) in state:
        count += 1
    return count


def _widths(state: StateDict, pattern: str) -> tuple[int, ...]:
    return tuple(_size(state, pattern.format(i)) for i in range(_count(state, pattern)))
