"""Doing a portrait's stages: find or make each artifact, record the end; no Ray in here.

Every failure of a portrait becomes a record and an outcome. What escapes as an exception concerns
the run as a whole: the output cannot be written, model files are missing, a signal arrived.
"""

from __future__ import annotations

import contextlib
import errno
import json
import logging
import math
import os
import shutil
import tempfile
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from fc4d_ray.errors import FC4DError, StoreError, UnreadableSource, WeightsMissing
from fc4d_ray.pipeline.measure import measured
from fc4d_ray.pipeline.plan import Plan, StagePlan
from fc4d_ray.pipeline.sources import identify, read_source
from fc4d_ray.stages import load
from fc4d_ray.stages.protocol import Stage, StageContext
from fc4d_ray.store import layout
from fc4d_ray.store.artifacts import Artifact, ArtifactStore, Work, work_key
from fc4d_ray.store.digests import derive_seed
from fc4d_ray.store.filesystem import Storage
from fc4d_ray.store.ledger import AttemptLedger, Witness
from fc4d_ray.store.plans import avatar_plan
from fc4d_ray.store.records import AvatarRecord, FailureRecord, RecordBook, Standing
from fc4d_ray.store.runs import utc_now

_MESSAGE_CHARACTERS = 2000
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Portrait:
    """One portrait on its way through the stages; plain values only."""

    avatar_id: str
    source_uri: str
    generation: int = 0
    face_box: Any = None
    landmarks: Any = None
    columns: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Outcome:
    """Where a portrait stands after a worker had it."""

    portrait: Portrait
    status: str
    """``running`` (further stages follow), ``succeeded``, ``failed``; ``aborted`` ends the run."""
    stage: str | None = None
    error_type: str | None = None
    error_message: str | None = None

    def to_text(self) -> str:
        """JSON, for a row."""
        return json.dumps(asdict(self))

    @classmethod
    def from_text(cls, text: str) -> Outcome:
        """Inverse of ``to_text``."""
        values = json.loads(text)
        return cls(**values | {"portrait": Portrait(**values["portrait"])})


Report = Callable[[str, str, str, float, str], None]
"""(avatar id, stage, event, number, text); events: started, progress, reused, done, failed."""


def ignore_report(avatar_id: str, stage: str, event: str, number: float, text: str) -> None:
    """A report that nobody reads."""


class StageWorker:
    """Works on portraits one after another, with models loaded once.

    ``stage_names``: the consecutive stages of the plan this worker does; earlier ones are only
    looked up.
    """

    def __init__(
        self,
        storage: Storage,
        plan: Plan,
        stage_names: Sequence[str],
        witness: Witness,
        report: Report = ignore_report,
    ) -> None:
        self._plan = plan
        self._stage_names = tuple(stage_names)
        self._scratch = tempfile.TemporaryDirectory(prefix="fc4d-worker-")
        self._store = ArtifactStore(storage, Path(self._scratch.name))
        self._records = RecordBook(storage)
        self._ledger = AttemptLedger(storage, witness)
        self._report = report
        self._stages: dict[str, Stage] = {}

    def close(self) -> None:
        """Delete temporary files."""
        self._scratch.cleanup()

    def work(self, portrait: Portrait) -> Outcome:
        """Do this worker's stages for one portrait.

        Raises ``StoreError`` and ``WeightsMissing``, which end the run.
        """
        try:
            return _PortraitWork(self, portrait).run()
        finally:
            self._forget()

    def _forget(self) -> None:
        """Delete the portrait's local copies: long-lived workers are not always closed."""
        for entry in Path(self._scratch.name).glob("*"):
            if entry.is_dir():
                shutil.rmtree(entry, ignore_errors=True)
            else:
                entry.unlink(missing_ok=True)

    def stage(self, plan: StagePlan) -> Stage:
        """The stage, set up on first use."""
        if plan.name not in self._stages:
            stage: Stage = load(plan.stage_path)()
            stage.setup(plan.config)
            self._stages[plan.name] = stage
        return self._stages[plan.name]


class _PortraitWork:
    """The stages of one portrait in one worker."""

    def __init__(self, worker: StageWorker, portrait: Portrait) -> None:
        self._worker = worker
        self._portrait = portrait
        self._store = worker._store
        self._plan = worker._plan
        self._plan_digest = avatar_plan(self._plan.base, portrait.avatar_id)
        self._artifacts: dict[str, Artifact] = {}
        self._source: Path | None = None
        self._end = self._plan.names.index(worker._stage_names[-1]) + 1

    def run(self) -> Outcome:
        standing = self._worker._records.standing(self._portrait.avatar_id)
        if standing.status(self._plan_digest) != "pending":
            return self._settled(standing)
        try:
            for stage in self._plan.stages[: self._end]:
                if stage.name in self._worker._stage_names:
                    failure = self._do(stage)
                    if failure is not None:
                        return failure
                else:
                    self._artifacts[stage.name] = self._look_up(stage)
        finally:
            if self._source is not None:
                self._source.unlink(missing_ok=True)
            self._store.forget_copies()
        if self._end < len(self._plan.stages):
            return Outcome(self._portrait, "running")
        self._finish()
        return Outcome(self._portrait, "succeeded")

    def _settled(self, standing: Standing) -> Outcome:
        """Another worker, or this one before a crash, has come to an end with this portrait."""
        name = standing.latest_record(self._plan_digest) or ""
        record = self._worker._records.read(self._portrait.avatar_id, name)
        if isinstance(record, FailureRecord):
            return Outcome(
                self._portrait, "failed", record.stage, record.error_type, record.error_message
            )
        return Outcome(self._portrait, "succeeded")

    def _work(self, stage: StagePlan) -> Work:
        key = work_key(
            stage=stage.name,
            version=stage.version,
            section_digest=stage.section_digest,
            weights_digest=stage.weights_digest,
            seed=self._seed(stage),
            source=self._portrait.avatar_id,
            inputs={name: self._artifacts[name].digest for name in stage.requires},
        )
        return Work(self._portrait.avatar_id, stage.name, key)

    def _look_up(self, stage: StagePlan) -> Artifact:
        """What an earlier worker has made."""
        artifact = self._store.find(self._work(stage))
        if artifact is None:
            raise StoreError(
                f"the files of stage {stage.name} of {self._portrait.avatar_id} were deleted or "
                "changed while the run went on; run the same command again"
            )
        return artifact

    def _seed(self, stage: StagePlan) -> int:
        return derive_seed(self._plan.seed, self._portrait.avatar_id, stage.name)

    def _do(self, stage: StagePlan) -> Outcome | None:
        """Find or make one artifact; an outcome only where the portrait failed."""
        work = self._work(stage)
        artifact = self._store.find(work)
        avatar_id = self._portrait.avatar_id
        if artifact is not None:
            self._worker._report(avatar_id, stage.name, "reused", artifact.seconds, "")
        else:
            self._worker._report(avatar_id, stage.name, "started", 0.0, "")
            try:
                artifact = self._make(stage, work)
            except (StoreError, WeightsMissing):
                raise
            except Exception as error:
                # The stage boundary: whatever a portrait provokes ends here, with its trace.
                return self._failed(stage, error)
            self._worker._report(avatar_id, stage.name, "done", artifact.seconds, "")
        self._artifacts[stage.name] = artifact
        return None

    def _make(self, stage_plan: StagePlan, work: Work) -> Artifact:
        inputs = {name: self._store.open(self._artifacts[name]) for name in stage_plan.requires}
        source = self._fetch_source()
        checkpoint = self._checkpoint(work)
        with (
            self._worker._ledger.attempt(work, self._portrait.generation),
            self._store.attempt(work) as attempt,
        ):
            stage = self._worker.stage(stage_plan)
            context = StageContext(
                source=source,
                inputs=inputs,
                output=attempt.directory,
                config=stage_plan.config,
                seed=self._seed(stage_plan),
                row=self._row(),
                facts={
                    name: self._artifacts[name].facts
                    for name in self._plan.upstream(stage_plan.name)
                },
                checkpoint=checkpoint,
                progress=lambda fraction, message: self._worker._report(
                    work.avatar_id, work.stage, "progress", fraction, message
                ),
            )
            with measured() as measurement, _full_disk_ends_the_run(attempt.directory):
                facts = plain_facts(stage.process(context))
            record = measurement.to_record(context.seed) | {
                "config": stage_plan.config_plain,
                "version": stage_plan.version,
                "weights_digest": stage_plan.weights_digest,
                "finished_at": utc_now(),
            }
            artifact, _ = self._store.commit(attempt, facts, record)
        if checkpoint is not None:
            self._store.storage.prune(layout.checkpoint(work.avatar_id, work.stage, work.key))
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

    def _checkpoint(self, work: Work) -> Path | None:
        storage = self._store.storage
        if not storage.is_local:
            return None
        path = storage.local_path(layout.checkpoint(work.avatar_id, work.stage, work.key))
        path.mkdir(parents=True, exist_ok=True)
        return path

    def _fetch_source(self) -> Path:
        """Local copy of the very bytes the avatar id was made from."""
        if self._source is None:
            portrait = self._portrait
            data = read_source(portrait.source_uri)
            if identify(data, portrait.face_box, portrait.landmarks) != portrait.avatar_id:
                raise UnreadableSource(f"{portrait.source_uri} changed while the run went on")
            suffix = Path(portrait.source_uri).suffix[:16]
            path = self._store.scratch / f"source-{portrait.avatar_id}{suffix}"
            path.write_bytes(data)
            self._source = path
        return self._source

    def _failed(self, stage: StagePlan, error: Exception) -> Outcome:
        outcome = record_failure(
            self._store.storage,
            self._plan,
            self._portrait,
            stage.name,
            error,
            facts=self._facts(),
            seconds=self._seconds(),
        )
        text = f"{outcome.error_type}: {outcome.error_message}"
        self._worker._report(self._portrait.avatar_id, stage.name, "failed", 0.0, text)
        level = logging.INFO if isinstance(error, FC4DError) else logging.WARNING
        _log.log(level, "%s failed in %s: %s", self._portrait.avatar_id, stage.name, text)
        return outcome

    def _finish(self) -> None:
        last = self._artifacts[self._plan.names[-1]]
        self._worker._records.write_finished(
            AvatarRecord(
                avatar_id=self._portrait.avatar_id,
                plan=self._plan_digest,
                config_digest=self._plan.config_digest,
                source_uri=self._portrait.source_uri,
                avatar_path=last.path,
                artifacts={name: a.work.record_path for name, a in self._artifacts.items()},
                facts=self._facts(),
                seconds=self._seconds(),
                created_at=utc_now(),
            )
        )

    def _facts(self) -> dict[str, Any]:
        return {name: dict(artifact.facts) for name, artifact in self._artifacts.items()}

    def _seconds(self) -> dict[str, float]:
        return {name: artifact.seconds for name, artifact in self._artifacts.items()}


def record_failure(
    storage: Storage,
    plan: Plan,
    portrait: Portrait,
    stage: str,
    error: BaseException,
    *,
    facts: Mapping[str, Any] | None = None,
    seconds: Mapping[str, float] | None = None,
) -> Outcome:
    """Write a portrait's failure record and its stack trace."""
    error_type = type(error).__name__
    message = str(error)[:_MESSAGE_CHARACTERS] or error_type
    trace_path = layout.trace(portrait.avatar_id, stage, os.urandom(6).hex())
    trace = "".join(traceback.format_exception(error))
    storage.create(trace_path, trace.encode(errors="replace"))
    RecordBook(storage).write_failed(
        FailureRecord(
            avatar_id=portrait.avatar_id,
            plan=avatar_plan(plan.base, portrait.avatar_id),
            generation=portrait.generation,
            config_digest=plan.config_digest,
            source_uri=portrait.source_uri,
            stage=stage,
            error_type=error_type,
            error_message=message,
            trace_path=trace_path,
            created_at=utc_now(),
            facts=facts or {},
            seconds=seconds or {},
        )
    )
    return Outcome(portrait, "failed", stage, error_type, message)


@contextlib.contextmanager
def _full_disk_ends_the_run(directory: Path) -> Any:
    """A stage that cannot write its files is no fault of the portrait's."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS):
            raise StoreError(f"cannot write {directory}: {error.strerror}") from error
        raise


def plain_facts(value: Any) -> Any:
    """A stage's facts as plain JSON values: NumPy scalars unwrapped, NaN and infinity as None.

    Raises ``TypeError`` for anything JSON cannot hold.
    """
    if isinstance(value, Mapping):
        return {str(key): plain_facts(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain_facts(item) for item in value]
    if isinstance(value, Path):
        return str(value)
    if value is None or isinstance(value, (str, bool, int)):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if hasattr(value, "tolist"):
        return plain_facts(value.tolist())
    raise TypeError(f"a stage's facts cannot hold a {type(value).__name__}: {value!r}")
