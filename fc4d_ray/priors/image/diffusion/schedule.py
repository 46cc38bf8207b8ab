"""Matched DDIM schedules: what inversion adds, denoising takes away, level by level.

Both directions are diffusers' own schedulers, made from the checkpoint's scheduler settings. A
**level** is the noise of one timestep: level 0 is the clean latent, level j (1…k) the j-th timestep
counted from the clean end. Denoising k steps starts on level k; its step i ends on level k-1-i.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from fc4d_ray.errors import ConfigError

_FORCED = {
    # Both classes' own defaults are for pixels: they would clamp latents and end on alpha 1.
    "clip_sample": False,
    "set_alpha_to_one": False,
    "timestep_spacing": "leading",
}
_TAKEN = (
    "num_train_timesteps", "beta_start", "beta_end", "beta_schedule", "trained_betas",
    "steps_offset", "prediction_type",
)  # fmt: skip
"""What of a checkpoint's settings describes its noise; the rest is its own sampler's business."""
_PREDICTIONS = ("epsilon", "v_prediction")


@dataclass(frozen=True)
class MatchedSchedule:
    """A DDIM scheduler and its inverse over the same S timesteps."""

    forward: Any  # diffusers.DDIMScheduler
    inverse: Any  # diffusers.DDIMInverseScheduler
    timesteps: tuple[int, ...]
    """Rising; ``timesteps[j - 1]`` is the timestep of level j."""

    @property
    def steps(self) -> int:
        """S, the number of steps from pure noise."""
        return len(self.timesteps)

    def partial_steps(self, strength: float) -> int:
        """k, the steps that are run at a strength in (0, 1]; at least one."""
        return max(1, round(self.steps * strength))

    def timestep(self, level: int) -> int:
        """Timestep of a level from 1 to S."""
        return self.timesteps[level - 1]

    def noise_share(self, level: int) -> float:
        """√(1-ᾱ) of a level; that of level 0 is small but not zero."""
        alphas = self.forward.alphas_cumprod
        alpha = self.forward.final_alpha_cumprod if level == 0 else alphas[self.timestep(level)]
        return float((1 - alpha) ** 0.5)

    def add_noise_step(self, output: Tensor, level: int, latents: Tensor) -> Tensor:
        """Latents of level - 1 raised to ``level``; ``output`` is the UNet's at that timestep."""
        return self.inverse.step(output, self.timestep(level), latents).prev_sample

    def denoise_step(self, output: Tensor, level: int, latents: Tensor) -> Tensor:
        """Latents of ``level`` brought to level - 1."""
        return self.forward.step(output, self.timestep(level), latents).prev_sample

    def noised(self, clean: Tensor, noise: Tensor, level: int) -> Tensor:
        """The clean latents with fixed noise at a level's share; level 0 is the clean ones."""
        if level == 0:
            return clean
        alpha = self.forward.alphas_cumprod[self.timestep(level)].to(clean)
        return alpha.sqrt() * clean + (1 - alpha).sqrt() * noise


def match_schedules(scheduler_config: Any, steps: int) -> MatchedSchedule:
    """The schedules of a checkpoint's scheduler settings for ``steps`` steps.

    Raises ``ConfigError`` for settings DDIM cannot run.
    """
    from diffusers import DDIMInverseScheduler, DDIMScheduler

    for name in ("rescale_betas_zero_snr", "thresholding"):
        if scheduler_config.get(name):
            raise ConfigError(
                f"image.model.base: its scheduler has {name} set; DDIM cannot invert it"
            )
    taken = {name: scheduler_config[name] for name in _TAKEN if name in scheduler_config} | _FORCED
    prediction = taken.get("prediction_type", "epsilon")
    if prediction not in _PREDICTIONS:
        raise ConfigError(
            f"image.model.base predicts {prediction!r}; what can be inverted are "
            f"{', '.join(_PREDICTIONS)}"
        )
    forward, inverse = DDIMScheduler(**taken), DDIMInverseScheduler(**taken)
    available = forward.config.num_train_timesteps
    if not 1 <= steps <= available:
        raise ConfigError(f"image.steps must lie in 1…{available}, found {steps}")
    forward.set_timesteps(steps)
    inverse.set_timesteps(steps)
    rising = tuple(int(t) for t in inverse.timesteps)
    if rising != tuple(int(t) for t in reversed(forward.timesteps)):
        raise ConfigError(
            f"image.steps: {steps} steps give inversion and denoising different timesteps"
        )
    return MatchedSchedule(forward, inverse, rising)
