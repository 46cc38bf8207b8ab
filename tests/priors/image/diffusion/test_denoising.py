"""One batch through the loop: what is pasted comes out, what is not is the model's."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from _sphere import sphere_portrait

from fc4d_ray.priors.image.diffusion.backbone import DiffusionBackbone
from fc4d_ray.priors.image.diffusion.compositing import composite_view
from fc4d_ray.priors.image.diffusion.config import ExchangeConfig, WarpConfig
from fc4d_ray.priors.image.diffusion.denoising import Sampler, ViewJob, turn_deg
from fc4d_ray.priors.image.diffusion.schedule import match_schedules

TOP = 3


@pytest.fixture(scope="module")
def backbone(tiny_config) -> DiffusionBackbone:
    return DiffusionBackbone.load(tiny_config("sdxl"))


@pytest.fixture
def sampler(backbone, tiny_config):
    """``sampler(**options)`` on a tiny pipeline."""

    def make(**options) -> Sampler:
        config = tiny_config("sdxl", **options)
        return Sampler(backbone, match_schedules(backbone.scheduler_config, 5), config)

    return make


def _jobs(trusted: bool) -> list[ViewJob]:
    portrait = sphere_portrait(views=3)
    jobs = []
    for view in portrait.views:
        composite = composite_view(view, [], WarpConfig())
        mask = torch.full_like(composite.trusted, trusted)
        jobs.append(ViewJob(portrait, view, replace(composite, trusted=mask)))
    return jobs


def _made(sampler: Sampler, jobs: list[ViewJob]) -> torch.Tensor:
    references = sampler.reference_trajectory([jobs[0].portrait], TOP) * len(jobs)
    return sampler.make_views(jobs, references, TOP)


def test_what_is_pasted_to_the_end_is_the_composite_bit_by_bit(sampler, backbone) -> None:
    """Every level is the composite's own, so the last one is its clean latent."""
    jobs = _jobs(trusted=True)
    made = _made(sampler(warp=WarpConfig(paste_until=1.0)), jobs)
    through_vae = backbone.decode(
        backbone.encode(torch.stack([job.composite.image for job in jobs]))
    )
    assert torch.equal(made, through_vae)
    stopped = _made(sampler(warp=WarpConfig(paste_until=0.5)), jobs)
    assert not torch.equal(stopped, through_vae)
    started = _made(sampler(start="noise", warp=WarpConfig(paste_until=1.0)), jobs)
    assert torch.equal(started, through_vae)


def test_pasting_nothing_equals_no_pasting(sampler) -> None:
    bare = WarpConfig(hold_background=False)
    jobs = _jobs(trusted=False)
    one = _made(sampler(warp=bare), jobs)
    two = _made(sampler(warp=replace(bare, paste_until=0.0)), jobs)
    assert torch.equal(one, two)
    held = _made(sampler(warp=WarpConfig()), jobs)
    assert not torch.equal(held, one), "the background is held in latent space"


def test_partly_guided_runs_cost_less_and_differ(sampler) -> None:
    jobs = _jobs(trusted=False)
    whole, half = sampler(), sampler(guided_share=0.34)
    pictures = [_made(one, jobs) for one in (whole, half)]
    assert not torch.equal(*pictures)
    assert whole.count.rows - half.count.rows == 2 * 4, "two of three steps, four rows"


def test_the_exchange_waits_for_its_first_step(sampler) -> None:
    """Five steps, three run: those at indices 2, 3 and 4. From 0.9 on none of them exchanges."""
    jobs = _jobs(trusted=False)
    never = _made(sampler(exchange=ExchangeConfig(first_step_share=0.9)), jobs)
    alone = _made(sampler(exchange=ExchangeConfig(enabled=False)), jobs)
    torch.testing.assert_close(never, alone, atol=1e-4, rtol=0)
    always = _made(sampler(exchange=ExchangeConfig(first_step_share=0.4)), jobs)
    assert (always - alone).abs().max() > 1e-3


def test_turns_are_angles_between_azimuths() -> None:
    assert [turn_deg(*pair) for pair in ((350, 10), (-170, 170), (0, 180), (90, 90))] == [
        20, 20, 180, 0,
    ]  # fmt: skip
