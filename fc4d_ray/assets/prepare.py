"""Builds what is made once per machine, before workers would all build it at the same time."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from fc4d_ray.assets.registry import require_asset
from fc4d_ray.heads.anny import cache_path, load_anny_head

Report = Callable[[str], None]


def prepare_caches(report: Report = lambda text: None) -> list[Path]:
    """Make the compact head model from ``anny``, unless it is there; returns the files.

    Raises:
        WeightsMissing: ``anny`` is not installed.
    """
    path = cache_path()
    if not path.is_file():
        require_asset("anny")
        report(f"building the head model, about a minute, once per machine: {path}")
        load_anny_head()
    return [path]
