"""A clean latent's way up to noise, level by level: by DDIM inversion or with one fixed noise.

The trajectory of a view's composite is where its denoising starts and what is pasted into it on
every level; the reference's is what its row is pinned to (fact: keys and values then stay exact
whatever the guidance).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from fc4d_ray.priors.image.diffusion.denoiser import Denoiser
from fc4d_ray.priors.image.diffusion.schedule import MatchedSchedule


@dataclass(frozen=True)
class Trajectory:
    """Latents (B, c, s, s) of levels 0 (clean) to k."""

    levels: tuple[Tensor, ...]

    @property
    def top(self) -> int:
        """k, the highest level."""
        return len(self.levels) - 1

    def at(self, level: int) -> Tensor:
        """Latents of a level."""
        return self.levels[level]

    def rows(self, rows: list[int]) -> Trajectory:
        """The trajectory of some rows."""
        return Trajectory(tuple(level[rows] for level in self.levels))

    def upto(self, level: int) -> Trajectory:
        """Without the levels above."""
        return Trajectory(self.levels[: level + 1])


def stack_trajectories(parts: list[Trajectory]) -> Trajectory:
    """The rows of trajectories of equal height, one after the other."""
    return Trajectory(
        tuple(torch.cat(level) for level in zip(*(part.levels for part in parts), strict=True))
    )


def invert(
    denoiser: Denoiser, schedule: MatchedSchedule, clean: Tensor, condition: Any, top: int
) -> Trajectory:
    """DDIM inversion to level ``top``: no guidance, no exchange, no randomness."""
    levels = [clean]
    for level in range(1, top + 1):
        output = denoiser.predict(levels[-1], schedule.timestep(level), condition)
        levels.append(schedule.add_noise_step(output, level, levels[-1]).to(clean.dtype))
    return Trajectory(tuple(levels))


def with_noise(schedule: MatchedSchedule, clean: Tensor, noise: Tensor, top: int) -> Trajectory:
    """The clean latents under one noise tensor at every level; costs no UNet evaluation."""
    return Trajectory(tuple(schedule.noised(clean, noise, level) for level in range(top + 1)))


def stirred(latents: Tensor, noise: Tensor, share: float) -> Tensor:
    """Latents with part of their noise replaced: another start of nearly the same spread.

    ``share`` 0 changes nothing, 1 leaves none of the inverted noise. Used on a view's second try.
    """
    if share == 0:
        return latents
    return (1 - share**2) ** 0.5 * latents + share * noise
