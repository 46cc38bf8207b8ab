"""One batch through the diffusion model: composites up to noise, and down again with guidance from
the reference's keys and values and from the warped latents (paper section 3.2, figure 3)."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from fc4d_ray.priors.image.diffusion.attention import Exchange, ExchangeMode
from fc4d_ray.priors.image.diffusion.compositing import Composite
from fc4d_ray.priors.image.diffusion.config import DiffusionImageConfig
from fc4d_ray.priors.image.diffusion.denoiser import Denoiser, Row
from fc4d_ray.priors.image.diffusion.paste_in import background_cells, latent_mask, paste
from fc4d_ray.priors.image.diffusion.prompts import view_prompt
from fc4d_ray.priors.image.diffusion.schedule import MatchedSchedule
from fc4d_ray.priors.image.diffusion.trajectory import (
    Trajectory,
    invert,
    stack_trajectories,
    stirred,
    with_noise,
)
from fc4d_ray.priors.image.diffusion.views import GuideView, Portrait

_BACKGROUND_MARGIN_PX = 24
"""Distance from the head, at 512 pixels, from which the background is held."""
_NOMINAL_SIZE = 512


@dataclass(frozen=True)
class ViewJob:
    """A view to be made once."""

    portrait: Portrait
    view: GuideView
    composite: Composite
    attempt: int = 0
    reads_reference: bool = True


@dataclass
class RowCount:
    """UNet evaluations so far, in rows (one image once)."""

    rows: int = 0

    def add(self, rows: int, guidance: float = 1.0) -> None:
        self.rows += rows if guidance == 1.0 else 2 * rows


@dataclass(frozen=True)
class Sampler:
    """The model with the schedule and options of a run; holds no portrait."""

    denoiser: Denoiser
    schedule: MatchedSchedule
    config: DiffusionImageConfig
    count: RowCount = field(default_factory=RowCount)

    def prompt_row(self, portrait: Portrait, view: GuideView) -> Row:
        """What a row of the batch shows."""
        prompt = view_prompt(portrait.sentence, view.azimuth_deg, self.config.prompt)
        return Row(portrait.portrait_id, view.name, prompt)

    def reference_trajectory(self, portraits: Sequence[Portrait], top: int) -> list[Trajectory]:
        """The references' latents of levels 0…``top``, computed once per portrait."""
        images = torch.stack([portrait.reference.image for portrait in portraits])
        clean = self.denoiser.encode(images)
        names = [(portrait, portrait.reference) for portrait in portraits]
        raised = self._raised(clean, names, top)
        return [raised.rows([index]) for index in range(len(portraits))]

    def make_views(
        self, jobs: Sequence[ViewJob], references: Sequence[Trajectory], top: int
    ) -> Tensor:
        """Finished images (len(jobs), 3, S, S) of ``top`` steps each.

        ``references``: the trajectory of each job's portrait, at least ``top`` high; one row per
        portrait joins the batch. None are needed without mutual attention.
        """
        clean = self.denoiser.encode(torch.stack([job.composite.image for job in jobs]))
        names = [(job.portrait, job.view) for job in jobs]
        views = self._raised(clean, names, top)
        return self.denoiser.decode(self._denoised(jobs, views, references, top))

    def _raised(
        self, clean: Tensor, names: Sequence[tuple[Portrait, GuideView]], top: int
    ) -> Trajectory:
        if self.config.start == "noise":
            noise = torch.stack([_noise(p, view.name, 0, clean) for p, view in names])
            return with_noise(self.schedule, clean, noise, top)
        condition = self.denoiser.condition([self.prompt_row(*name) for name in names])
        self.count.add(len(clean) * top)
        return invert(self.denoiser, self.schedule, clean, condition, top)

    def _denoised(
        self,
        jobs: Sequence[ViewJob],
        views: Trajectory,
        references: Sequence[Trajectory],
        top: int,
    ) -> Tensor:
        """Clean latents of the jobs' views."""
        layout = _Layout.of(jobs, enabled=self.config.exchange.enabled)
        pinned = None
        start = _starts(jobs, views.at(top), self.config.gates.retry_noise)
        if layout.portraits:
            pinned = stack_trajectories([references[job].upto(top) for job in layout.first_job])
            start = torch.cat([pinned.at(top), start])
        rows = [self.prompt_row(p, p.reference) for p in layout.portraits]
        rows += [self.prompt_row(job.portrait, job.view) for job in jobs]
        condition = self.denoiser.condition(rows)
        exchange = self._exchange(jobs, layout)
        masks = self._masks(jobs)
        latents, head = start, len(layout.portraits)
        for level in range(top, 0, -1):
            if pinned is not None and self.config.exchange.pin_reference:
                latents = torch.cat([pinned.at(level), latents[head:]])
            output = self._predict(latents, level, top, condition, exchange)
            latents = self.schedule.denoise_step(output, level, latents)
            mask = masks.at(top - level, top, self.config.warp.paste_until)
            pasted = paste(latents[head:], views.at(level - 1), mask)
            latents = torch.cat([latents[:head], pasted])
        return latents[head:]

    def _predict(
        self, latents: Tensor, level: int, top: int, condition: Any, exchange: Exchange | None
    ) -> Tensor:
        sampling, S = self.config.sampling, self.schedule.steps
        is_guided = top - level < round(sampling.guided_share * top)
        guidance = sampling.guidance if is_guided else 1.0
        is_exchanging = S - level >= self.config.exchange.first_step_share * S
        self.count.add(len(latents), guidance)
        return self.denoiser.predict(
            latents,
            self.schedule.timestep(level),
            condition,
            exchange=exchange if is_exchanging else None,
            guidance=guidance,
        )

    def _exchange(self, jobs: Sequence[ViewJob], layout: _Layout) -> Exchange | None:
        if not layout.portraits:
            return None
        options = self.config.exchange
        modes: list[ExchangeMode] = ["replace"] * len(layout.portraits)
        for job in jobs:
            turn = turn_deg(job.view.azimuth_deg, job.portrait.reference.azimuth_deg)
            modes.append(options.behind_mode if turn > options.behind_deg else options.mode)
        foreground = None
        if any(mode != "replace" for mode in modes):
            alphas = [p.reference.alpha for p in layout.portraits] + [j.view.alpha for j in jobs]
            factor = self.denoiser.latent_factor
            foreground = functional.avg_pool2d(torch.stack(alphas)[:, None], factor)[:, 0]
        return Exchange.plan(layout.reference_row, modes, foreground, self.denoiser.device)

    def _masks(self, jobs: Sequence[ViewJob]) -> _Masks:
        options, factor = self.config.warp, self.denoiser.latent_factor
        trusted = torch.stack([job.composite.trusted for job in jobs])
        warped = latent_mask(trusted, factor, options.latent_share)
        if not options.hold_background:
            return _Masks(warped, torch.zeros_like(warped))
        alpha = torch.stack([job.view.alpha for job in jobs])
        margin = round(_BACKGROUND_MARGIN_PX * alpha.shape[-1] / _NOMINAL_SIZE)
        return _Masks(warped, background_cells(alpha, factor, margin))


@dataclass(frozen=True)
class _Masks:
    """Latent weights (B, 1, s, s) of what is pasted while warping guides, and always."""

    warped: Tensor
    background: Tensor

    def at(self, step: int, steps: int, paste_until: float) -> Tensor:
        """The weights after a step, counted from 0."""
        if step < round(paste_until * steps):
            return torch.maximum(self.warped, self.background)
        return self.background


@dataclass(frozen=True)
class _Layout:
    """A batch's rows: one per portrait's reference, then the views."""

    portraits: tuple[Portrait, ...]
    first_job: tuple[int, ...]
    """Per portrait, a job of it."""
    reference_row: tuple[int, ...]
    """Per row, the row whose keys and values it reads."""

    @staticmethod
    def of(jobs: Sequence[ViewJob], *, enabled: bool) -> _Layout:
        first: dict[str, int] = {}
        for index, job in enumerate(jobs):
            if enabled and job.reads_reference:
                first.setdefault(job.portrait.portrait_id, index)
        places = {portrait_id: row for row, portrait_id in enumerate(first)}
        head = len(first)
        reads = [
            places[job.portrait.portrait_id] if enabled and job.reads_reference else head + index
            for index, job in enumerate(jobs)
        ]
        return _Layout(
            tuple(jobs[index].portrait for index in first.values()),
            tuple(first.values()),
            (*range(head), *reads),
        )


def turn_deg(azimuth_deg: float, other_deg: float) -> float:
    """Angle between two azimuths, 0…180."""
    return abs((azimuth_deg - other_deg + 180.0) % 360.0 - 180.0)


def _starts(jobs: Sequence[ViewJob], latents: Tensor, share: float) -> Tensor:
    """Where denoising starts: on a second try part of the noise is fresh."""
    return torch.stack(
        [
            stirred(row, _noise(job.portrait, job.view.name, job.attempt, row), share)
            if job.attempt
            else row
            for job, row in zip(jobs, latents, strict=True)
        ]
    )


def _noise(portrait: Portrait, name: str, attempt: int, like: Tensor) -> Tensor:
    """Normal noise of one latent's shape that depends on seed, view and attempt only."""
    text = f"{portrait.seed}/{name}/{attempt}".encode()
    seed = int.from_bytes(hashlib.sha256(text).digest()[:7], "big")
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(like.shape[-3:], generator=generator).to(like)
