"""Independent pieces of work over Ray's processes, or in this one: what evaluation is made of.

Each worker loads its models once and takes one piece at a time. A piece that fails is an answer,
not an end; one whose process died is given to another worker, at most ``ATTEMPTS`` times.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from fc4d_ray.config import RunSettings
from fc4d_ray.errors import FC4DError

Piece = TypeVar("Piece")

ATTEMPTS = 3


@dataclass(frozen=True)
class Finished(Generic[Piece]):
    """A piece and what became of it."""

    piece: Piece
    result: Any = None
    error_type: str | None = None
    error_message: str | None = None


MakeWorker = Callable[[], Callable[[Any], Any]]
"""Picklable: called once in each process, gives what is called with each piece."""


def scatter(
    pieces: Sequence[Piece],
    make_worker: MakeWorker,
    settings: RunSettings,
    gpus_per_worker: float = 0.0,
) -> Iterator[Finished[Piece]]:
    """Every piece exactly once, in the order they finish.

    Errors of this package become part of the answer; anything else ends the iteration.
    """
    if not pieces:
        return
    if settings.runner == "local":
        worker = make_worker()
        for piece in pieces:
            yield _answer(piece, *_work(worker, piece))
        return
    yield from _over_ray(pieces, make_worker, settings, gpus_per_worker)


def _work(worker: Callable[[Any], Any], piece: Any) -> tuple[Any, str | None, str | None]:
    try:
        return worker(piece), None, None
    except FC4DError as error:
        return None, type(error).__name__, str(error)


def _answer(piece: Piece, result: Any, error: str | None, message: str | None) -> Finished[Piece]:
    return Finished(piece, result, error, message)


class _Worker:
    """Actor: one process with its models."""

    def __init__(self, make_worker: MakeWorker, threads: int) -> None:
        from fc4d_ray.pipeline.resources import limit_threads

        limit_threads(threads)
        self._worker = make_worker()

    def work(self, piece: Any) -> tuple[Any, str | None, str | None]:
        """The piece's result, or its error's name and message."""
        return _work(self._worker, piece)


@contextlib.contextmanager
def _cluster(
    pieces: int, settings: RunSettings, gpus_per_worker: float
) -> Iterator[tuple[int, int]]:
    """Workers and threads on the cluster this process is in, the configured one, or our own.

    A joined cluster's size is its own, not this machine's: the driver may stand on a head without
    CPUs for work.
    """
    from fc4d_ray.pipeline.ray_cluster import joined, started
    from fc4d_ray.pipeline.resources import (
        allot,
        available_memory_gib,
        thread_environment,
        usable_cores,
    )

    address = settings.ray_address or os.environ.get("RAY_ADDRESS")
    if "ray" in sys.modules and sys.modules["ray"].is_initialized():
        yield _places(pieces, settings, gpus_per_worker)
    elif address:
        with joined(address):
            yield _places(pieces, settings, gpus_per_worker)
    else:
        allotment = allot(pieces, settings, usable_cores(), available_memory_gib())
        workers, threads = allotment.front_workers, allotment.threads
        with started(workers * threads, thread_environment(threads)):
            yield workers, threads


def _places(pieces: int, settings: RunSettings, gpus_per_worker: float) -> tuple[int, int]:
    """As many workers as the joined cluster has room for, and their threads."""
    import ray

    resources = ray.cluster_resources()
    threads = settings.threads or 1
    room = int(resources.get("CPU", 1) // threads)
    if gpus_per_worker > 0:
        room = min(room, int(resources.get("GPU", 0) / gpus_per_worker))
    return max(1, min(pieces, settings.workers or room)), threads


def _over_ray(
    pieces: Sequence[Piece],
    make_worker: MakeWorker,
    settings: RunSettings,
    gpus_per_worker: float,
) -> Iterator[Finished[Piece]]:
    with _cluster(len(pieces), settings, gpus_per_worker) as (count, threads):
        import ray
        from ray.exceptions import RayActorError

        actor = ray.remote(_Worker).options(num_cpus=threads, num_gpus=gpus_per_worker)
        workers = [actor.remote(make_worker, threads) for _ in range(min(count, len(pieces)))]
        waiting = [(piece, 1) for piece in reversed(pieces)]
        flying: dict[Any, tuple[Any, Piece, int]] = {}

        def send(worker: Any) -> None:
            if waiting:
                piece, attempt = waiting.pop()
                flying[worker.work.remote(piece)] = (worker, piece, attempt)

        for worker in workers:
            send(worker)
        while flying:
            (done,), _ = ray.wait(list(flying), num_returns=1)
            worker, piece, attempt = flying.pop(done)
            try:
                answer = _answer(piece, *ray.get(done))
            except RayActorError as error:
                # A new process rather than a restart: calls to an actor that restarts fail, too.
                worker = actor.remote(make_worker, threads)
                if attempt < ATTEMPTS:
                    waiting.append((piece, attempt + 1))
                    send(worker)
                    continue
                answer = Finished(piece, None, "WorkerDied", f"in {ATTEMPTS} processes: {error}")
            send(worker)
            yield answer
