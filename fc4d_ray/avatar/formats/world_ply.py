"""World-space splat files, as viewers and editors of 3DGS read them."""

from __future__ import annotations

from pathlib import Path

import torch

from fc4d_ray.avatar.binding import WorldSplats
from fc4d_ray.avatar.formats.splat_table import read_splat_table, write_splat_table

_OPACITY_MARGIN = 1e-6
"""Opacities are kept this far from 0 and 1, whose logits are infinite."""


def write_world_ply(path: Path, splats: WorldSplats) -> None:
    """Write one frame: 62 floats per splat, degree 3 whatever the avatar's own, no comments."""
    opacity = splats.opacities.clamp(_OPACITY_MARGIN, 1 - _OPACITY_MARGIN)
    columns = {
        "positions": splats.means,
        "sh0": splats.sh0,
        "shN": splats.shN,
        "opacity_logits": torch.logit(opacity),
        "log_scales": splats.scales.clamp_min(1e-12).log(),
        "quats": splats.quats,
    }
    write_splat_table(path, **{n: tensor.detach().cpu().numpy() for n, tensor in columns.items()})


def read_world_ply(path: Path) -> WorldSplats:
    """Inverse of ``write_world_ply``; reads other programs' files of any degree, too."""
    columns = {name: torch.from_numpy(array) for name, array in read_splat_table(path).items()}
    return WorldSplats(
        means=columns["positions"],
        quats=torch.nn.functional.normalize(columns["quats"], dim=-1),
        scales=columns["log_scales"].exp(),
        opacities=columns["opacity_logits"].sigmoid(),
        sh0=columns["sh0"],
        shN=columns["shN"],
    )
