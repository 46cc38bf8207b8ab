"""Perceptual distance of the inversion: LPIPS with cached target features, or none, by name."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from fc4d_ray.assets.lpips_network import load_lpips
from fc4d_ray.assets.registry import inspect_asset
from fc4d_ray.errors import WeightsMissing

PerceptualName = Literal["auto", "lpips_vgg", "lpips_alex", "lpips_random", "none"]

COMPARED_SIZE = 256
"""Larger images are area-averaged to this side before they are compared."""


@dataclass(frozen=True)
class PerceptualDistance:
    """LPIPS of images in -1…1; without a network there is none and ``name`` says why."""

    name: str
    network: Any = None

    @property
    def is_available(self) -> bool:
        return self.network is not None

    def features(self, images: Tensor) -> list[Tensor]:
        """Normalised activations of (N, 3, S, S); those of a target are computed once."""
        side = images.shape[-1]
        if side > COMPARED_SIZE:
            images = F.interpolate(images, size=(COMPARED_SIZE, COMPARED_SIZE), mode="area")
        activations = self.network.net.forward(self.network.scaling_layer(images))
        return [_unit_length(activation) for activation in activations]

    def distance(self, images: Tensor, target_features: list[Tensor]) -> Tensor:
        """LPIPS (N,) between images and the pictures the features are of."""
        total = images.new_zeros(len(images))
        for layer, found, wanted in zip(
            self.network.lins, self.features(images), target_features, strict=True
        ):
            total = total + layer((found - wanted).square()).mean((1, 2, 3))
        return total


def make_perceptual(
    name: PerceptualName, backbone: str | None, device: torch.device | str = "cpu"
) -> PerceptualDistance:
    """The distance called ``name``.

    ``auto`` is LPIPS over VGG-16 where ``backbone`` or the asset ``lpips-vgg`` gives its weights;
    where neither does there is no perceptual distance, and the name records why. Nothing takes its
    place. Raises ``WeightsMissing`` where LPIPS is asked for by name and its weights are absent.
    """
    if name == "none":
        return PerceptualDistance("none")
    if name == "lpips_random":
        return PerceptualDistance(name, load_lpips("alex", None, device))
    network: Literal["alex", "vgg"] = "alex" if name == "lpips_alex" else "vgg"
    path = _backbone_file(network, backbone)
    if path is None:
        reason = (
            f"LPIPS needs torchvision's weights of {network} (asset lpips-{network}, or "
            f"shape.inversion.lpips_backbone; found: {backbone})"
        )
        if name == "auto":
            return PerceptualDistance(f"unavailable: {reason}")
        raise WeightsMissing(reason)
    return PerceptualDistance(f"lpips_{network}", load_lpips(network, path, device))


def perceptual_file(name: PerceptualName, backbone: str | None) -> Path | None:
    """The weights ``make_perceptual`` would read, for digests."""
    if name in ("none", "lpips_random"):
        return None
    return _backbone_file("alex" if name == "lpips_alex" else "vgg", backbone)


def _backbone_file(network: Literal["alex", "vgg"], backbone: str | None) -> Path | None:
    if backbone is not None:
        return Path(backbone) if Path(backbone).is_file() else None
    found = inspect_asset(f"lpips-{network}").found
    return found[0] if found else None


def _unit_length(features: Tensor) -> Tensor:
    """Length one over the channels, as LPIPS wants it."""
    length = features.square().sum(1, keepdim=True).add(1e-20).sqrt()
    return features / (length + 1e-10)
