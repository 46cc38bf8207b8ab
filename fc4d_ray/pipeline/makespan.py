"""How long a run takes on paper: fixed pools in front, a growing number of trainings behind.

Event by event, without any overhead. A handful of portraits behaves unlike a week's work: at first
the trainings have nothing to do, in the end the front's GPUs are free for them.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class SimulatedPool:
    """Workers that take one portrait at a time."""

    size: int
    seconds: float
    """Per portrait and worker."""


def makespan_s(
    front: Sequence[SimulatedPool],
    training: SimulatedPool | None,
    portraits: int,
    training_alone: int = 0,
) -> float:
    """Seconds from the first portrait's start to the last one's end.

    ``training.size`` trainings run beside the front, ``training_alone`` (if more) once the front is
    through.
    """
    done = [0.0] * portraits
    for pool in front:
        workers = [0.0] * min(pool.size, portraits)
        for number in range(portraits):
            begin = max(heapq.heappop(workers), done[number])
            done[number] = begin + pool.seconds
            heapq.heappush(workers, done[number])
        done.sort()
    front_end = done[-1] if done else 0.0
    if training is None:
        return front_end
    slots = [0.0] * training.size + [front_end] * max(0, training_alone - training.size)
    heapq.heapify(slots)
    end = 0.0
    for ready in done:
        finish = max(heapq.heappop(slots), ready) + training.seconds
        heapq.heappush(slots, finish)
        end = max(end, finish)
    return end
