"""The front stages on Ray Data: one Dataset over fixed pools of actors, for some portraits.

One row per block and one task in flight per actor keep a crash from taking innocent rows along.
Rows hold ids and addresses only. A job can be told to drain: portraits that nobody has begun come
back at once, so that the next job can have pools that suit a changed cluster.
"""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from fc4d_ray.pipeline.capacity import Pool
from fc4d_ray.pipeline.portrait import Outcome, Portrait
from fc4d_ray.pipeline.ray_workers import ROW, FrontActor, WorkerSpec

ACCELERATOR_LABEL = "ray.io/accelerator-type"


@dataclass
class FrontJob:
    """One Dataset under way, in a thread of its own."""

    number: int
    pools: tuple[Pool, ...]
    left: dict[str, Portrait]
    """Portraits that have not come out yet."""
    arrivals: queue.SimpleQueue[Outcome] = field(default_factory=queue.SimpleQueue)
    passed: dict[str, set[str]] = field(default_factory=dict)
    """By stage: portraits that are through it."""
    error: BaseException | None = None
    """What broke the Dataset."""
    _thread: threading.Thread | None = None

    def start(self, spec: Callable[[tuple[str, ...]], WorkerSpec]) -> None:
        """Build the Dataset and run it; ``spec`` gives a worker for a group of stages."""
        dataset = _dataset(self, spec)
        self._thread = threading.Thread(target=self._feed, args=(dataset,), daemon=True)
        self._thread.start()

    @property
    def is_over(self) -> bool:
        """Whether everything that will ever come has come and was taken."""
        thread_ended = self._thread is not None and not self._thread.is_alive()
        return thread_ended and self.arrivals.empty()

    def note(self, avatar_id: str, stage: str) -> None:
        """A portrait is through a stage."""
        self.passed.setdefault(stage, set()).add(avatar_id)

    def working_pools(self) -> tuple[Pool, ...]:
        """Pools that still have portraits to come; Ray Data gives the others' GPUs back."""
        return tuple(
            pool
            for pool in self.pools
            if not self.left.keys() <= self.passed.get(pool.needs.stages[-1], set())
        )

    def take(self) -> list[Outcome]:
        """Outcomes since the last call."""
        taken: list[Outcome] = []
        while True:
            try:
                outcome = self.arrivals.get_nowait()
            except queue.Empty:
                return taken
            # A row may come twice where a lost node's blocks were made again.
            if self.left.pop(outcome.portrait.avatar_id, None) is not None:
                taken.append(outcome)

    def _feed(self, dataset: Any) -> None:
        """Thread: hand rows over one by one, each as soon as it is there."""
        try:
            batches = dataset.iter_batches(
                batch_size=None, batch_format="pyarrow", prefetch_batches=0
            )
            for batch in batches:
                for text in batch[ROW].to_pylist():
                    self.arrivals.put(Outcome.from_text(text))
        except BaseException as error:
            self.error = error


def _dataset(job: FrontJob, spec: Callable[[tuple[str, ...]], WorkerSpec]) -> Any:
    import ray

    _configure(job.pools)
    rows = [{ROW: Outcome(portrait, "running").to_text()} for portrait in job.left.values()]
    dataset = ray.data.from_items(rows, override_num_blocks=len(rows))
    # Making a Dataset configures Ray Data's loggers, hence not earlier.
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    for place, pool in enumerate(job.pools):
        dataset = dataset.map(
            FrontActor,
            compute=ray.data.ActorPoolStrategy(
                size=min(pool.size, len(rows)), max_tasks_in_flight_per_actor=1
            ),
            fn_constructor_kwargs={
                "spec": spec(pool.needs.stages),
                "drains": job.number if place == 0 else None,
            },
            **resources_of(pool),
        )
    return dataset


def resources_of(pool: Pool) -> dict[str, Any]:
    """Ray's options for one worker of a pool."""
    needs = pool.needs
    # Without a word about CPUs Ray would take one for each.
    options: dict[str, Any] = {"num_cpus": needs.cpus}
    if needs.gpus:
        options["num_gpus"] = needs.gpus
    if needs.memory_gib:
        options["memory"] = int(needs.memory_gib * 2**30)
    if needs.kinds:
        options["label_selector"] = {ACCELERATOR_LABEL: f"in({','.join(needs.kinds)})"}
    return options


def _configure(pools: Sequence[Pool]) -> None:
    """Ray Data's settings; they count from the making of a Dataset."""
    import ray

    context = ray.data.DataContext.get_current()
    context.execution_no_progress_timeout_s = -1
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    context.execution_options.resource_limits = ray.data.ExecutionResources(
        cpu=max(1.0, sum(pool.size * pool.needs.cpus for pool in pools)),
        gpu=sum(pool.size * pool.needs.gpus for pool in pools),
    )
