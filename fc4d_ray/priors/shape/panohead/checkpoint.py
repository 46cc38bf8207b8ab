"""PanoHead's released pickles: read without running them, converted once, loaded quickly.

A released file stores every module as one call with one dict: class name, the module's complete
Python source (which a normal load would execute) and its ``__dict__``. Here that call is kept as
data and only tensors, numbers and names are taken from it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fc4d_ray.assets.registry import file_digest
from fc4d_ray.assets.safe_pickle import Record, read_pickle
from fc4d_ray.errors import ConfigError, UnsafePickle, WeightsMissing
from fc4d_ray.priors.shape.panohead.generator import PanoHeadGenerator
from fc4d_ray.priors.shape.panohead.settings import GeneratorSettings, RaySettings

PERSISTENT = "torch_utils.persistence._reconstruct_persistent_obj"
RECORDS = (
    PERSISTENT,
    "dnnlib.util.EasyDict",
    "torch.nn.modules.*",
    "training.volumetric_rendering.ray_sampler.RaySampler",
)
"""Names a released pickle may hold besides tensors and plain values; none is ever imported."""

WEIGHTS_FILE = "generator.safetensors"
SETTINGS_FILE = "generator.json"
FORMAT = 1

_REQUIRED = {
    "clamp_mode": "softplus",
    "disparity_space_sampling": False,
    "use_torgb_raw": True,
    "use_background": True,
    "decoder_activation": "none",
    "superresolution_noise_mode": "none",
    "sr_antialias": True,
}
"""Rendering options this implementation has, in the only form it has them."""


@dataclass(frozen=True)
class ReleasedGenerator:
    """What a released pickle says about its averaged generator (``G_ema``)."""

    settings: GeneratorSettings
    tensors: dict[str, Tensor]
    """In the order of the state dict, filters included."""


def read_released(path: Path) -> ReleasedGenerator:
    """Settings and tensors of a released file.

    Raises:
        WeightsMissing: the file is absent or holds no PanoHead generator of a kind known here.
        UnsafePickle: it asks for anything beyond tensors and plain values; nothing was executed.
    """
    if not path.is_file():
        raise WeightsMissing(f"there is no PanoHead checkpoint at {path}")
    content = read_pickle(path, records=RECORDS)
    if not isinstance(content, dict) or "G_ema" not in content:
        raise WeightsMissing(f"{path} is no PanoHead checkpoint: it has no entry G_ema")
    root = _module_state(content["G_ema"], str(path))
    tensors: dict[str, Tensor] = {}
    _collect(content["G_ema"], "", tensors)
    return ReleasedGenerator(_settings(root, tensors, path), tensors)


def import_released(path: Path, directory: Path) -> Path:
    """Convert a released file to ``generator.safetensors`` and ``generator.json``; the former.

    Raises as ``read_released`` does, and ``WeightsMissing`` where tensors do not fit the settings.
    """
    from safetensors.torch import save_file

    released = read_released(path)
    _build(released.settings, released.tensors, str(path))
    directory.mkdir(parents=True, exist_ok=True)
    target = directory / WEIGHTS_FILE
    partial = target.with_suffix(".partial")
    save_file({k: v.contiguous().clone() for k, v in released.tensors.items()}, partial)
    description = {
        "format": FORMAT,
        "settings": released.settings.to_json(),
        "source": path.name,
        "source_sha256": file_digest(path),
    }
    (directory / SETTINGS_FILE).write_text(json.dumps(description, indent=1, sort_keys=True))
    partial.replace(target)
    return target


def load_generator(weights: Path, device: torch.device | str = "cpu") -> PanoHeadGenerator:
    """The generator of an imported file (``generator.json`` lies beside it), frozen, in eval mode.

    Raises ``WeightsMissing`` where files are absent or do not fit each other.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    description = weights.with_name(SETTINGS_FILE)
    for file in (weights, description):
        if not file.is_file():
            raise WeightsMissing(
                f"{file} is missing; convert a released file: fc4d assets import panohead PATH"
            )
    try:
        values = json.loads(description.read_text())
        if values["format"] != FORMAT:
            raise WeightsMissing(f"{description} has format {values['format']}, expected {FORMAT}")
        settings = GeneratorSettings.from_json(values["settings"])
        tensors = load_file(weights)
    except (KeyError, TypeError, ValueError, ConfigError, SafetensorError) as error:
        raise WeightsMissing(f"{weights} or its settings are damaged: {error}") from error
    return _build(settings, tensors, str(weights)).to(device)


def _build(
    settings: GeneratorSettings, tensors: Mapping[str, Tensor], where: str
) -> PanoHeadGenerator:
    with torch.random.fork_rng(devices=[]):
        generator = PanoHeadGenerator(settings)
    # The training loop's note on its data set; nothing reads it.
    present = {"dataset_label_std": generator.dataset_label_std} | dict(tensors)
    try:
        generator.load_state_dict(present)
    except RuntimeError as error:
        raise WeightsMissing(f"{where} does not fit its own settings: {error}") from error
    return generator.eval().requires_grad_(False)


def _module_state(node: Any, where: str) -> dict[str, Any]:
    """A module's ``__dict__``: of a decorated class, or of a plain torch one."""
    if isinstance(node, Record):
        state = node.state
        if node.name == PERSISTENT and len(node.arguments) == 1:
            called_with = node.arguments[0]
            state = called_with.get("state") if isinstance(called_with, dict) else None
        if isinstance(state, dict) and "_modules" in state:
            return state
    raise UnsafePickle(f"{where}: the checkpoint stores something else than a module")


def _collect(node: Any, prefix: str, tensors: dict[str, Tensor]) -> None:
    """Parameters, buffers, then children: the order of a state dict."""
    state = _module_state(node, prefix or "G_ema")
    for kind in ("_parameters", "_buffers"):
        for name, value in state[kind].items():
            if isinstance(value, Tensor):
                tensors[prefix + name] = value
    for name, child in state["_modules"].items():
        if child is not None:
            _collect(child, f"{prefix}{name}.", tensors)


def _settings(
    root: Mapping[str, Any], tensors: Mapping[str, Tensor], path: Path
) -> GeneratorSettings:
    kwargs = _plain(root["_init_kwargs"])
    # The attribute holds the values in force; the constructor's are those of the first epoch.
    rendering = kwargs.get("rendering_kwargs", {}) | _plain(root.get("rendering_kwargs", {}))
    for option, expected in _REQUIRED.items():
        if rendering.get(option) != expected:
            raise WeightsMissing(
                f"{path}: only generators with {option} = {expected!r} are known, "
                f"found {rendering.get(option)!r}"
            )
    if kwargs.get("architecture", "skip") != "skip":
        raise WeightsMissing(f"{path}: expected a skip architecture, found {kwargs}")
    try:
        return GeneratorSettings(
            z_size=int(kwargs["z_dim"]),
            w_size=int(kwargs["w_dim"]),
            mapping_layers=int(kwargs.get("mapping_kwargs", {}).get("num_layers", 2)),
            channel_base=int(kwargs.get("channel_base", 32768)),
            channel_max=int(kwargs.get("channel_max", 512)),
            conv_clamp=kwargs.get("conv_clamp"),
            trigrid_size=int(rendering["triplane_size"]),
            trigrid_depth=int(rendering["triplane_depth"]),
            output_size=int(kwargs["img_resolution"]),
            superresolution_channels=tuple(
                len(tensors[f"superresolution.block{i}.conv1.bias"]) for i in (0, 1)
            ),
            superresolution_clamp=256.0 if kwargs.get("sr_num_fp16_res", 0) > 0 else None,
            neural_size=int(root["neural_rendering_resolution"]),
            condition_scale=0.0
            if rendering.get("c_gen_conditioning_zero")
            else float(rendering.get("c_scale", 1.0)),
            decoder_rate=float(rendering.get("decoder_lr_mul", 1.0)),
            rays=RaySettings(
                near=float(rendering["ray_start"]),
                far=float(rendering["ray_end"]),
                coarse_samples=int(rendering["depth_resolution"]),
                fine_samples=int(rendering["depth_resolution_importance"]),
                box_size=float(rendering["box_warp"]),
            ),
        )
    except (KeyError, TypeError, ValueError, ConfigError) as error:
        raise WeightsMissing(f"{path} lacks a setting of a PanoHead generator: {error}") from error


def _plain(value: Any) -> Any:
    """Dict stand-ins and numpy scalars as Python's own."""
    if isinstance(value, Record):
        return _plain(value.items)
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    return value.item() if isinstance(value, np.generic) else value
