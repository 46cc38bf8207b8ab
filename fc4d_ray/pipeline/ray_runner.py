"""The pipeline on Ray: front stages as Datasets over actors, trainings as tasks.

The driver's main thread decides everything, in one loop: which portraits go into the front next,
how many trainings Ray holds, what a change of the cluster means. Why it is built like this, with
measurements: docs/operations.md.
"""

from __future__ import annotations

import heapq
import itertools
import logging
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from fc4d_ray import errors
from fc4d_ray.errors import DeadlineExceeded, FC4DError, RunError
from fc4d_ray.pipeline.capacity import Pool
from fc4d_ray.pipeline.failures import record_failure
from fc4d_ray.pipeline.portrait import Outcome, Portrait
from fc4d_ray.pipeline.progress import Crew
from fc4d_ray.pipeline.ray_cluster import Cluster, connected
from fc4d_ray.pipeline.ray_front import FrontJob, resources_of
from fc4d_ray.pipeline.ray_trainings import Trainings
from fc4d_ray.pipeline.ray_workers import ProgressBoard, WorkerSpec

if TYPE_CHECKING:
    from fc4d_ray.pipeline.run import RunSession

_POLL_SECONDS = 0.2
_NODES_SECONDS = 2.0
_BROKEN_JOBS_ALLOWED = 5
"""Datasets that may break one after another without a single portrait coming through."""
_RETURNS_ALLOWED = 5
_POSTPONED_S = 5.0
_POSTPONED_LONGEST_S = 300.0
_TROUBLES_ALLOWED = 40
"""Postponed portraits in a row, with none that ended in between, until the run gives up."""

_log = logging.getLogger(__name__)


def run_on_ray(session: RunSession) -> None:
    """Do the session's portraits on a Ray cluster."""
    with connected(session) as cluster:
        session.stop.install()
        _RayRun(session, cluster).execute()


@dataclass
class _RayRun:
    """State of one run's loop."""

    session: RunSession
    cluster: Cluster
    job: FrontJob | None = None
    turn: int = 0
    """Front pool whose turn it is, where pools take turns; the number of pools: the trainings'."""
    waiting: deque[Portrait] = field(default_factory=deque)
    """Portraits for the front, before those of ``fresh``."""
    between: list[Portrait] = field(default_factory=list)
    """Portraits through one pool and waiting for the next one's turn."""
    later: list[tuple[float, int, Portrait, bool]] = field(default_factory=list)
    """Heap of postponed portraits: when, tie-breaker, portrait, whether its training is next."""
    returns: dict[str, int] = field(default_factory=dict)
    troubles: int = 0
    broken_jobs: int = 0
    next_look_at_nodes: float = 0.0
    numbers: Iterator[int] = field(default_factory=itertools.count)

    def execute(self) -> None:
        import ray
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        here = ray.get_runtime_context().get_node_id()
        self.board = (
            ray.remote(ProgressBoard)
            .options(
                num_cpus=0,
                max_restarts=-1,
                scheduling_strategy=NodeAffinitySchedulingStrategy(here, soft=False),
            )
            .remote()
        )
        self.fresh = iter(self.session.portraits)
        self.has_fresh = True
        self.trainings = self._make_trainings()
        self._tell_crews()
        try:
            while not self._is_over() and not self.session.stop.requested.is_set():
                self._look_at_nodes()
                self._take_postponed()
                self._take_arrivals()
                self._run_front()
                self._run_trainings()
                self._take_reports()
        finally:
            self._take_reports()
            self.trainings.cancel()
            ray.kill(self.board)

    def _is_over(self) -> bool:
        waiting = self.job or self.has_fresh or self.waiting or self.between or self.later
        return not waiting and not self.trainings

    def _make_trainings(self) -> Trainings:
        import ray

        training = self.cluster.capacity.training
        if training is None:
            return Trainings(None, {})
        return Trainings(ray.put(self._spec(training.needs.stages)), resources_of(training))

    def _spec(self, stage_names: tuple[str, ...]) -> WorkerSpec:
        return WorkerSpec(
            run_id=self.session.run_id,
            storage=self.session.storage,
            plan=self.session.plan,
            stage_names=stage_names,
            threads=self.cluster.threads,
            board=self.board,
        )

    # -- the cluster ---------------------------------------------------------------------------

    def _look_at_nodes(self) -> None:
        """Follow nodes that come and go: slots at once, front pools with the next job."""
        if time.monotonic() < self.next_look_at_nodes:
            return
        self.next_look_at_nodes = time.monotonic() + _NODES_SECONDS
        if not self.cluster.look_again():
            return
        self.session.say(f"the cluster has changed: {self.cluster.hardware.describe()}")
        self._tell_crews()
        if self.job is not None and self._sizes(self.job.pools) != self._sizes(self._pools()):
            self.board.drain.remote(self.job.number)

    def _tell_crews(self) -> None:
        """What the progress compares the throughput with."""
        self.session.progress.crews = tuple(
            Crew(pool.needs.stages, pool.size, pool.needs.gpus)
            for pool in self.cluster.capacity.pools
        )

    @staticmethod
    def _sizes(pools: tuple[Pool, ...]) -> dict[str, int]:
        return {pool.needs.name: pool.size for pool in pools}

    # -- the front -----------------------------------------------------------------------------

    def _pools(self) -> tuple[Pool, ...]:
        """Front pools of the next job."""
        front = self.cluster.capacity.front
        return front[self.turn : self.turn + 1] if self.cluster.capacity.takes_turns else front

    def _run_front(self) -> None:
        if self.job is not None and self.job.is_over:
            self._end_job(self.job)
        if self.job is None:
            self._start_job()

    def _start_job(self) -> None:
        capacity = self.cluster.capacity
        if not capacity.front:
            for portrait in self._take_portraits(self.session.config.run.front_portraits):
                self.trainings.add(portrait)
            return
        if capacity.takes_turns:
            portraits = self._portraits_of_turn()
        elif len(self.trainings) >= self._backlog():
            return
        else:
            portraits = self._take_portraits()
        if not portraits:
            return
        left = {portrait.avatar_id: portrait for portrait in portraits}
        self.job = FrontJob(next(self.numbers), self._pools(), left)
        self.job.start(self._spec)

    def _portraits_of_turn(self) -> list[Portrait]:
        """What the pool whose turn it is works on; passes the turn on where that is nothing."""
        if self.turn >= len(self.cluster.capacity.front):
            if self.trainings:
                return []
            self.turn = 0
        if self.turn:
            portraits, self.between = self.between, []
        else:
            portraits = self._take_portraits()
        if not portraits and (self.turn or self.between or self.trainings):
            self.turn += 1
        return portraits

    def _backlog(self) -> int:
        """Portraits waiting for their training at which the front pauses, to bound the storage."""
        return max(2 * self.cluster.slots, self.session.config.run.front_portraits // 2)

    def _take_portraits(self, count: int | None = None) -> list[Portrait]:
        limit = count or self.session.config.run.front_portraits
        taken: list[Portrait] = []
        while self.waiting and len(taken) < limit:
            taken.append(self.waiting.popleft())
        if self.has_fresh and len(taken) < limit:
            wanted = limit - len(taken)
            fresh = list(itertools.islice(self.fresh, wanted))
            self.has_fresh = len(fresh) == wanted
            taken += fresh
        return taken

    def _take_arrivals(self) -> None:
        if self.job is None:
            return
        for outcome in self.job.take():
            self.broken_jobs = 0
            if outcome.status == "running":
                self._note_cost(outcome)
                self._pass_on(outcome.portrait)
            else:
                self._settle(outcome, in_training=False)

    def _pass_on(self, portrait: Portrait) -> None:
        """A portrait has gone through the job's pools."""
        capacity = self.cluster.capacity
        if capacity.takes_turns and self.turn + 1 < len(capacity.front):
            self.between.append(portrait)
        else:
            self.trainings.add(portrait)

    def _end_job(self, job: FrontJob) -> None:
        """The Dataset is through; portraits it lost go into the next one."""
        self.job = None
        if job.error is not None:
            self.broken_jobs += 1
            if self.broken_jobs >= _BROKEN_JOBS_ALLOWED:
                raise RunError(f"the front stages broke down: {job.error}") from job.error
            _log.warning("the front broke down and is started again: %s", job.error)
        if self.cluster.capacity.takes_turns and not job.left:
            self.turn += 1
        elif self.cluster.capacity.takes_turns and self.turn:
            self.between.extend(job.left.values())
            return
        self.waiting.extendleft(reversed(job.left.values()))

    # -- the trainings -------------------------------------------------------------------------

    def _run_trainings(self) -> None:
        reserve = self.session.config.run.training_reserve
        takes_turns = self.cluster.capacity.takes_turns
        if not takes_turns or self.turn >= len(self.cluster.capacity.front):
            self.trainings.submit(self._slots() + reserve)
        for outcome in self.trainings.collect(_POLL_SECONDS):
            self._take_reports()
            self._settle(outcome, in_training=True)
        names = self.session.plan.part("training")
        limit_s = max((stage.deadline_s for stage in names), default=0.0)
        for portrait in self.trainings.overdue(self.session.progress.running_since, limit_s):
            error = DeadlineExceeded(f"a training took longer than {limit_s / 60:g} minutes")
            storage, plan = self.session.storage, self.session.plan
            self._settle(record_failure(storage, plan, portrait, names[0].name, error), True)

    def _slots(self) -> int:
        """Trainings that can run now. GPUs of the front are kept for it as long as it has work."""
        if self.has_fresh or self.waiting:
            return self.cluster.slots
        return self.cluster.slots_beside(self.job.working_pools() if self.job else ())

    # -- ends ----------------------------------------------------------------------------------

    def _settle(self, outcome: Outcome, in_training: bool) -> None:
        """A portrait came out in any other way than through to the next stage."""
        self._note_cost(outcome)
        if outcome.status == "aborted":
            kind = getattr(errors, outcome.error_type or "", RunError)
            is_ours = isinstance(kind, type) and issubclass(kind, FC4DError)
            raise (kind if is_ours else RunError)(outcome.error_message)
        if outcome.status == "postponed":
            self._postpone(outcome, in_training)
        elif outcome.status == "returned":
            self._return(outcome)
        else:
            self.troubles = 0
            self.session.portrait_ended(outcome)

    def _return(self, outcome: Outcome) -> None:
        """Into the front once more; files that are damaged again and again end the run."""
        avatar_id = outcome.portrait.avatar_id
        if outcome.stage is not None:
            self.returns[avatar_id] = self.returns.get(avatar_id, 0) + 1
            if self.returns[avatar_id] > _RETURNS_ALLOWED:
                raise errors.StoreError(
                    f"files of {avatar_id} in {self.session.storage.uri} are deleted or changed "
                    "by somebody while the run goes on"
                )
        self.waiting.append(outcome.portrait)

    def _postpone(self, outcome: Outcome, in_training: bool) -> None:
        self.troubles += 1
        if self.troubles > _TROUBLES_ALLOWED:
            raise errors.StoreError(str(outcome.error_message))
        pause_s = min(_POSTPONED_LONGEST_S, _POSTPONED_S * 2 ** min(10, self.troubles // 8))
        _log.warning("the storage is in trouble, going on: %s", outcome.error_message)
        entry = (time.monotonic() + pause_s, next(self.numbers), outcome.portrait, in_training)
        heapq.heappush(self.later, entry)

    def _take_postponed(self) -> None:
        while self.later and self.later[0][0] <= time.monotonic():
            _, _, portrait, in_training = heapq.heappop(self.later)
            if in_training:
                self.trainings.add(portrait)
            else:
                self.waiting.append(portrait)

    def _note_cost(self, outcome: Outcome) -> None:
        self.session.overhead.add(outcome.own_cpu_s, outcome.start_cpu_s)

    def _take_reports(self) -> None:
        import ray

        try:
            events: Any = ray.get(self.board.collect.remote(), timeout=5)
        except ray.exceptions.RayError:
            return
        for event in events:
            self.session.stage_event(*event)
            if self.job is not None and event[2] in ("done", "reused"):
                self.job.note(event[0], event[1])
