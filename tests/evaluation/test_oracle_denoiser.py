"""The ablation that means something without weights: a denoiser that knows synthetic people."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

from fc4d_ray.evaluation.oracle_denoiser import OracleConfig, OracleDenoiser, blurred
from fc4d_ray.evaluation.synthetic import make_person
from fc4d_ray.priors.image.diffusion.attention import Exchange
from fc4d_ray.priors.image.diffusion.denoiser import Row
from fc4d_ray.priors.image.diffusion.schedule import match_schedules
from fc4d_ray.priors.image.diffusion.trajectory import invert

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
SIZE = 128


@pytest.fixture(scope="module")
def ablation():
    """The benchmark's module."""
    sys.path.insert(0, str(BENCHMARKS))
    try:
        import oracle_denoiser
    finally:
        sys.path.remove(str(BENCHMARKS))
    return oracle_denoiser


@pytest.fixture(scope="module")
def cases(ablation):
    return [ablation.make_case(make_person(seed), SIZE, views=6) for seed in (1, 4)]


@pytest.fixture(scope="module")
def figures(ablation, cases):
    """Of every variant of the ablation."""
    return {
        name: ablation.measure(cases, ablation.enhance(cases, OracleConfig(), 8, **options))
        for name, options in ablation.variants().items()
    }


def test_warping_beats_none_in_agreement_and_in_truth(figures) -> None:
    for without, with_warping in (("neither", "warping"), ("mutual attention", "both")):
        assert figures[with_warping].cross_view < 0.95 * figures[without].cross_view
        assert figures[with_warping].mean_psnr > figures[without].mean_psnr + 0.2


def test_mutual_attention_makes_views_agree_and_its_rows_matter(figures) -> None:
    plain, mutual = figures["neither"], figures["mutual attention"]
    wrong = figures["mutual attention, wrong rows"]
    assert mutual.cross_view < 0.9 * plain.cross_view
    assert mutual.psnr[0] > plain.psnr[0] + 0.5
    assert wrong.mean_psnr < mutual.mean_psnr - 0.5
    assert wrong.psnr[0] < mutual.psnr[0] - 1.0
    assert figures["both"].cross_view == min(f.cross_view for f in figures.values())


def test_encoding_is_exact_and_inversion_keeps_the_picture(cases) -> None:
    case = cases[0]
    oracle = OracleDenoiser({case.portrait.portrait_id: case.truth})
    images = torch.stack([view.image for view in case.portrait.views[:2]])
    clean = oracle.encode(images)
    torch.testing.assert_close(oracle.decode(clean), images)
    rows = [Row(case.portrait.portrait_id, v.name, "") for v in case.portrait.views[:2]]
    schedule = match_schedules(oracle.scheduler_config, 50)
    condition = oracle.condition(rows)
    latents = invert(oracle, schedule, clean, condition, 30).at(30)
    for level in range(30, 0, -1):
        output = oracle.predict(latents, schedule.timestep(level), condition)
        latents = schedule.denoise_step(output, level, latents)
    assert (oracle.decode(latents) - images).abs().mean() < 0.02
    # Guided, the same start leads to the oracle's own idea of the view.
    guided = oracle.predict(clean, schedule.timestep(30), condition, guidance=4.0)
    assert not torch.equal(guided, oracle.predict(clean, schedule.timestep(30), condition))


def test_round_trips_lose_less_with_more_steps_and_less_strength(cases, monkeypatch) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    from inversion_roundtrip import round_trip_error

    case = cases[0]
    oracle = OracleDenoiser({case.portrait.portrait_id: case.truth})
    view = case.portrait.views[1]
    row = Row(case.portrait.portrait_id, view.name, "")

    def error(steps: int, strength: float) -> float:
        return round_trip_error(oracle, view.image, row, steps, strength)

    assert 0.03 > error(10, 0.6) * 0.5 > error(40, 0.6) > 0
    assert error(20, 0.3) < error(20, 0.6) < error(20, 1.0)


def test_attention_of_a_view_to_itself_changes_little_and_to_the_reference_much(cases) -> None:
    case = cases[0]
    oracle = OracleDenoiser({case.portrait.portrait_id: case.truth}, OracleConfig(reach_m=0.004))
    view = case.portrait.views[0]
    rows = [Row(case.portrait.portrait_id, name, "") for name in ("reference", view.name)]
    latents = oracle.encode(torch.stack([case.portrait.reference.image, view.image]))
    condition = oracle.condition(rows)
    timestep = 581
    alpha = float(oracle._alphas[timestep])

    def idea(exchange: Exchange | None) -> torch.Tensor:
        noise = oracle.predict(latents, timestep, condition, exchange=exchange, guidance=4.0)
        clean = (latents - (1 - alpha) ** 0.5 * noise) / alpha**0.5
        return oracle.decode(clean)[1]

    truth = case.truth[view.name]
    mask = truth.alpha > 0.99
    plain, mutual = idea(None), idea(Exchange.plan([0, 0], ["replace"] * 2))
    wrong = (plain - truth.image)[:, mask].abs().mean()
    assert (mutual - truth.image)[:, mask].abs().mean() < 0.7 * wrong


def test_blur_keeps_constants_and_means() -> None:
    picture = torch.rand(3, 20, 20, generator=torch.Generator().manual_seed(0))
    assert blurred(picture, 0) is picture
    torch.testing.assert_close(blurred(torch.full((3, 9, 9), 0.3), 2.0), torch.full((3, 9, 9), 0.3))
    assert blurred(picture, 1.5).std() < 0.5 * picture.std()
