"""Doing a portrait's stages: find or make each artifact, record the end; no Ray in here.

Every failure of a portrait becomes a record and an outcome. What escapes as an exception concerns
more than the portrait: the output cannot be written, model files are missing, the process cannot go
on, a signal arrived.
"""

from __future__ import annotations

import logging
import shutil
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from fc4d_ray.errors import (
    DamagedArtifact,
    DeadlineExceeded,
    DevicePoisoned,
    FC4DError,
    InputError,
    OutOfGpuMemory,
    RunError,
    StoreError,
    UnreadableSource,
    WeightsMissing,
)
from fc4d_ray.pipeline.deadline import deadline, leave_process
from fc4d_ray.pipeline.facts import plain_facts
from fc4d_ray.pipeline.failures import Meaning, meaning_of, record_failure
from fc4d_ray.pipeline.measure import Measurement, measured
from fc4d_ray.pipeline.plan import Plan, StagePlan
from fc4d_ray.pipeline.portrait import Outcome, Portrait, Report, ignore_report
from fc4d_ray.pipeline.scratch import close_scratch, empty_scratch, open_scratch
from fc4d_ray.pipeline.sources import identify, read_source
from fc4d_ray.stages import load
from fc4d_ray.stages.protocol import Facts, Stage, StageContext
from fc4d_ray.store.artifacts import Artifact, ArtifactStore, Attempt, Work, work_key
from fc4d_ray.store.checkpoints import checkpoint_folder
from fc4d_ray.store.digests import derive_seed
from fc4d_ray.store.filesystem import Storage
from fc4d_ray.store.ledger import AttemptLedger, Entry, Witness
from fc4d_ray.store.plans import avatar_plan, columns_digest
from fc4d_ray.store.records import AvatarRecord, FailureRecord, RecordBook, Standing
from fc4d_ray.store.retention import drop_artifacts
from fc4d_ray.store.runs import utc_now
from fc4d_ray.store.transient import persist

_log = logging.getLogger(__name__)

_STAGE_TRIES = 3
"""Calls of a stage that meets errors which pass by themselves."""
_PAUSE_SECONDS = 2.0
_REPAIRS_ALLOWED = 2
"""Times a portrait's damaged files are made again before its row fails."""
_STAGES_WITH_COLUMNS = frozenset(("publish",))
"""Stages whose files repeat the input table's columns (licence, consent)."""


class StageWorker:
    """Works on portraits one after another, with models loaded once.

    ``stage_names``: the consecutive stages of the plan this worker does; earlier ones are only
    looked up. ``leave``: how to end this process when a stage hangs; None where the process is not
    ours to end (then there are no deadlines).
    """

    def __init__(
        self,
        storage: Storage,
        plan: Plan,
        stage_names: Sequence[str],
        witness: Witness,
        report: Report = ignore_report,
        leave: Callable[[], None] | None = leave_process,
    ) -> None:
        self.plan = plan
        self.stage_names = tuple(stage_names)
        self.scratch = open_scratch()
        self.store = ArtifactStore(storage, self.scratch)
        self.records = RecordBook(storage)
        self.ledger = AttemptLedger(storage, witness)
        self.report = report
        self.leave = leave
        self._stages: dict[str, Stage] = {}

    def close(self) -> None:
        """Delete temporary files."""
        close_scratch(self.scratch)

    def work(self, portrait: Portrait) -> Outcome:
        """Do this worker's stages for one portrait.

        Raises ``StoreError``, ``WeightsMissing`` and ``RunError``, which end the run, and
        ``DevicePoisoned``, after which this process must be replaced.
        """
        cpu = time.process_time()
        work = _PortraitWork(self, portrait)
        try:
            outcome = work.run()
        finally:
            empty_scratch(self.scratch)
        own_cpu_s = time.process_time() - cpu - work.stages_cpu_s
        return replace(outcome, own_cpu_s=round(max(0.0, own_cpu_s), 4))

    def stage(self, plan: StagePlan) -> Stage:
        """The stage, set up on first use. Raises ``RunError`` where its models do not load."""
        if plan.name not in self._stages:
            try:
                stage: Stage = load(plan.stage_path)()
                stage.setup(plan.config)
            except FC4DError:
                raise
            except Exception as error:
                if meaning_of(error) is Meaning.POISONED:
                    raise DevicePoisoned(f"stage {plan.name} cannot start: {error}") from error
                raise RunError(
                    f"stage {plan.name} cannot start: {type(error).__name__}: {error}"
                ) from error
            self._stages[plan.name] = stage
        return self._stages[plan.name]


class _FailedRow(Exception):
    """Carries what a portrait provoked in a stage to the stage boundary."""

    def __init__(self, error: Exception) -> None:
        super().__init__(str(error))
        self.error = error


class _DamagedInputs(Exception):
    """Earlier stages' files are gone or changed."""

    def __init__(self, names: Sequence[str]) -> None:
        super().__init__(f"the files of {', '.join(names)} are gone or changed")
        self.names = names


class _PortraitWork:
    """The stages of one portrait in one worker."""

    def __init__(self, worker: StageWorker, portrait: Portrait) -> None:
        self._worker = worker
        self._portrait = portrait
        self._store = worker.store
        self._plan = worker.plan
        self._columns_digest = columns_digest(portrait.columns)
        self._plan_digest = avatar_plan(self._plan.base, portrait.avatar_id, self._columns_digest)
        self._artifacts: dict[str, Artifact] = {}
        self._source: Path | None = None
        self._end = self._plan.names.index(worker.stage_names[-1]) + 1
        self.stages_cpu_s = 0.0

    def run(self) -> Outcome:
        standing = self._worker.records.standing(self._portrait.avatar_id)
        if standing.status(self._plan_digest) != "pending":
            return self._settled(standing)
        try:
            return self._run_stages()
        except _FailedRow as failure:
            return self._failed(failure)
        finally:
            self._store.forget_copies()

    def _run_stages(self) -> Outcome:
        """All stages in order; from the first again where an earlier one's files are damaged."""
        for repairs in range(_REPAIRS_ALLOWED + 1):
            self._artifacts.clear()
            try:
                for stage in self._plan.stages[: self._end]:
                    self._current = stage
                    self._artifacts[stage.name] = self._find_or_make(stage)
            except _DamagedInputs as damage:
                _log.warning("%s: %s", self._portrait.avatar_id, damage)
                for name in damage.names:
                    if name in self._artifacts:
                        self._store.withdraw(self._artifacts[name])
                if not set(damage.names) <= set(self._worker.stage_names):
                    return Outcome(self._portrait, "returned", self._current.name)
                if repairs == _REPAIRS_ALLOWED:
                    raise _FailedRow(DamagedArtifact(f"{damage}, again and again")) from damage
                continue
            break
        if self._end < len(self._plan.stages):
            return Outcome(self._portrait, "running")
        self._finish()
        return Outcome(self._portrait, "succeeded")

    def _settled(self, standing: Standing) -> Outcome:
        """Another worker, or this one before a crash, has come to an end with this portrait."""
        name = standing.latest_record(self._plan_digest) or ""
        record = self._worker.records.read(self._portrait.avatar_id, name)
        if isinstance(record, FailureRecord):
            return Outcome(
                self._portrait, "failed", record.stage, record.error_type, record.error_message
            )
        return Outcome(self._portrait, "succeeded")

    def _work(self, stage: StagePlan) -> Work:
        columns = self._columns_digest if stage.name in _STAGES_WITH_COLUMNS else ""
        key = work_key(
            stage=stage.name,
            version=stage.version,
            section_digest=stage.section_digest,
            weights_digest=stage.weights_digest,
            seed=self._seed(stage),
            source=self._portrait.avatar_id,
            inputs={name: self._artifacts[name].digest for name in stage.requires},
            columns=columns,
        )
        return Work(self._portrait.avatar_id, stage.name, key)

    def _seed(self, stage: StagePlan) -> int:
        return derive_seed(self._plan.seed, self._portrait.avatar_id, stage.name)

    def _find_or_make(self, stage: StagePlan) -> Artifact:
        work = self._work(stage)
        artifact = self._store.find(work)
        avatar_id = self._portrait.avatar_id
        if stage.name not in self._worker.stage_names:
            if artifact is None:
                raise _DamagedInputs([stage.name])
            return artifact
        if artifact is not None:
            self._worker.report(avatar_id, stage.name, "reused", artifact.seconds, "")
            return artifact
        self._worker.report(avatar_id, stage.name, "started", 0.0, "")
        try:
            artifact = self._make(stage, work)
        except InputError as error:
            raise _FailedRow(error) from error
        self._worker.report(avatar_id, stage.name, "done", artifact.seconds, "")
        return artifact

    def _make(self, plan: StagePlan, work: Work) -> Artifact:
        try:
            inputs = {name: self._store.open(self._artifacts[name]) for name in plan.requires}
        except DamagedArtifact as error:
            raise _DamagedInputs(self._damaged(plan.requires)) from error
        source = self._fetch_source()
        storage = self._store.storage
        with (
            self._worker.ledger.attempt(work, self._portrait.generation) as entry,
            checkpoint_folder(storage, work, self._store.scratch) as checkpoint,
            self._store.attempt(work) as attempt,
        ):
            stage = self._worker.stage(plan)
            context = StageContext(
                source=source,
                inputs=inputs,
                output=attempt.directory,
                config=plan.config,
                seed=self._seed(plan),
                row=self._row(),
                facts={n: self._artifacts[n].facts for n in self._plan.upstream(plan.name)},
                checkpoint=checkpoint,
                progress=lambda fraction, message: self._worker.report(
                    work.avatar_id, work.stage, "progress", fraction, message
                ),
            )
            with measured() as measurement:
                facts = self._process(plan, stage, context, entry, measurement)
            return self._commit(plan, attempt, facts, measurement.to_record(context.seed))

    def _process(
        self,
        plan: StagePlan,
        stage: Stage,
        context: StageContext,
        entry: Entry,
        measurement: Measurement,
    ) -> Facts:
        """Call the stage; sort what it raises."""
        for tries in range(1, _STAGE_TRIES + 1):
            cpu = time.process_time()
            try:
                with self._deadline(plan, entry):
                    return plain_facts(stage.process(context))
            except WeightsMissing:
                raise
            except Exception as error:
                self._judge(plan, error, entry, is_last=tries == _STAGE_TRIES)
                _log.info("%s: trying again after %s", plan.name, error)
            finally:
                self.stages_cpu_s += time.process_time() - cpu
            _empty(context.output)
            time.sleep(_PAUSE_SECONDS * tries)
        raise AssertionError("the last try returns or raises")

    def _judge(self, plan: StagePlan, error: Exception, entry: Entry, *, is_last: bool) -> None:
        """Raise what the error means, or return where the stage deserves another try."""
        meaning = meaning_of(error)
        if meaning is Meaning.UNWRITABLE:
            raise StoreError(f"stage {plan.name} cannot write its files: {error}") from error
        if meaning is Meaning.POISONED:
            entry.count_as_crash()
            raise DevicePoisoned(f"stage {plan.name}: {error}") from error
        if meaning is Meaning.OUT_OF_MEMORY:
            _free_device_memory()
        if meaning is not Meaning.PORTRAIT and not is_last:
            return
        if not isinstance(error, InputError) and (damaged := self._damaged(plan.requires)):
            raise _DamagedInputs(damaged) from error
        if meaning is Meaning.OUT_OF_MEMORY:
            raise _FailedRow(_out_of_memory(plan, error)) from error
        raise _FailedRow(error) from error

    def _deadline(self, plan: StagePlan, entry: Entry) -> Any:
        """Limits the block to the stage's time; beyond it this process ends."""
        leave = self._worker.leave

        def note() -> None:
            limit = plan.deadline_s / 60
            error = DeadlineExceeded(f"{plan.name} took longer than {limit:g} minutes")
            self._failed(_FailedRow(error))
            entry.strike_out()

        seconds = plan.deadline_s if leave is not None else float("inf")
        return deadline(seconds, note, leave or leave_process)

    def _damaged(self, names: Iterable[str]) -> list[str]:
        return [name for name in names if not self._store.is_sound(self._artifacts[name])]

    def _commit(
        self, plan: StagePlan, attempt: Attempt, facts: Facts, measurements: dict[str, Any]
    ) -> Artifact:
        record = measurements | {
            "config": plan.config_plain,
            "version": plan.version,
            "weights_digest": plan.weights_digest,
            "finished_at": utc_now(),
        }
        artifact, _ = self._store.commit(attempt, facts, record)
        return artifact

    def _row(self) -> dict[str, Any]:
        portrait = self._portrait
        return dict(portrait.columns) | {
            "avatar_id": portrait.avatar_id,
            "source_uri": portrait.source_uri,
            "face_box": portrait.face_box,
            "landmarks": portrait.landmarks,
            "config_digest": self._plan.config_digest,
        }

    def _fetch_source(self) -> Path:
        """Local copy of the very bytes the avatar id was made from."""
        if self._source is None or not self._source.exists():
            portrait = self._portrait
            uri = portrait.source_uri
            data = persist(lambda: read_source(uri), uri)
            if identify(data, portrait.face_box, portrait.landmarks) != portrait.avatar_id:
                raise UnreadableSource(f"{uri} changed while the run went on")
            path = self._store.scratch / f"source-{portrait.avatar_id}{Path(uri).suffix[:16]}"
            path.write_bytes(data)
            self._source = path
        return self._source

    def _failed(self, failure: _FailedRow) -> Outcome:
        stage, error = self._current, failure.error
        outcome = record_failure(
            self._store.storage,
            self._plan,
            self._portrait,
            stage.name,
            error,
            facts={name: dict(artifact.facts) for name, artifact in self._artifacts.items()},
            seconds=self._seconds(),
        )
        text = f"{outcome.error_type}: {outcome.error_message}"
        self._worker.report(self._portrait.avatar_id, stage.name, "failed", 0.0, text)
        level = logging.INFO if isinstance(error, FC4DError) else logging.WARNING
        where = {"avatar_id": self._portrait.avatar_id, "stage": stage.name}
        _log.log(level, "%s failed in %s: %s", *where.values(), text, extra=where)
        return outcome

    def _finish(self) -> None:
        last = self._artifacts[self._plan.names[-1]]
        self._worker.records.write_finished(
            AvatarRecord(
                avatar_id=self._portrait.avatar_id,
                plan=self._plan_digest,
                config_digest=self._plan.config_digest,
                source_uri=self._portrait.source_uri,
                avatar_path=last.path,
                artifacts={name: a.work.record_path for name, a in self._artifacts.items()},
                facts={name: dict(a.facts) for name, a in self._artifacts.items()},
                seconds=self._seconds(),
                created_at=utc_now(),
            )
        )
        unwanted = (self._artifacts[name].work.record_path for name in self._plan.dispensable)
        drop_artifacts(self._store.storage, unwanted)

    def _seconds(self) -> dict[str, float]:
        return {name: artifact.seconds for name, artifact in self._artifacts.items()}


def _empty(folder: Path) -> None:
    """Leave nothing of a try that failed."""
    for entry in folder.iterdir():
        if entry.is_dir():
            shutil.rmtree(entry)
        else:
            entry.unlink()


def _free_device_memory() -> None:
    import gc
    import sys

    gc.collect()
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        torch.cuda.empty_cache()


def _out_of_memory(plan: StagePlan, error: Exception) -> OutOfGpuMemory:
    return OutOfGpuMemory(
        f"{plan.name} needs more GPU memory than there is ({error}); raise "
        f"run.stages.{plan.name}.gpus or gpu_memory_gib so that fewer workers share a device"
    )
