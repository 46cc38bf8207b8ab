from __future__ import annotations

import pytest

from fc4d_ray.config import RunSettings
from fc4d_ray.pipeline.resources import Allotment, allot


@pytest.mark.parametrize(
    ("portraits", "cores", "memory_gib", "expected"),
    [
        (1, 2, 16, Allotment(front_workers=1, training_slots=1, threads=2)),
        (9, 2, 16, Allotment(front_workers=2, training_slots=2, threads=1)),
        (9, 2, 10, Allotment(front_workers=1, training_slots=2, threads=1)),
        (9, 2, 4, Allotment(front_workers=1, training_slots=1, threads=2)),
        (9, 2, 1, Allotment(front_workers=1, training_slots=1, threads=2)),
        (3, 16, 999, Allotment(front_workers=3, training_slots=3, threads=5)),
        (99, 16, 40, Allotment(front_workers=1, training_slots=10, threads=1)),
    ],
)
def test_cores_and_memory_are_shared(
    portraits: int, cores: int, memory_gib: float, expected: Allotment
) -> None:
    assert allot(portraits, RunSettings(), cores, memory_gib) == expected


def test_the_user_s_word_counts() -> None:
    found = allot(9, RunSettings(workers=3, threads=4), 2, 8)
    assert found == Allotment(front_workers=3, training_slots=3, threads=4)
