"""The order in which views are made, and which finished views each may look at.

First the back of the head, without a source; then waves outwards from both anchors, the reference
and the back, left and right in step (paper section 3.2: "adjacent view", "repeated for the other
azimuths").
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

Propagation = Literal["neighbour", "anchors"]
ANCHOR_REFERENCE = -1
"""The portrait itself as a source; views are numbered from 0."""
_BESIDE = 0.25
"""Views nearer to the reference than this share of the smallest step have no side."""


@dataclass(frozen=True)
class ViewTask:
    """A view to make, and its sources in order of preference: reference, back, then neighbours."""

    view: int
    sources: tuple[int, ...]


@dataclass(frozen=True)
class WavePlan:
    """Waves in order; a wave's sources are finished before it."""

    back: int
    waves: tuple[tuple[ViewTask, ...], ...]


def plan_waves(
    azimuths_deg: Sequence[float],
    reference_azimuth_deg: float = 0.0,
    propagation: Propagation = "neighbour",
    *,
    warping: bool = True,
) -> WavePlan:
    """The plan for views at any azimuths, evenly spread or not, even or odd in number.

    Without ``warping`` nobody waits for anybody: the back, then all the rest without sources.
    Raises ``ValueError`` for no views or for two views at one azimuth.
    """
    turns = [_turn(azimuth, reference_azimuth_deg) for azimuth in azimuths_deg]
    if not turns:
        raise ValueError("there are no views to plan for")
    step = _smallest_step(turns)
    if step == 0:
        raise ValueError(f"two views have the same azimuth: {sorted(azimuths_deg)}")
    # Of two views equally far behind, the one on the subject's left is the back.
    back = max(range(len(turns)), key=lambda i: (round(abs(turns[i]), 6), turns[i]))
    others = [i for i in range(len(turns)) if i != back]
    first = (ViewTask(back, ()),)
    if not others:
        return WavePlan(back, (first,))
    if not warping:
        return WavePlan(back, (first, tuple(ViewTask(view, ()) for view in others)))
    if propagation == "anchors":
        tasks = tuple(ViewTask(view, (ANCHOR_REFERENCE, back)) for view in others)
        return WavePlan(back, (first, tasks))
    beside = [view for view in others if abs(turns[view]) < _BESIDE * step]
    left = sorted((v for v in others if v not in beside and turns[v] > 0), key=lambda v: turns[v])
    right = sorted((v for v in others if v not in beside and turns[v] < 0), key=lambda v: -turns[v])
    waves = [_side_waves(side, back) for side in (left, right)]
    merged = []
    for index in range(max((len(side) for side in waves), default=0)):
        merged.append([task for side in waves if index < len(side) for task in side[index]])
    if beside:
        tasks = [ViewTask(view, (ANCHOR_REFERENCE,)) for view in beside]
        merged = [tasks + merged[0], *merged[1:]] if merged else [tasks]
    return WavePlan(back, (first, *(tuple(wave) for wave in merged)))


def _side_waves(side: list[int], back: int) -> list[list[ViewTask]]:
    """Waves of one side, its views sorted from the reference to the back."""
    waves = []
    before, behind = ANCHOR_REFERENCE, back
    remaining = list(side)
    while remaining:
        front = remaining.pop(0)
        if not remaining:
            waves.append([ViewTask(front, _sources(before, behind, back))])
            break
        rear = remaining.pop()
        waves.append(
            [ViewTask(front, _sources(before, None, back)), ViewTask(rear, _rear(behind, back))]
        )
        before, behind = front, rear
    return waves


def _sources(before: int, behind: int | None, back: int) -> tuple[int, ...]:
    """Anchors first, then neighbours, none twice. ``behind`` is given where two fronts meet."""
    anchors = [ANCHOR_REFERENCE] if behind is None else [ANCHOR_REFERENCE, back]
    neighbours = [before] if behind is None else [before, behind]
    return tuple(dict.fromkeys(anchors + neighbours))


def _rear(behind: int, back: int) -> tuple[int, ...]:
    return tuple(dict.fromkeys([back, behind]))


def _turn(azimuth_deg: float, reference_deg: float) -> float:
    """Azimuth seen from the reference, in (-180, 180]."""
    turn = (azimuth_deg - reference_deg) % 360.0
    return turn - 360.0 if turn > 180.0 else turn


def _smallest_step(turns: list[float]) -> float:
    """The smallest angle between two views, 360 for a single one."""
    ordered = sorted(turn % 360.0 for turn in turns)
    steps = [b - a for a, b in pairwise(ordered)]
    return min([*steps, 360.0 - (ordered[-1] - ordered[0])])
