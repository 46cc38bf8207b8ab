"""A tuned generator as its difference from the released one: one byte per weight.

Matrices and kernels are stored as 8-bit steps of a scale per output channel, vectors as they are.
"""

from __future__ import annotations

import copy
from pathlib import Path

import torch
from torch import Tensor

from fc4d_ray.errors import WeightsMissing
from fc4d_ray.priors.shape.panohead.generator import PanoHeadGenerator

_STEPS = 127
_SCALE = ".scale"


def tuning_delta(base: PanoHeadGenerator, tuned: PanoHeadGenerator) -> dict[str, Tensor]:
    """What tuning changed, ready to be stored; weights that stayed are left out."""
    before = base.state_dict()
    delta: dict[str, Tensor] = {}
    for name, value in tuned.state_dict().items():
        change = (value - before[name]).float().cpu()
        if not change.any():
            continue
        if change.dim() < 2:
            delta[name] = change.contiguous()
            continue
        rows = change.flatten(1)
        scale = rows.abs().amax(1, keepdim=True).clamp_min(1e-20) / _STEPS
        delta[name] = (rows / scale).round().to(torch.int8).view(change.shape).contiguous()
        delta[name + _SCALE] = scale[:, 0].contiguous()
    return delta


def apply_delta(base: PanoHeadGenerator, delta: dict[str, Tensor]) -> PanoHeadGenerator:
    """A copy of ``base`` with the difference added.

    Raises ``WeightsMissing`` where it belongs to a generator of another shape.
    """
    tuned = copy.deepcopy(base)
    state = tuned.state_dict()
    for name, stored in delta.items():
        if name.endswith(_SCALE):
            continue
        if name not in state or state[name].shape != stored.shape:
            raise WeightsMissing(f"the stored tuning belongs to another generator: {name}")
        change = stored.float()
        if name + _SCALE in delta:
            change = change * delta[name + _SCALE].view(-1, *[1] * (change.dim() - 1))
        state[name].add_(change.to(state[name]))
    return tuned


def write_delta(path: Path, delta: dict[str, Tensor]) -> None:
    """One safetensors file."""
    from safetensors.torch import save_file

    save_file(delta, path)


def read_delta(path: Path) -> dict[str, Tensor]:
    """What ``write_delta`` wrote. Raises ``WeightsMissing`` where it is absent or damaged."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise WeightsMissing(f"{path} holds no tuning of a generator: {error}") from error
