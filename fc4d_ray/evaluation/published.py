"""Figures the paper prints, to stand beside ours. Read off tables 2 to 6 of arXiv 2504.15179.

Theirs are measured on 100 FFHQ portraits with checkpoints and angles the paper does not name, so
they are shown, marked as published, and never compared by test.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType


@dataclass(frozen=True)
class PublishedRow:
    """One printed line."""

    method: str
    clip_i: float
    id: float
    fid: float


PUBLISHED_ROWS: Mapping[str, tuple[PublishedRow, ...]] = MappingProxyType(
    {
        "table 2": (
            PublishedRow("GaussianCube", 0.6830, 0.4300, 258.81),
            PublishedRow("PanoHead", 0.8233, 0.4246, 195.28),
            PublishedRow("SV3D", 0.7656, 0.4331, 234.86),
            PublishedRow("Portrait3D", 0.7066, 0.3719, 302.74),
            PublishedRow("FaceCraft4D", 0.8053, 0.5082, 174.36),
        ),
        "table 3": (
            PublishedRow("AniPortrait", 0.4653, 0.4171, 364.99),
            PublishedRow("Portrait4D-v2", 0.5236, 0.4592, 248.36),
            PublishedRow("FaceCraft4D", 0.5737, 0.4602, 201.76),
        ),
        "table 4": (
            PublishedRow("no warping, no mutual attention", 0.7328, 0.4787, 182.27),
            PublishedRow("no warping", 0.7886, 0.4915, 171.08),
            PublishedRow("no mutual attention", 0.8151, 0.4951, 172.43),
            PublishedRow("full", 0.8162, 0.4984, 166.96),
        ),
        "table 5": (
            PublishedRow("no COIN", 0.7688, 0.4952, 144.95),
            PublishedRow("full", 0.7729, 0.5010, 142.80),
        ),
    }
)

PUBLISHED_HOURS: Mapping[str, float] = MappingProxyType(
    {
        "NerFace": 54,
        "IMAvatar": 48,
        "PointAvatar": 6,
        "HeadStudio": 2,
        "MonoGA": 7,
        "GaussianAvatar": 2,
        "HQ3DAvatar": 12,
        "FaceCraft4D": 2.5,
    }
)
"""Table 6: hours per avatar."""
