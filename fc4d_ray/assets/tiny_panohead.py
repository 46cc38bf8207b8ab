"""Writes tiny PanoHead checkpoints in the released pickle format, with random weights.

Every module of the real generator is there, stored as the released files store it, at a few
thousandths of the size. The density is that of a ball as large as a head, so that masks, depth
and everything after them have something to work on; colours are random and depend on the latent.
"""

from __future__ import annotations

import io
import math
import pickle
import struct
from collections import OrderedDict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fc4d_ray.assets.pickle_tensors import LEGACY_MAGIC, LEGACY_PROTOCOL
from fc4d_ray.priors.shape.panohead.generator import PanoHeadGenerator
from fc4d_ray.priors.shape.panohead.settings import GeneratorSettings, RaySettings

TINY = GeneratorSettings(
    z_size=8,
    w_size=8,
    channel_base=64,
    channel_max=8,
    trigrid_size=16,
    output_size=32,
    superresolution_channels=(8, 8),
    neural_size=8,
    rays=RaySettings(coarse_samples=12, fine_samples=12),
)
_BALL_RADIUS = 0.27
"""Of the head-sized ball, in PanoHead units."""
_EDGE = 150.0
"""Raw density per unit of the ball's feature."""

_CLASS_NAMES = {
    "PanoHeadGenerator": "TriPlaneGenerator",
    "_Backbone": "StyleGAN2Backbone",
    "SuperResolution": "SuperresolutionHybrid8XDC",
    "Decoder": "OSGDecoder",
    "FullyConnected": "FullyConnectedLayer",
    "ToRGB": "ToRGBLayer",
}


def write_tiny_panohead(
    path: Path,
    seed: int = 0,
    *,
    settings: GeneratorSettings = TINY,
    module_source: str = "# the defining module's source stands here in a released file\n",
    rendering: dict[str, Any] | None = None,
) -> Path:
    """A checkpoint at ``path``; equal arguments give equal bytes. Returns ``path``.

    ``rendering`` replaces rendering options in force, ``module_source`` is the text stored with
    every module.
    """
    generator = make_tiny_generator(seed, settings)
    other = make_tiny_generator(seed + 1, settings)
    writer = _Writer(settings, module_source, rendering or {})
    content = {
        "training_set_kwargs": _New("dnnlib.util", "EasyDict", items={"resolution": 32}),
        "G": writer.generator(other),
        "D": None,
        "G_ema": writer.generator(generator),
        "augment_pipe": None,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(_dumps(content, 4))
    return path


def make_tiny_generator(seed: int = 0, settings: GeneratorSettings = TINY) -> PanoHeadGenerator:
    """A generator of random colours around a head-sized ball."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        generator = PanoHeadGenerator(settings).eval().requires_grad_(False)
        generator.t_mapping.fc1.weight *= 0.01
    _shape_ball(generator)
    return generator


@torch.no_grad()
def _shape_ball(generator: PanoHeadGenerator) -> None:
    """Make feature 0 of every plane a bump that no latent changes, and density its excess."""
    first = generator.backbone.synthesis.b4
    centres = (torch.arange(4) + 0.5) / 4 - 0.5
    fall = torch.exp(-centres.square() / (2 * 0.2**2))
    first.const[0] = torch.outer(fall, fall)
    for layer in (first.conv1, first.torgb):
        layer.affine.weight[0] = 0
    first.conv1.weight[0] = 0
    first.conv1.weight[0, 0, 1, 1] = 1
    depth = generator.settings.trigrid_depth
    per_plane = 32 * depth
    rows = [plane * per_plane + d for plane in range(3) for d in range(depth)]
    for side in generator.backbone.synthesis.resolutions:
        image = getattr(generator.backbone.synthesis, f"b{side}").torgb
        image.weight[rows] = 0
        image.bias[rows] = 0
    first.torgb.weight[rows, 0] = math.sqrt(len(first.const)) / math.sqrt(2)
    hidden, out = generator.decoder.net[0], generator.decoder.net[2]
    hidden.weight[0] = 0
    hidden.weight[0, 0] = 10 * math.sqrt(32)
    hidden.weight[1:, 0] = 0
    out.weight[0] = 0
    out.weight[0, 0] = _EDGE / 10 * math.sqrt(64)
    out.weight[1:, 0] = 0
    surface = math.exp(-(_BALL_RADIUS**2) / (2 * 0.2**2))
    out.bias[0] = -_EDGE * (1 + 2 * surface) / 3 * 0.75


@dataclass(frozen=True)
class _Name:
    """A global of the stream."""

    module: str
    name: str


@dataclass(frozen=True)
class _Call:
    """A REDUCE of the stream."""

    module: str
    name: str
    arguments: tuple[Any, ...]


@dataclass(frozen=True)
class _New:
    """A NEWOBJ of the stream, with state or dict items."""

    module: str
    name: str
    state: dict[str, Any] | None = None
    items: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class _StorageId:
    """What a storage is referred to by inside its own little checkpoint."""

    elements: int


class _Pickler(pickle._Pickler):
    """Writes names without importing what they name."""

    def save(self, obj: Any, save_persistent_id: bool = True) -> None:
        if isinstance(obj, _Name):
            if self.proto >= 4:
                super().save(obj.module)
                super().save(obj.name)
                self.write(pickle.STACK_GLOBAL)
            else:
                self.write(pickle.GLOBAL + f"{obj.module}\n{obj.name}\n".encode())
        elif isinstance(obj, _Call):
            self.save(_Name(obj.module, obj.name))
            self.save(obj.arguments)
            self.write(pickle.REDUCE)
        elif isinstance(obj, _New):
            self.save(_Name(obj.module, obj.name))
            self.write(pickle.EMPTY_TUPLE + pickle.NEWOBJ)
            if obj.state is not None:
                self.save(obj.state)
                self.write(pickle.BUILD)
            if obj.items:
                self._batch_setitems(obj.items.items())
        elif isinstance(obj, _StorageId):
            kind = _Name("torch", "FloatStorage")
            self.save(("storage", kind, "0", "cpu", obj.elements, None), False)
            self.write(pickle.BINPERSID)
        else:
            super().save(obj, save_persistent_id)


def _dumps(value: Any, protocol: int) -> bytes:
    buffer = io.BytesIO()
    _Pickler(buffer, protocol).dump(value)
    return buffer.getvalue()


def _storage(values: Tensor) -> _Call:
    """A storage as a plain pickle embeds it: a checkpoint of torch's pre-zip format."""
    flat = values.detach().contiguous().flatten()
    system = {"protocol_version": LEGACY_PROTOCOL, "little_endian": True, "type_sizes": {}}
    data = b"".join(pickle.dumps(part, 2) for part in (LEGACY_MAGIC, LEGACY_PROTOCOL, system))
    data += _dumps(_StorageId(flat.numel()), 2) + pickle.dumps(["0"], 2)
    data += struct.pack("<q", flat.numel()) + flat.numpy().astype("<f4").tobytes()
    return _Call("torch.storage", "_load_from_bytes", (data,))


def _tensor(values: Tensor, is_parameter: bool) -> _Call:
    stride = values.contiguous().stride()
    arguments = (_storage(values), 0, tuple(values.shape), tuple(stride), False, OrderedDict())
    tensor = _Call("torch._utils", "_rebuild_tensor_v2", arguments)
    if not is_parameter:
        return tensor
    return _Call("torch._utils", "_rebuild_parameter", (tensor, False, OrderedDict()))


@dataclass(frozen=True)
class _Writer:
    """Modules as the released files store them."""

    settings: GeneratorSettings
    module_source: str
    rendering_in_force: dict[str, Any]

    def generator(self, generator: PanoHeadGenerator) -> _Call:
        """The root module, with constructor arguments and the two parts that hold no tensors."""
        state = self._state(generator)
        sampler = _New(
            "training.volumetric_rendering.ray_sampler", "RaySampler", self._state(nn.Identity())
        )
        renderer = self._persistent("ImportanceRenderer", self._state(nn.Identity()))
        state["_modules"] = {"renderer": renderer, "ray_sampler": sampler} | state["_modules"]
        rendering = self._rendering()
        return self._persistent(
            "TriPlaneGenerator",
            state
            | {
                "neural_rendering_resolution": self.settings.neural_size,
                "rendering_kwargs": _easy(rendering | self.rendering_in_force),
                "_last_planes": None,
                "_init_args": (),
                "_init_kwargs": self._constructor_arguments(rendering),
            },
        )

    def _module(self, module: nn.Module) -> _Call | _New:
        name = type(module).__name__
        state = self._state(module)
        if isinstance(module, nn.Sequential):
            return _New("torch.nn.modules.container", name, state)
        if isinstance(module, nn.Softplus):
            return _New("torch.nn.modules.activation", name, state | {"beta": 1, "threshold": 20})
        return self._persistent(_CLASS_NAMES.get(name, name), state)

    def _state(self, module: nn.Module) -> dict[str, Any]:
        hooks = ("_backward_hooks", "_forward_hooks", "_forward_pre_hooks", "_state_dict_hooks")
        return {
            "training": False,
            "_parameters": OrderedDict(
                (name, _tensor(value, True)) for name, value in module._parameters.items()
            ),
            "_buffers": OrderedDict(
                (name, _tensor(value, False)) for name, value in module._buffers.items()
            ),
            "_non_persistent_buffers_set": set(),
            **{hook: OrderedDict() for hook in hooks},
            "_modules": OrderedDict(
                (name, self._module(child)) for name, child in module._modules.items()
            ),
        }

    def _persistent(self, class_name: str, state: dict[str, Any]) -> _Call:
        described = {
            "type": "class",
            "version": 6,
            "module_src": self.module_source,
            "class_name": class_name,
            "state": state,
        }
        return _Call("torch_utils.persistence", "_reconstruct_persistent_obj", (described,))

    def _constructor_arguments(self, rendering: dict[str, Any]) -> dict[str, Any]:
        settings = self.settings
        return {
            "z_dim": settings.z_size,
            "w_dim": settings.w_size,
            "mapping_kwargs": _easy({"num_layers": settings.mapping_layers}),
            "architecture": "skip",
            "channel_base": settings.channel_base,
            "channel_max": settings.channel_max,
            "rendering_kwargs": _easy(rendering),
            "num_fp16_res": 0,
            "sr_num_fp16_res": 4,
            "conv_clamp": None,
            "c_dim": 25,
            "img_resolution": settings.output_size,
            "img_channels": 3,
        }

    def _rendering(self) -> dict[str, Any]:
        rays = self.settings.rays
        return {
            "image_resolution": self.settings.output_size,
            "disparity_space_sampling": False,
            "clamp_mode": "softplus",
            "superresolution_module": "training.superresolution.SuperresolutionHybrid8XDC",
            "c_gen_conditioning_zero": False,
            "c_scale": self.settings.condition_scale,
            "superresolution_noise_mode": "none",
            "decoder_lr_mul": self.settings.decoder_rate,
            "decoder_activation": "none",
            "use_torgb_raw": True,
            "triplane_size": self.settings.trigrid_size,
            "triplane_depth": self.settings.trigrid_depth,
            "use_background": True,
            "sr_antialias": True,
            "depth_resolution": rays.coarse_samples,
            "depth_resolution_importance": rays.fine_samples,
            "ray_start": rays.near,
            "ray_end": rays.far,
            "box_warp": rays.box_size,
        }


def _easy(values: dict[str, Any]) -> _New:
    return _New("dnnlib.util", "EasyDict", items=values)
