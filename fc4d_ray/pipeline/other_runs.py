"""Whether other drivers are at work on the same output."""

from __future__ import annotations

import time
from collections.abc import Callable

from fc4d_ray.store.filesystem import Storage

_LOOK_AGAIN_SECONDS = 30.0


def other_runs(storage: Storage) -> Callable[[str], bool]:
    """Function that tells of a run's id whether it gives signs of life.

    The run documents are looked at when somebody asks, at most twice a minute.
    """
    known: set[str] = set()
    looked_at = float("-inf")

    def is_alive(run_id: str) -> bool:
        nonlocal known, looked_at
        if time.monotonic() - looked_at > _LOOK_AGAIN_SECONDS:
            from fc4d_ray.pipeline.status import running_runs

            known, looked_at = set(running_runs(storage)), time.monotonic()
        return run_id in known

    return is_alive
