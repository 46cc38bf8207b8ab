"""Threads for numba kernels that release the GIL.

Kernels here are compiled with ``nogil=True`` and run on plain Python threads, each on its own
piece of the work, instead of on one of numba's threading layers. Those do not fit this program:
``workqueue`` aborts the process when two threads enter kernels at once, ``omp`` shares torch's
runtime and then used one core, ``tbb`` is rarely installed. It also spares the (long) compilation
of parallel loops.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache

import torch


def thread_count() -> int:
    """How many threads kernels use: torch's intra-op setting, so one knob governs both."""
    return torch.get_num_threads()


def run_pieces(kernel: Callable[[int], None], n_pieces: int) -> None:
    """Call ``kernel(piece)`` for every piece in ``range(n_pieces)``, in any order.

    Pieces must write to disjoint places; whoever is free takes the next one. The calling thread
    takes part. The first exception of a piece is raised after all threads have stopped.
    """
    n_helpers = min(thread_count(), n_pieces) - 1
    if n_helpers <= 0:
        for piece in range(n_pieces):
            kernel(piece)
        return
    pending = iter(range(n_pieces))  # next() is atomic: it runs under the GIL

    def work() -> None:
        for piece in pending:
            kernel(piece)

    pool = _pool(os.getpid(), n_helpers)
    helpers = [pool.submit(work) for _ in range(n_helpers)]
    try:
        work()
    finally:
        for helper in helpers:
            helper.result()


@lru_cache(maxsize=4)
def _pool(pid: int, n_threads: int) -> ThreadPoolExecutor:
    """Idle threads kept between calls; keyed by process because threads do not survive a fork."""
    return ThreadPoolExecutor(n_threads, thread_name_prefix=f"fc4d-kernel-{pid}")
