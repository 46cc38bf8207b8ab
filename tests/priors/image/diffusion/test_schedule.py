"""Levels of the matched schedules, and what inversion followed by denoising returns."""

from __future__ import annotations

import pytest
import torch

from fc4d_ray.errors import ConfigError
from fc4d_ray.priors.image.diffusion.schedule import match_schedules
from fc4d_ray.priors.image.diffusion.trajectory import invert, stirred, with_noise

STABLE_DIFFUSION = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "num_train_timesteps": 1000,
    "steps_offset": 1,
}


class ConstantNoise:
    """A denoiser that sees the same noise in everything."""

    def __init__(self, noise: torch.Tensor) -> None:
        self.noise = noise
        self.timesteps: list[int] = []

    def predict(self, latents, timestep, condition, **options):
        self.timesteps.append(timestep)
        return self.noise.expand_as(latents)


class ConstantVelocity(ConstantNoise):
    """The same for a checkpoint that predicts v: the noise is constant, v follows from it."""

    def __init__(self, noise, schedule) -> None:
        super().__init__(noise)
        self.schedule = schedule

    def predict(self, latents, timestep, condition, **options):
        """v = (eps - sqrt(1-a) z) / sqrt(a), with a that of the level the latents are on."""
        level = self.schedule.timesteps.index(timestep) + 1
        alphas = self.schedule.forward.alphas_cumprod
        on = self.level_of(latents, level)
        alpha = (
            self.schedule.forward.final_alpha_cumprod
            if on == 0
            else alphas[self.schedule.timestep(on)]
        )
        return (self.noise - (1 - alpha).sqrt() * latents) / alpha.sqrt()

    def level_of(self, latents, level: int) -> int:
        return level - 1 if self.rising else level

    rising = True


@pytest.mark.parametrize(
    ("steps", "first", "last"),
    [(50, [1, 21, 41], [961, 981]), (30, [1, 34, 67], [925, 958]), (20, [1, 51, 101], [901, 951])],
)
def test_both_directions_share_the_timesteps(steps, first, last) -> None:
    schedule = match_schedules(STABLE_DIFFUSION, steps)
    assert list(schedule.timesteps[:3]) == first and list(schedule.timesteps[-2:]) == last
    assert schedule.timestep(1) == 1 and schedule.timestep(steps) == last[-1]


def test_noise_shares_are_those_of_stable_diffusion() -> None:
    schedule = match_schedules(STABLE_DIFFUSION, 50)
    assert schedule.noise_share(50) == pytest.approx(0.997, abs=1e-3)
    assert schedule.noise_share(30) == pytest.approx(0.90, abs=0.01)
    assert 1 - schedule.noise_share(0) ** 2 == pytest.approx(0.99915, abs=1e-5)
    assert [schedule.partial_steps(s) for s in (1.0, 0.6, 0.75, 0.001)] == [50, 30, 38, 1]


@pytest.mark.parametrize("steps", [50, 30, 20])
@pytest.mark.parametrize("strength", [1.0, 0.6, 0.25])
def test_constant_noise_returns_the_input(steps, strength) -> None:
    schedule = match_schedules(STABLE_DIFFUSION, steps)
    clean = torch.randn(2, 4, 4, 4, dtype=torch.float64)
    denoiser = ConstantNoise(torch.randn(1, 4, 4, 4, dtype=torch.float64))
    top = schedule.partial_steps(strength)
    raised = invert(denoiser, schedule, clean, None, top)
    assert raised.top == top and torch.equal(raised.at(0), clean)
    latents = raised.at(top)
    for level in range(top, 0, -1):
        output = denoiser.predict(latents, schedule.timestep(level), None)
        latents = schedule.denoise_step(output, level, latents)
        # After the step from a level the latents are on the level below: the stored ones.
        torch.testing.assert_close(latents, raised.at(level - 1), atol=1e-6, rtol=0)
    torch.testing.assert_close(latents, clean, atol=1e-6, rtol=0)
    up, down = denoiser.timesteps[:top], denoiser.timesteps[top:]
    assert up == down[::-1] == list(schedule.timesteps[:top])


def test_checkpoints_that_predict_velocity_round_trip_too() -> None:
    schedule = match_schedules(STABLE_DIFFUSION | {"prediction_type": "v_prediction"}, 20)
    clean = torch.randn(1, 4, 4, 4, dtype=torch.float64)
    denoiser = ConstantVelocity(torch.randn(1, 4, 4, 4, dtype=torch.float64), schedule)
    raised = invert(denoiser, schedule, clean, None, 12)
    denoiser.rising = False
    latents = raised.at(12)
    for level in range(12, 0, -1):
        output = denoiser.predict(latents, schedule.timestep(level), None)
        latents = schedule.denoise_step(output, level, latents)
    torch.testing.assert_close(latents, clean, atol=1e-6, rtol=0)


def test_levels_of_one_fixed_noise_match_the_schedulers_own() -> None:
    schedule = match_schedules(STABLE_DIFFUSION, 20)
    clean, noise = torch.randn(1, 4, 4, 4), torch.randn(1, 4, 4, 4)
    raised = with_noise(schedule, clean, noise, 12)
    assert torch.equal(raised.at(0), clean)
    for level in (1, 7, 12):
        expected = schedule.forward.add_noise(
            clean, noise, torch.tensor([schedule.timestep(level)])
        )
        torch.testing.assert_close(raised.at(level), expected)
    # One denoising step with that very noise goes to the level below.
    lower = schedule.denoise_step(noise, 12, raised.at(12))
    torch.testing.assert_close(lower, raised.at(11), atol=1e-5, rtol=0)


def test_stirring_keeps_the_spread_and_none_changes_nothing() -> None:
    generator = torch.Generator().manual_seed(0)
    latents, noise = (torch.randn(4, 64, 64, generator=generator) for _ in range(2))
    assert stirred(latents, noise, 0) is latents
    assert torch.equal(stirred(latents, noise, 1), noise)
    mixed = stirred(latents, noise, 0.5)
    assert mixed.std() == pytest.approx(1, abs=0.03)
    assert 0.8 < torch.corrcoef(torch.stack([mixed.flatten(), latents.flatten()]))[0, 1] < 0.92


def test_settings_that_are_wrong_for_latents_are_overruled() -> None:
    schedule = match_schedules(
        STABLE_DIFFUSION | {"clip_sample": True, "timestep_spacing": "linspace"}, 10
    )
    for scheduler in (schedule.forward, schedule.inverse):
        assert not scheduler.config.clip_sample
        assert scheduler.config.timestep_spacing == "leading"
        assert not scheduler.config.set_alpha_to_one
    assert float(schedule.inverse.initial_alpha_cumprod) == pytest.approx(0.99915, abs=1e-5)


@pytest.mark.parametrize(
    ("settings", "steps", "message"),
    [
        ({"prediction_type": "sample"}, 10, "predicts 'sample'"),
        ({"rescale_betas_zero_snr": True}, 10, "rescale_betas_zero_snr set; DDIM cannot invert it"),
        ({}, 1001, "image.steps must lie in 1…1000"),
    ],
)
def test_schedules_that_cannot_be_inverted_are_refused(settings, steps, message) -> None:
    with pytest.raises(ConfigError, match=message):
        match_schedules(STABLE_DIFFUSION | settings, steps)
