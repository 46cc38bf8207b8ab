"""The pipeline on Ray: front stages as a Dataset over actors, trainings as tasks.

Why it is built like this, with measurements: docs/operations.md. One row per block and one task in
flight per actor keep a crash from taking innocent rows along; trainings are admitted by hand, so
that they follow the cluster's size and every free slot is used.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from fc4d_ray import errors
from fc4d_ray.errors import ConfigError, FC4DError, RunError, StageFailed
from fc4d_ray.pipeline.ray_cluster import Cluster, connected
from fc4d_ray.pipeline.ray_workers import ROW, FrontActor, ProgressBoard, WorkerSpec, train
from fc4d_ray.pipeline.worker import Outcome, Portrait, record_failure

if TYPE_CHECKING:
    from fc4d_ray.pipeline.run import RunSession

_POLL_SECONDS = 0.2
_CRASHES_BEFORE_THE_LEDGER = 10
"""Lost processes of one portrait after which something other than the portrait must be wrong."""


class DeadlineExceeded(StageFailed):
    """A stage of a training ran longer than ``run.deadline_minutes``."""


def run_on_ray(session: RunSession) -> None:
    """Do the session's portraits on a Ray cluster."""
    groups = _front_groups(session)
    with connected(len(session.portraits), session.config.run) as cluster:
        session.stop.install()
        _RayRun(session, cluster, groups).execute()


def _front_groups(session: RunSession) -> tuple[tuple[str, ...], ...]:
    """Stages of each front worker; by default all front stages share one."""
    front = tuple(stage.name for stage in session.plan.part("front"))
    groups = session.config.run.front_groups
    if not groups:
        return (front,) if front else ()
    if tuple(name for group in groups for name in group) != front or not all(groups):
        raise ConfigError(
            f"run.front_groups must hold the front stages {', '.join(front)} once and in order, "
            f"found {[list(group) for group in groups]}"
        )
    return groups


@dataclass
class _Training:
    """A training under way."""

    portrait: Portrait
    crashes: int = 0


@dataclass
class _RayRun:
    """State of one run's loop; everything happens in the driver's main thread but the feeding."""

    session: RunSession
    cluster: Cluster
    groups: tuple[tuple[str, ...], ...]
    trainings: dict[Any, _Training] = field(default_factory=dict)
    """By object reference."""
    waiting: list[_Training] = field(default_factory=list)
    """Portraits through the front, not yet handed to Ray."""
    arrivals: queue.SimpleQueue[Outcome | BaseException | None] = field(
        default_factory=queue.SimpleQueue
    )
    """From the front: outcomes, what broke it, None when it is through."""
    front_is_open: bool = True

    def execute(self) -> None:
        import ray

        self.board = ray.remote(num_cpus=0)(ProgressBoard).remote()
        training_names = tuple(stage.name for stage in self.session.plan.part("training"))
        self.training_spec = ray.put(self._spec(training_names)) if training_names else None
        self.first_training = training_names[0] if training_names else ""
        self._open_front()
        try:
            while self.front_is_open or self.waiting or self.trainings:
                if self.session.stop.requested.is_set():
                    break
                self._take_arrivals()
                self._submit()
                self._collect()
                self._cancel_overdue()
                self._take_reports()
        finally:
            self._take_reports()
            for reference in self.trainings:
                ray.cancel(reference, force=True)
            ray.kill(self.board)

    def _spec(self, stage_names: tuple[str, ...]) -> WorkerSpec:
        return WorkerSpec(
            run_id=self.session.run_id,
            storage=self.session.storage,
            plan=self.session.plan,
            stage_names=stage_names,
            threads=self.cluster.allotment.threads,
            board=self.board,
        )

    def _open_front(self) -> None:
        if not self.groups:
            for portrait in self.session.portraits:
                self.arrivals.put(Outcome(portrait, "running"))
            self.arrivals.put(None)
            return
        threading.Thread(target=self._feed, args=(self._dataset(),), daemon=True).start()

    def _dataset(self) -> Any:
        import ray

        settings, allotment = self.session.config.run, self.cluster.allotment
        front_workers = allotment.front_workers * len(self.groups)
        context = ray.data.DataContext.get_current()
        context.execution_no_progress_timeout_s = -1
        context.enable_progress_bars = False
        context.print_on_execution_start = False
        context.execution_options.resource_limits = ray.data.ExecutionResources(
            cpu=max(1, front_workers * allotment.threads),
            gpu=front_workers * settings.gpus_per_front_worker,
        )
        rows = [{ROW: Outcome(p, "running").to_text()} for p in self.session.portraits]
        dataset = ray.data.from_items(rows, override_num_blocks=len(rows))
        for group in self.groups:
            shares: dict[str, float] = {"num_cpus": allotment.threads}
            if settings.gpus_per_front_worker:
                shares = {"num_gpus": settings.gpus_per_front_worker}
            dataset = dataset.map(
                FrontActor,
                compute=ray.data.ActorPoolStrategy(
                    size=min(allotment.front_workers, len(rows)), max_tasks_in_flight_per_actor=1
                ),
                fn_constructor_kwargs={"spec": self._spec(group)},
                **shares,
            )
        # Making a Dataset configures Ray Data's loggers, hence not earlier.
        logging.getLogger("ray.data").setLevel(logging.ERROR)
        return dataset

    def _feed(self, dataset: Any) -> None:
        """Thread: hand the front's rows over one by one, each as soon as it is there."""
        try:
            batches = dataset.iter_batches(
                batch_size=None, batch_format="pyarrow", prefetch_batches=0
            )
            for batch in batches:
                for text in batch[ROW].to_pylist():
                    self.arrivals.put(Outcome.from_text(text))
        except BaseException as error:
            self.arrivals.put(error)
        self.arrivals.put(None)

    def _take_arrivals(self) -> None:
        while True:
            try:
                arrival = self.arrivals.get_nowait()
            except queue.Empty:
                return
            if arrival is None:
                self.front_is_open = False
            elif isinstance(arrival, BaseException):
                raise RunError(f"the front stages broke down: {arrival}") from arrival
            elif arrival.status == "running" and self.training_spec is not None:
                self.waiting.append(_Training(arrival.portrait))
            else:
                self._settle(arrival)

    def _settle(self, outcome: Outcome) -> None:
        if outcome.status == "aborted":
            kind = getattr(errors, outcome.error_type or "", RunError)
            is_ours = isinstance(kind, type) and issubclass(kind, FC4DError)
            raise (kind if is_ours else RunError)(outcome.error_message)
        self.session.portrait_ended(outcome)

    def _submit(self) -> None:
        """Keep every training slot busy, and a few more at hand."""
        import ray

        settings = self.session.config.run
        if not self.waiting:
            return
        room = self._slots() + settings.training_reserve - len(self.trainings)
        shares: dict[str, float] = {"num_cpus": self.cluster.allotment.threads}
        if settings.gpus_per_training:
            shares = {"num_cpus": 0, "num_gpus": settings.gpus_per_training}
        remote = ray.remote(max_retries=0, **shares)(train)
        for training in self.waiting[: max(0, room)]:
            self.trainings[remote.remote(self.training_spec, training.portrait)] = training
        del self.waiting[: max(0, room)]

    def _slots(self) -> int:
        """Trainings that can run now; nodes may have come or gone."""
        import ray

        settings, allotment = self.session.config.run, self.cluster.allotment
        resources = ray.cluster_resources()
        front = allotment.front_workers * len(self.groups) if self.front_is_open else 0
        if settings.gpus_per_training:
            free = resources.get("GPU", 0) - front * settings.gpus_per_front_worker
            return max(1, int(free / settings.gpus_per_training))
        if self.cluster.is_ours:
            return allotment.training_slots
        free = resources.get("CPU", 0) - front * allotment.threads
        return max(1, int(free / allotment.threads))

    def _collect(self) -> None:
        import ray

        if not self.trainings:
            time.sleep(_POLL_SECONDS)
            return
        ready, _ = ray.wait(
            list(self.trainings), num_returns=len(self.trainings), timeout=_POLL_SECONDS
        )
        if ready:
            self._take_reports()
        for reference in ready:
            training = self.trainings.pop(reference)
            try:
                outcome = ray.get(reference)
            except ray.exceptions.RayTaskError as error:
                raise RunError(f"a training broke down: {error}") from error
            except ray.exceptions.RayError as error:
                self._try_again(training, error)
            else:
                self._settle(outcome)

    def _try_again(self, training: _Training, error: Exception) -> None:
        """The process is gone; whether the portrait is to blame, the ledger decides."""
        training.crashes += 1
        if training.crashes >= _CRASHES_BEFORE_THE_LEDGER:
            raise RunError(
                f"training processes die again and again, last: {type(error).__name__}: {error}"
            ) from error
        self.waiting.insert(0, training)

    def _cancel_overdue(self) -> None:
        import ray

        deadline_s = self.session.config.run.deadline_minutes * 60
        now = time.time()
        for reference, training in list(self.trainings.items()):
            started = self.session.progress.running_since(training.portrait.avatar_id)
            if started is None or now - started < deadline_s:
                continue
            ray.cancel(reference, force=True)
            del self.trainings[reference]
            error = DeadlineExceeded(
                f"training took longer than run.deadline_minutes = {deadline_s / 60:g}"
            )
            outcome = record_failure(
                self.session.storage,
                self.session.plan,
                training.portrait,
                self.first_training,
                error,
            )
            self._settle(outcome)

    def _take_reports(self) -> None:
        import ray

        try:
            events = ray.get(self.board.drain.remote(), timeout=5)
        except ray.exceptions.RayError:
            return
        for event in events:
            self.session.stage_event(*event)
