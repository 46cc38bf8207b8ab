"""One ``fc4d run``: plan, find what is left, hand it to a runner, publish manifest and report."""

from __future__ import annotations

import contextlib
import logging
import os
import platform
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from fc4d_ray.config import RunConfig, parse_config
from fc4d_ray.errors import ConfigError, RunError, StoreError
from fc4d_ray.pipeline.backlog import find_backlog
from fc4d_ray.pipeline.display import Display, make_display
from fc4d_ray.pipeline.identification import identify_by
from fc4d_ray.pipeline.inputs import Inputs, collect_inputs, identify_again
from fc4d_ray.pipeline.interruption import GracefulStop
from fc4d_ray.pipeline.metrics import RunMetrics
from fc4d_ray.pipeline.plan import Plan, make_plan
from fc4d_ray.pipeline.portrait import Outcome, Portrait
from fc4d_ray.pipeline.progress import RunProgress
from fc4d_ray.pipeline.summary import count_standings
from fc4d_ray.pipeline.updates import Updates
from fc4d_ray.store import layout
from fc4d_ray.store.filesystem import Storage
from fc4d_ray.store.location import find_output, open_output
from fc4d_ray.store.manifest import ManifestCommitter
from fc4d_ray.store.runs import RunBook, RunDocument, new_run_id, utc_now

if TYPE_CHECKING:
    from fc4d_ray.store.delta import DeltaSink

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class RunSummary:
    """How a run ended, counted over all rows of its inputs."""

    output: str
    run_id: str
    rows: int
    succeeded: int
    failed: int
    duplicates: int
    worked: int
    """Portraits this run brought to an end; 0 where all were done before."""
    interrupted: bool
    seconds: float
    failures: dict[str, int] = field(default_factory=dict)
    """Failed rows by error type."""
    avatars: tuple[str, ...] = ()
    """Where the first few avatars of these inputs are."""

    @property
    def exit_code(self) -> int:
        """0 all rows succeeded, 3 some portraits failed, 1 the run was interrupted."""
        if self.interrupted:
            return 1
        return 3 if self.failed else 0


@dataclass
class RunSession:
    """What a runner needs to know and where it reports to."""

    run_id: str
    storage: Storage
    plan: Plan
    config: RunConfig
    portraits: Sequence[Portrait]
    """The portraits left to do."""
    progress: RunProgress
    display: Display
    stop: GracefulStop
    """Whether the user or the system asked to end."""
    say: Callable[[str], None] = lambda line: None
    """Takes lines for the user."""
    overhead: Overhead = field(default_factory=lambda: Overhead())
    metrics: RunMetrics = field(default_factory=RunMetrics)

    def stage_event(self, avatar_id: str, stage: str, event: str, number: float, text: str) -> None:
        """A worker's report."""
        self.progress.stage_event(avatar_id, stage, event, number, text)
        self.metrics.stage_event(stage, event, number)
        self.display.stage_event(avatar_id, stage, event, number, text)

    def portrait_ended(self, outcome: Outcome) -> None:
        """A portrait's end."""
        avatar_id = outcome.portrait.avatar_id
        self.progress.portrait_ended(avatar_id, outcome.status, outcome.error_type)
        self.metrics.portrait_ended(outcome.status, outcome.error_type)
        text = ""
        if outcome.status == "failed":
            text = f"{outcome.error_type} in {outcome.stage}: {outcome.error_message}"
        self.display.portrait_ended(avatar_id, outcome.status, text)


@dataclass
class Overhead:
    """CPU seconds the workers spent on anything but the stages' work."""

    own_cpu_s: float = 0.0
    """Looking up, fetching, committing, recording."""
    start_cpu_s: float = 0.0
    """Starting processes."""

    def add(self, own_cpu_s: float, start_cpu_s: float) -> None:
        """Take in what one worker spent on one portrait."""
        self.own_cpu_s += own_cpu_s
        self.start_cpu_s += start_cpu_s

    def to_json(self) -> dict[str, float]:
        """For the run's end document; the driver's own share included."""
        return {
            "workers_cpu_s": round(self.own_cpu_s, 2),
            "starts_cpu_s": round(self.start_cpu_s, 2),
            "driver_cpu_s": round(time.process_time(), 2),
        }


Runner = Callable[[RunSession], None]


def run(
    arguments: Sequence[str],
    output: str,
    config: RunConfig,
    *,
    say: Callable[[str], None] = lambda line: None,
) -> RunSummary:
    """Turn portraits into avatars below ``output``; continues what an earlier run left.

    ``say`` takes lines for the user. Raises ``ConfigError``, ``StoreError``, ``WeightsMissing`` and
    ``RunError``; a portrait's failure raises nothing.
    """
    storage = find_output(output)
    earlier = RunBook(storage).earlier_inputs() if storage else ()
    inputs = collect_inputs(arguments, earlier=earlier, cluster=identify_by(config.run))
    return run_inputs(inputs, output, config, arguments=arguments, say=say)


def run_inputs(
    inputs: Inputs,
    output: str,
    config: RunConfig,
    *,
    arguments: Sequence[str] = (),
    say: Callable[[str], None] = lambda line: None,
) -> RunSummary:
    """``run`` for rows that are collected already; ``arguments`` are only noted down."""
    plan = make_plan(config)
    storage = open_output(output, create=True)
    return _Run(storage, inputs, plan, config, tuple(arguments), say).execute()


def run_again(output: str, *, say: Callable[[str], None] = lambda line: None) -> RunSummary:
    """The newest run once more, with its inputs and its configuration."""
    storage = open_output(output)
    book = RunBook(storage)
    runs = book.all()
    if not runs:
        raise ConfigError(f"{output} has seen no run yet")
    latest = runs[-1]
    config = parse_config(storage.read(layout.config(latest.config_digest)).decode())
    rows = book.read_inputs(latest.inputs_path)
    cluster = identify_by(config.run)
    inputs = identify_again(rows, earlier=book.earlier_inputs(), cluster=cluster)
    return run_inputs(inputs, output, config, arguments=latest.arguments, say=say)


class _Run:
    """The steps of one run."""

    def __init__(
        self,
        storage: Storage,
        inputs: Inputs,
        plan: Plan,
        config: RunConfig,
        arguments: tuple[str, ...],
        say: Callable[[str], None],
    ) -> None:
        self._storage = storage
        self._inputs = inputs
        self._plan = plan
        self._config = config
        self._arguments = arguments
        self._say = say
        self._run_id = new_run_id()
        self._runs = RunBook(storage)
        self._committer = ManifestCommitter(storage)
        self._delta = _delta_sink(config, storage)
        self._began = time.monotonic()

    def execute(self) -> RunSummary:
        self._write_documents()
        portraits = self._left_to_do()
        session = self._session(portraits)
        try:
            if portraits:
                with session.stop, Updates(session, self._committer, self._delta):
                    _runner(self._config)(session)
        except BaseException as error:
            self._end_badly(error)
            raise
        finally:
            session.display.close()
        return self._conclude(session)

    def _write_documents(self) -> None:
        config_path = layout.config(self._plan.config_digest)
        self._storage.create(config_path, self._config.to_yaml().encode())
        self._runs.start(
            RunDocument(
                run_id=self._run_id,
                started_at=utc_now(),
                plan_base=self._plan.base,
                stages=self._plan.names,
                config_digest=self._plan.config_digest,
                inputs_path=self._runs.write_inputs(self._inputs.table),
                rows=len(self._inputs),
                runner=self._config.run.runner,
                host=platform.node(),
                pid=os.getpid(),
                arguments=self._arguments,
                software=_software(),
            )
        )

    def _left_to_do(self) -> Sequence[Portrait]:
        backlog = find_backlog(self._storage, self._inputs, self._plan.base)
        self._announce(len(backlog.left), backlog.count("succeeded"), backlog.count("failed"))
        return backlog.left

    def _announce(self, left: int, done: int, failed: int) -> None:
        parts = [f"{len(self._inputs)} rows"]
        if done:
            parts.append(f"{done} done before")
        if failed:
            parts.append(f"{failed} failed before (fc4d retry {self._storage.uri} tries again)")
        parts.append(f"{left} to do" if left else "nothing to do")
        self._say(", ".join(parts))

    def _session(self, portraits: Sequence[Portrait]) -> RunSession:
        progress = RunProgress(
            total=len(portraits),
            stages=self._plan.names,
            interval_s=self._config.run.progress_interval_s,
        )
        return RunSession(
            run_id=self._run_id,
            storage=self._storage,
            plan=self._plan,
            config=self._config,
            portraits=portraits,
            progress=progress,
            display=make_display(progress),
            stop=GracefulStop(self._say),
            say=self._say,
        )

    def _conclude(self, session: RunSession) -> RunSummary:
        from fc4d_ray.pipeline.report import write_report

        table = self._committer.finish()
        if self._delta is not None:
            self._catch_up(self._delta)
        self._runs.progress(self._run_id, session.progress.snapshot())
        summary = self._summary(session)
        write_report(self._storage, table)
        self._runs.end(
            self._run_id,
            {
                "succeeded": summary.succeeded,
                "failed": summary.failed,
                "duplicates": summary.duplicates,
                "interrupted": summary.interrupted,
                "seconds": round(summary.seconds, 1),
                "overhead": session.overhead.to_json(),
                "progress": session.progress.snapshot(),
            },
        )
        return summary

    def _catch_up(self, delta: DeltaSink) -> None:
        try:
            delta.catch_up(self._committer.outcomes.table)
        except StoreError as error:
            self._say(f"{error}; the manifest is complete, the next run catches up")

    def _summary(self, session: RunSession) -> RunSummary:
        standings = count_standings(
            self._inputs, self._plan.base, self._committer.outcomes.table, self._storage
        )
        stopped = session.stop.requested.is_set()
        if standings.unfinished and not stopped:
            raise RunError(
                f"{standings.unfinished} portraits came to no end; run the same command again"
            )
        return RunSummary(
            output=self._storage.uri,
            run_id=self._run_id,
            rows=len(self._inputs),
            succeeded=standings.succeeded,
            failed=standings.failed,
            duplicates=standings.duplicates,
            worked=len(session.progress.ended),
            interrupted=stopped and standings.unfinished > 0,
            seconds=time.monotonic() - self._began,
            failures=standings.failures,
            avatars=standings.avatars,
        )

    def _end_badly(self, error: BaseException) -> None:
        """Leave what is known; the storage itself may be what failed."""
        with contextlib.suppress(Exception):
            self._runs.end(self._run_id, {"error": f"{type(error).__name__}: {error}"})
        with contextlib.suppress(Exception):
            self._committer.finish()


def _runner(config: RunConfig) -> Runner:
    if config.run.runner == "local":
        from fc4d_ray.pipeline.local_runner import run_locally

        return run_locally
    from fc4d_ray.pipeline.ray_runner import run_on_ray

    return run_on_ray


def _delta_sink(config: RunConfig, storage: Storage) -> DeltaSink | None:
    if config.run.delta_table is None:
        return None
    from fc4d_ray.store.delta import DeltaSink

    return DeltaSink(config.run.delta_table, storage)


def _software() -> dict[str, str]:
    from fc4d_ray import __version__

    return {"fc4d_ray": __version__, "python": platform.python_version()}
