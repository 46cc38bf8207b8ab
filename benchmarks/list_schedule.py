"""Ideal schedules of the pipeline on paper, without pools and without overhead.

Event-driven list scheduling: whenever something ends, whatever is ready and fits is started, on any
GPU, as if every model were loaded everywhere. Times are in any unit.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass

_EPSILON = 1e-9


@dataclass(frozen=True)
class SimulatedStage:
    """One stage: its time on a portrait and the share of a GPU it holds meanwhile."""

    seconds: float
    share: float


def ideal_makespan(stages: Sequence[SimulatedStage], portraits: int, gpus: int) -> float:
    """The shorter of the list schedules that prefer earlier stages and later stages."""
    orders = (range(len(stages)), range(len(stages) - 1, -1, -1))
    return min(_list_schedule(stages, portraits, gpus, order) for order in orders)


def work_bound(stages: Sequence[SimulatedStage], portraits: int, gpus: int) -> float:
    """No schedule is shorter: all GPU time that must be spent, on all GPUs without a gap."""
    work = portraits * sum(stage.seconds * stage.share for stage in stages) / gpus
    return max(work, sum(stage.seconds for stage in stages))


def _list_schedule(
    stages: Sequence[SimulatedStage], portraits: int, gpus: int, preference: Sequence[int]
) -> float:
    ready = [portraits] + [0] * (len(stages) - 1)
    free = [1.0] * gpus
    running: list[tuple[float, int, int]] = []
    now = 0.0
    while any(ready) or running:
        for number in preference:
            while ready[number]:
                fitting = [g for g in range(gpus) if free[g] >= stages[number].share - _EPSILON]
                if not fitting:
                    break
                gpu = min(fitting, key=free.__getitem__)
                free[gpu] -= stages[number].share
                ready[number] -= 1
                heapq.heappush(running, (now + stages[number].seconds, number, gpu))
        now, number, gpu = heapq.heappop(running)
        free[gpu] += stages[number].share
        if number + 1 < len(stages):
            ready[number + 1] += 1
    return now
