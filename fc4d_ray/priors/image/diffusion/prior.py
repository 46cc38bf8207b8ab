"""The image prior: all views of one or several portraits, anchors first, then wave by wave."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from fc4d_ray.errors import StageFailed
from fc4d_ray.priors.image.diffusion.batching import (
    CPU_ROWS,
    RowBudget,
    cuda_peak,
    plannable_bytes,
    rows_that_fit,
)
from fc4d_ray.priors.image.diffusion.compositing import Composite, SourceView, composite_view
from fc4d_ray.priors.image.diffusion.config import DiffusionImageConfig
from fc4d_ray.priors.image.diffusion.denoiser import Denoiser, Row
from fc4d_ray.priors.image.diffusion.denoising import Sampler, ViewJob
from fc4d_ray.priors.image.diffusion.gates import FaceScore, ViewVerdict, judge
from fc4d_ray.priors.image.diffusion.schedule import match_schedules
from fc4d_ray.priors.image.diffusion.trajectory import Trajectory
from fc4d_ray.priors.image.diffusion.views import GuideView, Portrait, Source
from fc4d_ray.priors.image.diffusion.waves import (
    ANCHOR_REFERENCE,
    ViewTask,
    WavePlan,
    plan_waves,
)

_MOST_ROWS = 64
"""Beyond this many rows a batch gains nothing on any device we know of."""

Progress = Callable[[float, str], None]


@dataclass(frozen=True)
class EnhancedView:
    """A finished view and how it came about."""

    view: GuideView
    """With the finished image in place of the coarse one."""
    source: Tensor  # [S, S] uint8 of ``Source``
    sources: tuple[str, ...]
    """Names of the views that were warped into it."""
    verdict: ViewVerdict
    attempts: int
    wave: int

    def to_json(self) -> dict[str, Any]:
        """Plain values for the stage's record."""
        return {
            "wave": self.wave,
            "sources": list(self.sources),
            "attempts": self.attempts,
            **self.verdict.to_json(),
        }


class MultiviewPrior:
    """Enhances coarse views with a denoiser. One instance per worker."""

    def __init__(
        self,
        denoiser: Denoiser,
        config: DiffusionImageConfig,
        face_score: FaceScore,
    ) -> None:
        self._config = config
        self._face_score = face_score
        schedule = match_schedules(denoiser.scheduler_config, config.sampling.steps)
        self.sampler = Sampler(denoiser, schedule, config)
        self.budget = RowBudget(config.batch_rows or self._measured_rows())

    def enhance(
        self, portraits: Sequence[Portrait], progress: Progress = lambda fraction, text: None
    ) -> list[list[EnhancedView]]:
        """Finished views of each portrait, in the order of its coarse ones.

        Portraits share batches and nothing else: each one's result is what it is alone, up to
        rounding. Raises ``StageFailed`` where memory or, on request, a gate gives out.
        """
        if len({portrait.portrait_id for portrait in portraits}) != len(portraits):
            raise ValueError("portraits in one call must have different ids")
        works = [_Work(portrait, self._plan(portrait)) for portrait in portraits]
        if self._config.exchange.enabled:
            self.budget.run(works, lambda work: work.portrait.portrait_id, self._add_references)
        total = sum(len(work.portrait.views) for work in works)
        for wave in range(max(len(work.plan.waves) for work in works)):
            finished = sum(len(work.finished) for work in works)
            progress(finished / total, f"wave {wave}")
            pending = [
                _Attempt(work, task, 0, reads_reference=True)
                for work in works
                if wave < len(work.plan.waves)
                for task in work.plan.waves[wave]
            ]
            while pending:
                self._make(pending, wave)
                pending = self._again(pending)
        return [[work.finished[i] for i in range(len(work.portrait.views))] for work in works]

    def _plan(self, portrait: Portrait) -> WavePlan:
        warp = self._config.warp
        azimuths = [view.azimuth_deg for view in portrait.views]
        return plan_waves(
            azimuths, portrait.reference.azimuth_deg, warp.propagation, warping=warp.enabled
        )

    def _add_references(self, works: Sequence[_Work]) -> None:
        top = max(self._steps(is_back=False), self._steps(is_back=True))
        raised = self.sampler.reference_trajectory([work.portrait for work in works], top)
        for work, trajectory in zip(works, raised, strict=True):
            work.reference = trajectory

    def _steps(self, *, is_back: bool) -> int:
        sampling = self._config.sampling
        strength = sampling.back_strength if is_back else sampling.strength
        return self.sampler.schedule.partial_steps(strength)

    def _make(self, attempts: Sequence[_Attempt], wave: int) -> None:
        """Make every view once more and keep the better of its tries."""
        for is_back in (True, False):
            group = [a for a in attempts if (a.task.view == a.work.plan.back) == is_back]
            if group:
                self.budget.run(
                    group,
                    lambda attempt: attempt.work.portrait.portrait_id,
                    lambda batch, back=is_back: self._make_batch(batch, wave, is_back=back),
                )

    def _make_batch(self, batch: Sequence[_Attempt], wave: int, *, is_back: bool) -> None:
        composites = [self._composite(attempt) for attempt in batch]
        jobs = [
            ViewJob(a.work.portrait, a.target, composite, a.number, a.reads_reference)
            for a, composite in zip(batch, composites, strict=True)
        ]
        references = [a.work.reference for a in batch] if self._config.exchange.enabled else []
        images = self.sampler.make_views(jobs, references, self._steps(is_back=is_back))
        for attempt, composite, image in zip(batch, composites, images, strict=True):
            verdict = judge(image, attempt.target, composite, self._config.gates, self._face_score)
            attempt.work.keep(attempt, image, composite, verdict, wave)

    def _composite(self, attempt: _Attempt) -> Composite:
        work = attempt.work
        sources = [SourceView(*work.source(index)) for index in attempt.task.sources]
        return composite_view(attempt.target, sources, self._config.warp)

    def _again(self, attempts: Sequence[_Attempt]) -> list[_Attempt]:
        """Further tries of the views that failed, as far as their portraits' budgets reach."""
        gates, again = self._config.gates, []
        for attempt in attempts:
            work = attempt.work
            view = work.finished[attempt.task.view]
            if view.verdict.passed:
                continue
            if work.retries < gates.retries:
                work.retries += 1
                # A face behind comes from the reference's keys: do without them.
                reads = attempt.reads_reference and "face_behind" not in view.verdict.failures
                again.append(replace(attempt, number=attempt.number + 1, reads_reference=reads))
            elif gates.on_failure == "fail":
                raise StageFailed(
                    f"view {view.view.name} failed {', '.join(view.verdict.failures)} after "
                    f"{view.attempts} attempts, and image.gates.retries is used up"
                )
        return again

    def _measured_rows(self) -> int:
        """Rows per batch by measurement; a fixed number on a CPU."""
        device = self.sampler.denoiser.device
        if device.type != "cuda":
            return CPU_ROWS
        free, _ = torch.cuda.mem_get_info(device)
        held = torch.cuda.memory_allocated(device)
        room = plannable_bytes(free, held, self._config.model.memory_gib)
        return rows_that_fit(cuda_peak(self._probe, device), room, at_most=_MOST_ROWS)

    def _probe(self, rows: int) -> None:
        """One guided step and a decoding, with grey pictures."""
        denoiser, size = self.sampler.denoiser, self._config.size
        latents = denoiser.encode(torch.full((rows, 3, size, size), 0.5, device=denoiser.device))
        condition = denoiser.condition([Row("probe", "probe", "")] * rows)
        timestep = self.sampler.schedule.timestep(1)
        denoiser.predict(latents, timestep, condition, guidance=self._config.sampling.guidance)
        denoiser.decode(latents)


class _Work:
    """What is done of one portrait."""

    def __init__(self, portrait: Portrait, plan: WavePlan) -> None:
        self.portrait = portrait
        self.plan = plan
        self.reference: Trajectory | None = None
        self.finished: dict[int, EnhancedView] = {}
        self.retries = 0

    def source(self, index: int) -> tuple[GuideView, Source]:
        if index == ANCHOR_REFERENCE:
            return self.portrait.reference, Source.REFERENCE
        kind = Source.BACK if index == self.plan.back else Source.NEIGHBOUR
        return self.finished[index].view, kind

    def keep(
        self,
        attempt: _Attempt,
        image: Tensor,
        composite: Composite,
        verdict: ViewVerdict,
        wave: int,
    ) -> None:
        """Enter a try; it replaces an earlier one only where it is better."""
        index = attempt.task.view
        earlier = self.finished.get(index)
        if earlier is not None and earlier.verdict.order >= verdict.order:
            self.finished[index] = replace(earlier, attempts=attempt.number + 1)
            return
        self.finished[index] = EnhancedView(
            replace(attempt.target, image=image),
            composite.source,
            tuple(self.source(i)[0].name for i in attempt.task.sources),
            verdict,
            attempt.number + 1,
            wave,
        )


@dataclass(frozen=True)
class _Attempt:
    """One try of one view."""

    work: _Work
    task: ViewTask
    number: int
    reads_reference: bool

    @property
    def target(self) -> GuideView:
        return self.work.portrait.views[self.task.view]
