"""Inversion of portraits (paper section 3.1): the latent z first, then the generator's weights.

Several portraits can be inverted at once: the first phase shares the generator and sums their
losses, and as Adam works element by element each comes out as it would alone; the second gives
each a generator of its own, one after the other.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from fc4d_ray.errors import StageFailed
from fc4d_ray.priors.shape.panohead.generator import PanoHeadGenerator, Precision
from fc4d_ray.priors.shape.panohead.inversion_config import (
    InversionConfig,
    learning_rate,
    noise_scale,
)
from fc4d_ray.priors.shape.panohead.labels import move_camera, orbit_label
from fc4d_ray.priors.shape.panohead.perceptual import PerceptualDistance

Progress = Callable[[float, str], None]

_STATISTICS_SEED = 123
_MAPPINGS = ("backbone.mapping.", "t_mapping.")
"""Networks that tuning leaves alone: with z fixed their output is a constant."""
_CHECK_INTERVAL = 10


@dataclass(frozen=True)
class Compute:
    """How steps are computed."""

    precision: Precision = field(default_factory=Precision)
    compiled: bool = False
    """Whether ``torch.compile`` makes the step's kernels; worth its minute on a GPU."""


@dataclass(frozen=True)
class LatentStatistics:
    """What many drawn codes say about w, under the frontal camera."""

    w_deviation: float
    """Root of the summed variances of w's components."""
    z_mean: Tensor  # [1, z], the arbitrary but fixed direction the camera offset is asked for
    z_sorted: Tensor  # [n, z], codes by the distance of their w from the average


@dataclass(frozen=True)
class Targets:
    """P portraits as the generator should render them."""

    images: Tensor  # [P, 3, S, S] -1…1
    labels: Tensor  # [P, 25] cameras, learnt offset included
    weights: Tensor | None = None  # [P, 1, S, S] 0…1, how far differences count; None everywhere


@dataclass(frozen=True)
class InvertedPortrait:
    """One portrait in the generator."""

    z: Tensor  # [z]
    ws: Tensor  # [1, L, w]
    generator: PanoHeadGenerator
    """Tuned to the portrait; the very one given where nothing was tuned."""
    latent_errors: list[float]
    """Mean squared error of images in -1…1, by step of the first phase."""
    tuning_errors: list[float]


@torch.no_grad()
def latent_statistics(generator: PanoHeadGenerator, samples: int) -> LatentStatistics:
    """Mean, spread and order of many codes; the same for every portrait of a checkpoint."""
    device = next(generator.parameters()).device
    drawn = np.random.RandomState(_STATISTICS_SEED).randn(samples, generator.settings.z_size)
    z = torch.from_numpy(drawn).float().to(device)
    front = torch.from_numpy(orbit_label(0)).to(device).expand(samples, -1)
    w = generator.latents(z, front)[:, 0]
    distance = (w - w.mean(0)).square().sum(1)
    order = distance.argsort()
    return LatentStatistics(float(distance.mean().sqrt()), z.mean(0, keepdim=True), z[order])


def with_offset(
    generator: PanoHeadGenerator, statistics: LatentStatistics, labels: Tensor
) -> Tensor:
    """Labels (P, 25) moved by the offset the generator learnt for them."""
    z = statistics.z_mean.expand(len(labels), -1)
    return move_camera(labels, generator.camera_offset(z, labels))


def with_near_plane(generator: PanoHeadGenerator, near: float) -> PanoHeadGenerator:
    """The generator with another near plane; both share their weights."""
    other = copy.copy(generator)
    rays = dataclasses.replace(generator.settings.rays, near=near)
    other.settings = dataclasses.replace(generator.settings, rays=rays)
    return other


def invert(
    generator: PanoHeadGenerator,
    targets: Targets,
    config: InversionConfig,
    perceptual: PerceptualDistance,
    *,
    statistics: LatentStatistics | None = None,
    seed: int = 0,
    compute: Compute | None = None,
    progress: Progress = lambda fraction, message: None,
) -> Iterator[InvertedPortrait]:
    """All portraits' latents at once, then one tuned generator after the other.

    Portrait i draws its noise from ``seed + i``, so that it comes out as it would alone.
    The generator given stays as it was. Raises ``StageFailed`` where a loss becomes non-finite.
    """
    statistics = statistics or latent_statistics(generator, config.statistics_samples)
    render = _Renderer(compute or Compute())
    loss = InversionLoss(targets, config, perceptual)
    split = config.latent_steps / (config.latent_steps + config.tuning_steps * loss.count)
    z, latent_errors = _find_latents(
        generator, render, loss, config, statistics, seed,
        lambda done: progress(done * split, "finding the latent"),
    )  # fmt: skip
    with torch.no_grad():
        ws = generator.latents(z, _front(z))
    for index in range(loss.count):
        tuned, tuning_errors = _tune(
            generator, render, loss.of(index), config, ws[index : index + 1],
            lambda done, i=index: progress(split + (1 - split) * (i + done) / len(z), "tuning"),
        )  # fmt: skip
        errors = [row[index] for row in latent_errors]
        yield InvertedPortrait(z[index], ws[index : index + 1], tuned, errors, tuning_errors)


class _Renderer:
    """Images of one camera per portrait."""

    def __init__(self, compute: Compute) -> None:
        self._precision = compute.precision
        self._image = torch.compile(self._plain_image) if compute.compiled else self._plain_image

    def __call__(self, generator: PanoHeadGenerator, ws: Tensor, labels: Tensor) -> Tensor:
        """(P, 3, S, S) of latents (P, L, w) and labels (P, 25)."""
        return self._image(generator, ws, labels)

    def _plain_image(self, generator: PanoHeadGenerator, ws: Tensor, labels: Tensor) -> Tensor:
        volume = generator.synthesize(ws, precision=self._precision)
        rendering = generator.render(volume, labels[:, None])
        return generator.super_resolve(rendering, volume, self._precision)


class InversionLoss:
    """Squared and perceptual difference to the targets, whose features are computed once."""

    def __init__(
        self, targets: Targets, config: InversionConfig, perceptual: PerceptualDistance
    ) -> None:
        self.targets = targets
        self._config = config
        self._perceptual = perceptual if config.perceptual_weight > 0 else None
        self._features = None
        if self._perceptual is not None and self._perceptual.is_available:
            with torch.no_grad():
                self._features = self._perceptual.features(targets.images)

    @property
    def count(self) -> int:
        return len(self.targets.images)

    def __call__(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Loss (P,) and mean squared error (P,) of images (P, 3, S, S)."""
        difference = images - self.targets.images
        if self.targets.weights is not None:
            difference = difference * self.targets.weights
        error = difference.square().mean((1, 2, 3))
        loss = self._config.mse_weight * error
        if self._features is not None:
            shown = self.targets.images + difference
            distance = self._perceptual.distance(shown, self._features)
            loss = loss + self._config.perceptual_weight * distance
        return loss, error.detach()

    def repeated(self, times: int) -> InversionLoss:
        """The same targets, each ``times`` times in a row."""
        return self._rows(torch.arange(self.count).repeat_interleave(times))

    def of(self, index: int) -> InversionLoss:
        """One portrait's."""
        return self._rows(torch.tensor([index]))

    def _rows(self, rows: Tensor) -> InversionLoss:
        images, labels, weights = (
            None if values is None else values[rows.to(values.device)]
            for values in (self.targets.images, self.targets.labels, self.targets.weights)
        )
        other = copy.copy(self)
        other.targets = Targets(images, labels, weights)
        if self._features is not None:
            other._features = [f[rows.to(f.device)] for f in self._features]
        return other


class _Record:
    """Errors of the steps so far, and whether the losses still fall.

    Values are fetched every few steps only, so that a GPU need not wait for them.
    """

    def __init__(self, config: InversionConfig, phase: str) -> None:
        self._config, self._phase = config, phase
        self._pending: list[tuple[Tensor, Tensor]] = []
        self._best: Tensor | None = None
        self._best_step = 0
        self.errors: list[list[float]] = []

    def add(self, losses: Tensor, errors: Tensor) -> bool:
        """Note a step's losses (P,) and errors (P,); True where no portrait gets on any more."""
        self._pending.append((losses.detach(), errors))
        return len(self._pending) >= _CHECK_INTERVAL and self.flush()

    def flush(self) -> bool:
        """Fetch what is pending. Raises ``StageFailed`` where an error is not finite."""
        if not self._pending:
            return False
        losses = torch.stack([losses for losses, _ in self._pending])
        errors = torch.stack([errors for _, errors in self._pending]).tolist()
        self._pending.clear()
        self.errors += errors
        if not np.isfinite(errors).all():
            raise StageFailed(f"the inversion's {self._phase} diverged: errors {errors[-1]}")
        lowest = losses.amin(0).cpu()
        if self._best is None or (lowest < self._best * (1 - self._config.progress)).any():
            self._best = lowest if self._best is None else torch.minimum(self._best, lowest)
            self._best_step = len(self.errors)
        patience = self._config.patience
        return patience > 0 and len(self.errors) - self._best_step >= patience


def _find_latents(
    generator: PanoHeadGenerator,
    render: _Renderer,
    loss: InversionLoss,
    config: InversionConfig,
    statistics: LatentStatistics,
    seed: int,
    report: Callable[[float], None],
) -> tuple[Tensor, list[list[float]]]:
    """Codes z (P, z) and the errors by step and portrait."""
    starts = config.starts
    first = torch.linspace(0, len(statistics.z_sorted) - 1, starts).long() if starts > 1 else [0]
    z = statistics.z_sorted[first].repeat(loss.count, 1)
    if starts == 1:
        search = _LatentSearch(generator, render, config, statistics, seed)
        z, _ = search.descend(loss, z, config.latent_steps, report)
        return z, search.record.errors
    trial = _LatentSearch(generator, render, config, statistics, seed)
    tried, losses = trial.descend(
        loss.repeated(starts), z, max(config.latent_steps // 10, 1), report
    )
    best = losses.view(loss.count, starts).argmin(1)
    rows = torch.arange(loss.count, device=best.device) * starts + best
    search = _LatentSearch(generator, render, config, statistics, seed + 1, trial.position)
    z, _ = search.descend(loss, tried[rows], config.latent_steps, report)
    chosen = [[row[i] for i in rows.tolist()] for row in trial.record.errors]
    return z, chosen + search.record.errors


class _LatentSearch:
    """Descent on codes along the schedule of rate and noise."""

    def __init__(
        self,
        generator: PanoHeadGenerator,
        render: _Renderer,
        config: InversionConfig,
        statistics: LatentStatistics,
        seed: int,
        position: float = 0.0,
    ) -> None:
        self._generator, self._render, self._config = generator, render, config
        self._deviation = statistics.w_deviation
        self._seed = seed
        self.position = position
        """Along the schedule, 0…1."""
        self.record = _Record(config, "search for the latent")

    def descend(
        self, loss: InversionLoss, z: Tensor, steps: int, report: Callable[[float], None]
    ) -> tuple[Tensor, Tensor]:
        """Codes (P, z) after at most ``steps`` steps and their last losses (P,).

        A plateau skips to the schedule's ramp down, which always runs. Codes keep unit variance,
        which is all the mapping network sees of them.
        """
        config = self._config
        # One source of noise per code: others in the batch make no difference.
        sources = [
            torch.Generator(device=z.device).manual_seed((self._seed + i) % 2**63)
            for i in range(len(z))
        ]
        z = _unit_variance(z).requires_grad_()
        optimiser = torch.optim.Adam([z], betas=(0.9, 0.999), lr=config.latent_rate)
        falling = 1 - config.ramp_down
        losses = torch.zeros(len(z))
        for _ in range(steps):
            if self.position >= 1 - 1e-9:
                break
            optimiser.param_groups[0]["lr"] = learning_rate(self.position, config)
            ws = self._generator.latents(z, _front(z))
            noise = torch.stack(
                [torch.randn(ws.shape[1:], generator=s, device=ws.device) for s in sources]
            )
            ws = ws + noise * (self._deviation * noise_scale(self.position, config))
            losses, errors = loss(self._render(self._generator, ws, loss.targets.labels))
            (z.grad,) = torch.autograd.grad(losses.sum(), z)
            optimiser.step()
            with torch.no_grad():
                z.copy_(_unit_variance(z))
            self.position += 1 / config.latent_steps
            report(self.position)
            if self.record.add(losses, errors) and self.position < falling:
                self.position = falling
        self.record.flush()
        return z.detach(), losses.detach()


def _tune(
    generator: PanoHeadGenerator,
    render: _Renderer,
    loss: InversionLoss,
    config: InversionConfig,
    ws: Tensor,  # [1, L, w]
    report: Callable[[float], None],
) -> tuple[PanoHeadGenerator, list[float]]:
    """A copy of the generator tuned to one portrait with the pivot fixed, and the errors."""
    if config.tuning_steps == 0:
        return generator, []
    tuned = copy.deepcopy(generator)
    leaves = [
        parameter.requires_grad_()
        for name, parameter in tuned.named_parameters()
        if not name.startswith(_MAPPINGS)
    ]
    optimiser = torch.optim.Adam(leaves, betas=(0.9, 0.999), lr=config.tuning_rate)
    record = _Record(config, "tuning")
    for step in range(config.tuning_steps):
        losses, errors = loss(render(tuned, ws, loss.targets.labels))
        optimiser.zero_grad(set_to_none=True)
        losses.sum().backward()
        optimiser.step()
        report((step + 1) / config.tuning_steps)
        if record.add(losses, errors):
            break
    record.flush()
    optimiser.zero_grad(set_to_none=True)
    return tuned.requires_grad_(False), [row[0] for row in record.errors]


def _front(z: Tensor) -> Tensor:
    """The conditioning label (P, 25): the same for all views of one head."""
    return torch.from_numpy(orbit_label(0)).to(z).expand(len(z), -1)


def _unit_variance(z: Tensor) -> Tensor:
    return z.detach() * (z.detach().square().mean(1, keepdim=True) + 1e-8).rsqrt()
