"""Trainings as Ray tasks of their own, admitted so that every slot of the cluster is used.

Ray Data fills only part of the slots while its other operators run (docs/operations.md has the
measurements). Here a few more trainings than can run are handed to Ray, so that none of the slots
waits and the autoscaler sees demand; each runs in a fresh process, which gives the GPU's memory
back, and goes on from its checkpoint after its machine was lost.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from fc4d_ray.errors import RunError
from fc4d_ray.pipeline.deadline import GRACE_SECONDS
from fc4d_ray.pipeline.portrait import Outcome, Portrait
from fc4d_ray.pipeline.ray_workers import train

_CRASHES_ALLOWED = 30
"""Lost processes of one portrait after which something else than the portrait must be wrong: the
attempt ledger quarantines after three that were the portrait's own."""


@dataclass
class _Training:
    """A training, waiting or under way."""

    portrait: Portrait
    crashes: int = 0


@dataclass
class Trainings:
    """The trainings of a run."""

    spec: Any
    """Reference to the workers' ``WorkerSpec`` in Ray's object store."""
    resources: dict[str, Any]
    """Ray's options for one training."""
    waiting: deque[_Training] = field(default_factory=deque)
    running: dict[Any, _Training] = field(default_factory=dict)
    """By object reference; includes those that Ray has not started yet."""

    def __len__(self) -> int:
        return len(self.waiting) + len(self.running)

    def add(self, portrait: Portrait) -> None:
        """A portrait is through the front."""
        self.waiting.append(_Training(portrait))

    def submit(self, limit: int) -> None:
        """Hand trainings to Ray until so many are there."""
        import ray

        if not self.waiting or len(self.running) >= limit:
            return
        # A retry by Ray would hide from us that the process died.
        remote = ray.remote(max_retries=0, **self.resources)(train)
        while self.waiting and len(self.running) < limit:
            training = self.waiting.popleft()
            self.running[remote.remote(self.spec, training.portrait)] = training

    def collect(self, timeout_s: float) -> Iterator[Outcome]:
        """Wait for trainings to end; those whose process died are put back in front."""
        import ray

        if not self.running:
            time.sleep(timeout_s)
            return
        ready, _ = ray.wait(list(self.running), num_returns=1, timeout=timeout_s)
        if ready:
            ready, _ = ray.wait(list(self.running), num_returns=len(self.running), timeout=0)
        for reference in ready:
            training = self.running.pop(reference)
            try:
                yield ray.get(reference)
            except ray.exceptions.RayTaskError as error:
                raise RunError(f"a training broke down: {error}") from error
            except ray.exceptions.RayError as error:
                self._try_again(training, error)

    def _try_again(self, training: _Training, error: Exception) -> None:
        """The process is gone; whether the portrait is to blame, the ledger decides."""
        training.crashes += 1
        if training.crashes >= _CRASHES_ALLOWED:
            raise RunError(
                f"training processes die again and again, last: {type(error).__name__}: {error}"
            ) from error
        self.waiting.appendleft(training)

    def overdue(self, running_since: Any, deadline_s: float) -> Iterator[Portrait]:
        """Stop trainings whose process did not end itself at its deadline, and name them."""
        import ray

        limit_s = deadline_s + 2 * GRACE_SECONDS
        for reference, training in list(self.running.items()):
            started = running_since(training.portrait.avatar_id)
            if started is not None and time.time() - started > limit_s:
                ray.cancel(reference, force=True)
                del self.running[reference]
                yield training.portrait

    def cancel(self) -> None:
        """Stop everything that runs."""
        import ray

        for reference in self.running:
            ray.cancel(reference, force=True)
