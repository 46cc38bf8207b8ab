"""How many portraits at a time, with how many threads, within the machine's memory."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass

from fc4d_ray.config import RunSettings

THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "NUMBA_NUM_THREADS",
    "RAYON_NUM_THREADS",
)


@dataclass(frozen=True)
class Allotment:
    """Processes and threads of a run."""

    front_workers: int
    training_slots: int
    threads: int


def usable_cores() -> int:
    """Cores this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return max(1, len(os.sched_getaffinity(0)))
    return max(1, os.cpu_count() or 1)


def available_memory_gib() -> float:
    """Memory that can be had without swapping; infinite where the system does not tell."""
    try:
        with open("/proc/meminfo", encoding="ascii") as file:
            for line in file:
                if line.startswith("MemAvailable:"):
                    return int(line.split()[1]) / 2**20
    except OSError:
        pass
    return float("inf")


def allot(portraits: int, settings: RunSettings, cores: int, memory_gib: float) -> Allotment:
    """Share cores and memory among the workers.

    One portrait gets all cores. Several are worked on side by side with few threads each, which is
    the more efficient use, because no stage is parallel from end to end. Front workers and
    trainings number the same, so that cores stay busy whichever of the two is slower here; memory
    bounds both together.
    """
    affordable = max(1, int(memory_gib / settings.worker_memory_gib)) if memory_gib < 1e6 else cores
    workers = settings.workers or max(1, min(portraits, cores, affordable))
    threads = settings.threads or max(1, cores // workers)
    front = workers if settings.workers else max(1, min(workers, affordable - workers))
    return Allotment(front_workers=front, training_slots=workers, threads=threads)


def thread_environment(threads: int) -> dict[str, str]:
    """Variables that limit numerical libraries loaded later; waiting threads sleep, not spin."""
    variables = dict.fromkeys(THREAD_VARIABLES, str(threads))
    return variables | {"OMP_WAIT_POLICY": "PASSIVE", "KMP_BLOCKTIME": "0"}


def limit_threads(threads: int) -> None:
    """Limit the numerical libraries of this process, loaded or not."""
    os.environ.update(thread_environment(threads))
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(threads)
    if "numba" in sys.modules:
        numba = sys.modules["numba"]
        numba.set_num_threads(min(threads, numba.config.NUMBA_NUM_THREADS))
    if "cv2" in sys.modules:
        sys.modules["cv2"].setNumThreads(threads)
