"""LPIPS with the backbone its user brought, or with a random one of the same architecture."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import torch

from fc4d_ray.errors import WeightsMissing

_RANDOM_SEED = 0


def load_lpips(
    network: Literal["alex", "vgg"],
    backbone: Path | None,
    device: torch.device | str = "cpu",
) -> Any:
    """``lpips.LPIPS``, frozen, on ``device``.

    ``backbone`` is torchvision's classification state dict; None leaves the features random, which
    costs as much as the trained ones and is for tests and benchmarks. Raises ``WeightsMissing``
    where the file does not fit or the package is not installed.
    """
    from fc4d_ray.assets.torchvision_shim import ensure_torchvision_importable

    try:
        ensure_torchvision_importable()
        import lpips
    except ImportError as error:
        raise WeightsMissing(
            f"LPIPS needs the packages lpips and torchvision (pip install lpips): {error}"
        ) from error

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(_RANDOM_SEED)
        model = lpips.LPIPS(net=network, pnet_rand=True, verbose=False)
    if backbone is not None:
        _load_backbone(model.net, backbone)
    return model.eval().requires_grad_(False).to(device)


def _load_backbone(network: Any, path: Path) -> None:
    """Put torchvision classification weights into LPIPS' sliced copy of the network."""
    state = torch.load(path, map_location="cpu", weights_only=True)
    wanted = network.state_dict()
    renamed = {}
    for key in wanted:
        _, index, leaf = key.rsplit(".", 2)
        source = f"features.{index}.{leaf}"
        if source not in state or state[source].shape != wanted[key].shape:
            raise WeightsMissing(f"{path} is not the backbone LPIPS expects: no fitting {source}")
        renamed[key] = state[source]
    network.load_state_dict(renamed)
