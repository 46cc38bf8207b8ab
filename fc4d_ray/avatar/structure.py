"""Structural supervision of the base image (paper equation 3): LPIPS, or a substitute by name.

LPIPS needs the weights of its backbone, which users bring; where they are absent a pyramid of
image gradients takes its place. Which of them trained an avatar is part of its record.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from fc4d_ray.errors import WeightsMissing

StructureName = Literal["auto", "lpips_alex", "lpips_vgg", "lpips_random", "gradient_pyramid"]

_PYRAMID_LEVELS = 4
_GRADIENT_FLOOR = 0.01
"""Mean gradient below which a target counts as flat, in colour units per pixel."""


@dataclass(frozen=True)
class StructureLoss:
    """A loss over two (H, W, 3) images in [0, 1] and the name to record it under."""

    name: str
    function: Callable[[Tensor, Tensor], Tensor]

    def __call__(self, image: Tensor, target: Tensor) -> Tensor:
        return self.function(image, target)


def make_structure_loss(
    name: StructureName, backbone: str | None, device: torch.device | str = "cpu"
) -> StructureLoss:
    """The loss called ``name``.

    ``auto`` is ``lpips_alex`` where ``backbone`` (torchvision's AlexNet state dict) is given, else
    ``gradient_pyramid``. ``lpips_random`` has LPIPS' architecture over untrained features: for
    tests. Raises ``WeightsMissing`` when a backbone is asked for and its file is not there.
    """
    if name == "auto":
        name = "gradient_pyramid" if backbone is None else "lpips_alex"
    if name == "gradient_pyramid":
        return StructureLoss(name, gradient_pyramid)
    if name == "lpips_random":
        return StructureLoss(name, _lpips("alex", None, device))
    network = name.removeprefix("lpips_")
    return StructureLoss(name, _lpips(network, require_backbone(name, backbone), device))


def require_backbone(name: StructureName, backbone: str | None) -> Path:
    """The file with the weights of a structural loss; ``WeightsMissing`` where there is none."""
    if backbone is not None and Path(backbone).is_file():
        return Path(backbone)
    network = "vgg16" if name == "lpips_vgg" else "alexnet"
    raise WeightsMissing(
        f"structure loss {name} needs torchvision's {network} classification weights; set "
        f"train.coin.lpips_backbone to the file (found: {backbone}), or choose "
        "train.coin.structure: gradient_pyramid"
    )


def gradient_pyramid(image: Tensor, target: Tensor) -> Tensor:
    """Difference of image gradients over four octaves, relative to the target's own gradients.

    Blind to a constant colour shift and tolerant of fine misplacement through its coarse levels,
    as LPIPS is. Inputs (H, W, C); returns a scalar, 0 for equal images, about 1 where the image
    has no structure at all.
    """
    a, b = (x.permute(2, 0, 1)[None].contiguous() for x in (image, target.detach()))
    total = image.new_zeros(())
    levels = 0
    for _ in range(_PYRAMID_LEVELS):
        if min(a.shape[-2:]) < 2:
            break
        error, size = image.new_zeros(()), image.new_zeros(())
        for axis in (-1, -2):
            of_target = b.diff(dim=axis)
            error = error + (a.diff(dim=axis) - of_target).abs().mean()
            size = size + of_target.abs().mean()
        total = total + error / (size + _GRADIENT_FLOOR)
        levels += 1
        a, b = (F.avg_pool2d(x, 2, ceil_mode=True) for x in (a, b))
    return total / max(levels, 1)


def _lpips(
    network: Literal["alex", "vgg"], backbone: Path | None, device: torch.device | str
) -> Callable[[Tensor, Tensor], Tensor]:
    from fc4d_ray.assets.lpips_network import load_lpips

    model = load_lpips(network, backbone, device)

    def distance(image: Tensor, target: Tensor) -> Tensor:
        a, b = (x.permute(2, 0, 1)[None] for x in (image, target.detach()))
        return model(a, b, normalize=True).mean()

    return distance
