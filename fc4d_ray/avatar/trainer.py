"""Runs an avatar training from start, or checkpoint, to result (paper sections 3.4 and 4)."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fc4d_ray.avatar.binding import local_to_world
from fc4d_ray.avatar.checkpoint import fingerprint, load_checkpoint, save_checkpoint
from fc4d_ray.avatar.config import TrainConfig
from fc4d_ray.avatar.curves import Curves, ScalarLog, write_preview
from fc4d_ray.avatar.frames import FrameSource, Sample, check_source, sample_order
from fc4d_ray.avatar.gaussians import Gaussians
from fc4d_ray.avatar.losses import psnr
from fc4d_ray.avatar.objective import Picture
from fc4d_ray.avatar.splatting import render_splats
from fc4d_ray.avatar.structure import StructureLoss, make_structure_loss
from fc4d_ray.avatar.training import Training
from fc4d_ray.errors import ConfigError
from fc4d_ray.heads.protocol import PosableMesh

Progress = Callable[[float, str], None]

_FINITE_CHECK_STEPS = 100
_MEASURED_VIEWS = 8


@dataclass(frozen=True)
class TrainResult:
    """What a training gives."""

    gaussians: Gaussians
    """For playback: the reference view's offsets are added to the base colours."""
    base: Gaussians
    """Without offsets."""
    parameters: dict[str, Tensor]
    """Head-model parameters (T, d), refined where the config says so."""
    facts: dict[str, Any]
    """``n_splats``, ``steps``, ``structure_loss``, ``psnr_reference`` and ``psnr_static`` (dB, of
    the playback avatar on whole pictures), ``psnr_own_offsets`` (each view with its own offsets),
    ``seconds`` by part, ``resumed_at``."""


def train_avatar(
    mesh: PosableMesh,
    frames: FrameSource,
    gaussians: Gaussians,
    config: TrainConfig,
    seed: int,
    checkpoint_dir: Path | None = None,
    progress: Progress | None = None,
    output_dir: Path | None = None,
    grown: NDArray[np.floating] | None = None,  # [F] areas at rest
) -> TrainResult:
    """Train ``gaussians`` bound to ``mesh`` on ``frames``.

    ``grown`` says of faces that fold, such as lids, how many times their area at rest they reach,
    and 1 of all others. Their splats learn only from poses that unfold them: at rest a lid is a
    sliver that an open eye's edge is mixed with, and would teach a shut eye to look like that.

    Equal arguments give equal bits on CPU, also across an interruption: where ``checkpoint_dir``
    holds a checkpoint of this very training, it goes on from there. ``output_dir`` receives
    ``curves.csv``, ``previews/`` and ``tensorboard/``. Exceptions raised by ``progress`` end the
    training after its last checkpoint.

    Raises ``TrainingDiverged`` on non-finite values, ``StageFailed`` on unusable frames,
    ``WeightsMissing`` where the structural loss lacks its weights, ``ConfigError`` where the
    device does not exist, ``StoreError`` where a checkpoint cannot be written.
    """
    _check_device(config.device)
    check_source(frames)
    structure = _structure(config)
    training = Training(mesh, frames, gaussians, config, seed, structure, grown)
    mark = fingerprint(config, seed, frames, gaussians, grown)
    run = _Run(training, mark, checkpoint_dir, output_dir)
    order = sample_order(
        frames,
        static_steps=config.static_steps,
        coin_steps=config.coin_steps,
        static_fraction=config.coin.static_fraction,
        reference_fraction=config.reference_fraction,
        seed=seed,
    )
    resumed_at = run.resume()
    try:
        for sample in order[training.step :]:
            run.step(sample, progress or _silent)
    finally:
        run.close()
    training.check_finite()
    return _result(training, structure, resumed_at)


class _Run:
    """What goes on around the steps: logging, checkpoints, previews."""

    def __init__(
        self, training: Training, mark: str, checkpoint_dir: Path | None, output_dir: Path | None
    ) -> None:
        self._training = training
        self._config = training.config
        self._mark = mark
        self._checkpoint_dir = checkpoint_dir
        self._output_dir = output_dir
        self._curves = Curves([], [])
        if output_dir is not None:
            output_dir.mkdir(parents=True, exist_ok=True)
        wants_events = output_dir is not None and self._config.tensorboard
        self._scalars = ScalarLog(output_dir / "tensorboard" if wants_events else None)
        self._total = self._config.static_steps + self._config.coin_steps
        self._last_checkpoint_s = self._clock_s = time.monotonic()
        self._seconds = 0.0

    def resume(self) -> int:
        """Go back to the checkpoint, if there is one; returns the step it was taken at."""
        if self._checkpoint_dir is None:
            return 0
        state = load_checkpoint(self._checkpoint_dir, self._mark)
        if state is None:
            return 0
        self._training.restore(state["training"])
        self._curves = Curves(state["rows"], state["pending"])
        self._seconds = state["seconds"]
        return self._training.step

    def step(self, sample: Sample, progress: Progress) -> None:
        """One step and whatever is due after it."""
        training, config = self._training, self._config
        stage = "coin" if training.in_coin else "static"
        self._curves.add(training.advance(sample))
        now = time.monotonic()
        self._seconds, self._clock_s = self._seconds + now - self._clock_s, now
        is_last = training.step == self._total
        if training.step % _FINITE_CHECK_STEPS == 0:
            training.check_finite()
        if training.step % config.log_interval == 0 or is_last:
            self._log(stage, progress)
        if config.preview_interval and training.step % config.preview_interval == 0:
            self._preview()
        if is_last or self._checkpoint_is_due():
            self._checkpoint()

    def _log(self, stage: str, progress: Progress) -> None:
        step = self._training.step
        row = self._curves.close_row(step, stage, len(self._training.gaussians), self._seconds)
        self._scalars.add(row)
        if self._output_dir is not None:
            self._curves.write(self._output_dir / "curves.csv")
        progress(step / self._total, f"{stage} {step}/{self._total}, {row['psnr']:.1f} dB")

    def _checkpoint_is_due(self) -> bool:
        config, step = self._config, self._training.step
        by_steps = config.checkpoint_interval_steps
        if by_steps and step % by_steps == 0:
            return True
        by_time = config.checkpoint_interval_s
        return by_time > 0 and time.monotonic() - self._last_checkpoint_s >= by_time

    def _checkpoint(self) -> None:
        if self._checkpoint_dir is None:
            return
        self._training.check_finite()
        state = {
            "training": self._training.state(),
            "rows": self._curves.rows,
            "pending": self._curves.pending,
            "seconds": self._seconds,
        }
        save_checkpoint(self._checkpoint_dir, self._mark, state)
        self._last_checkpoint_s = time.monotonic()

    def _preview(self) -> None:
        if self._output_dir is None:
            return
        training = self._training
        sample = _reference_sample(training.source)
        picture = _whole_picture(training, sample)
        images = [picture.target]
        for gaussians in (training.gaussians.detached(), training.playback()):
            images.append(_render(training, gaussians, sample, picture))
        path = self._output_dir / "previews" / f"step_{training.step:06d}.png"
        write_preview(path, [image.cpu().numpy() for image in images])

    def close(self) -> None:
        self._scalars.close()


def _check_device(name: str) -> None:
    try:
        torch.zeros(1, device=name)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).partition("\n")[0]
        raise ConfigError(f"train.device {name!r} cannot be used here: {reason}") from error


def _structure(config: TrainConfig) -> StructureLoss | None:
    coin = config.coin
    if not coin.enabled or config.coin_steps == 0 or coin.structure_weight == 0:
        return None
    return make_structure_loss(coin.structure, coin.lpips_backbone, config.device)


def _result(training: Training, structure: StructureLoss | None, resumed_at: int) -> TrainResult:
    playback, base = training.playback(), training.gaussians.detached()
    source = training.source
    static = [Sample(*s) for s in source.static_samples]
    chosen = [
        static[i] for i in np.linspace(0, len(static) - 1, _MEASURED_VIEWS).round().astype(int)
    ]
    chosen = list(dict.fromkeys(chosen))
    own = [_measure(training, training.playback(s.view), s) for s in chosen]
    facts = {
        "n_splats": len(playback),
        "steps": training.step,
        "structure_loss": structure.name if structure is not None else "none",
        "psnr_reference": round(_measure(training, playback, _reference_sample(source)), 3),
        "psnr_static": round(float(np.mean([_measure(training, playback, s) for s in chosen])), 3),
        "psnr_own_offsets": round(float(np.mean(own)), 3),
        "seconds": {part: round(value, 2) for part, value in training.seconds.items()},
        "resumed_at": resumed_at,
    }
    parameters = {name: rows.detach().cpu() for name, rows in training.parameters.items()}
    return TrainResult(playback.to("cpu"), base.to("cpu"), parameters, facts)


def _reference_sample(source: FrameSource) -> Sample:
    """The static picture of the reference view, or the first one where the orbit has none."""
    static = [Sample(*s) for s in source.static_samples]
    return next((s for s in static if s.view == source.reference_view), static[0])


def _whole_picture(training: Training, sample: Sample) -> Picture:
    frame = training.source.load(sample)
    return training.picture_of(
        frame, training.source.views[sample.view], sample.view, np.ones(3, np.float32)
    )


@torch.no_grad()
def _render(training: Training, gaussians: Gaussians, sample: Sample, picture: Picture) -> Tensor:
    frames = training.poses.frames(sample.time).gather(gaussians.binding)
    splats = local_to_world(gaussians, frames)
    return render_splats(splats, picture.camera, picture.background).image


def _measure(training: Training, gaussians: Gaussians, sample: Sample) -> float:
    picture = _whole_picture(training, sample)
    return float(psnr(_render(training, gaussians, sample, picture), picture.target))


def _silent(fraction: float, message: str) -> None:
    """Report to nobody."""
