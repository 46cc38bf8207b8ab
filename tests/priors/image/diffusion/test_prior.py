"""The whole prior on spheres with tiny pipelines: batches, switches, gates, memory.

What random networks paint means nothing; what is tested is who gets what from whom.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from _sphere import SIZE, sphere_portrait

from fc4d_ray.errors import StageFailed
from fc4d_ray.priors.image.diffusion.backbone import DiffusionBackbone
from fc4d_ray.priors.image.diffusion.config import ExchangeConfig, GateConfig, WarpConfig
from fc4d_ray.priors.image.diffusion.prior import MultiviewPrior

NO_GATES = GateConfig(retries=0)


def no_face(picture, head) -> None:
    return None


@pytest.fixture(scope="module")
def backbone(tiny_config) -> DiffusionBackbone:
    return DiffusionBackbone.load(tiny_config("sd15"))


@pytest.fixture(scope="module", params=["sd15", "sdxl"])
def any_backbone(request, tiny_config) -> DiffusionBackbone:
    return DiffusionBackbone.load(tiny_config(request.param))


@pytest.fixture(scope="module")
def enhance(tiny_config):
    """Runs the prior: ``enhance(backbone, portraits, **options)``."""

    def run(backbone, portraits, face_score=no_face, **options):
        options = {"gates": NO_GATES} | options
        prior = MultiviewPrior(backbone, tiny_config(backbone.kind, **options), face_score)
        return prior, prior.enhance(portraits)

    return run


@pytest.fixture(scope="module")
def plain(backbone, enhance):
    """Views of the usual portrait with the usual options."""
    return enhance(backbone, [sphere_portrait()])[1][0]


def _images(views) -> torch.Tensor:
    return torch.stack([view.view.image for view in views])


def test_every_view_is_made_in_order_with_its_record(any_backbone, enhance) -> None:
    portrait = sphere_portrait(views=6)
    _, (views,) = enhance(any_backbone, [portrait])
    assert [v.view.name for v in views] == [v.name for v in portrait.views]
    assert _images(views).shape == (6, 3, SIZE, SIZE)
    assert torch.isfinite(_images(views)).all()
    by_azimuth = {v.view.azimuth_deg: v for v in views}
    assert by_azimuth[180].sources == () and by_azimuth[180].wave == 0
    assert by_azimuth[60].sources == ("reference",)
    assert by_azimuth[120].sources == ("az+180_el+00",)
    assert by_azimuth[60].verdict.coverage > 0.2 and by_azimuth[180].verdict.coverage == 0
    record = by_azimuth[60].to_json()
    assert record["failures"] in ([], ["agreement"]) and record["attempts"] == 1


def test_a_portraits_result_does_not_depend_on_its_batch(any_backbone, enhance) -> None:
    """Other batch sizes, other company: equal up to 1e-3 of full scale over the whole chain.

    One evaluation is equal to 1e-5 (test_attention.py); wave by wave, sums in another order grow.
    """
    ann, eve = sphere_portrait("ann", 3), replace(sphere_portrait("eve", 3, tint=0.2), seed=9)
    _, (alone,) = enhance(any_backbone, [ann], batch_rows=2)
    _, (first, second) = enhance(any_backbone, [ann, eve], batch_rows=16)
    _, (_, again) = enhance(any_backbone, [eve, ann], batch_rows=3)
    torch.testing.assert_close(_images(first), _images(alone), atol=1e-3, rtol=0)
    torch.testing.assert_close(_images(again), _images(alone), atol=1e-3, rtol=0)
    assert (_images(second) - _images(first)).abs().max() > 0.01


def test_equal_seeds_give_equal_bits(backbone, enhance, plain) -> None:
    _, (again,) = enhance(backbone, [sphere_portrait()])
    assert torch.equal(_images(again), _images(plain))


def test_the_seed_matters_only_where_noise_is_drawn(backbone, enhance, plain) -> None:
    other = replace(sphere_portrait(), seed=4)
    assert torch.equal(_images(enhance(backbone, [other])[1][0]), _images(plain))
    noised = [
        _images(enhance(backbone, [portrait], start="noise")[1][0])
        for portrait in (sphere_portrait(), sphere_portrait(), other)
    ]
    assert torch.equal(noised[0], noised[1]) and not torch.equal(noised[0], noised[2])


def test_every_switch_of_the_ablation_changes_the_pictures(backbone, enhance) -> None:
    off = {"exchange": ExchangeConfig(enabled=False), "warp": WarpConfig(enabled=False)}
    variants = {
        "both": {},
        "no warp": {"warp": off["warp"]},
        "no attention": {"exchange": off["exchange"]},
        "neither": off,
    }
    images = {}
    for name, options in variants.items():
        _, (views,) = enhance(backbone, [sphere_portrait(tint=0.1)], **options)
        images[name] = _images(views)
        covered = [v.verdict.coverage for v in views]
        assert (max(covered) > 0) == ("warp" not in options)
    names = list(images)
    for i, one in enumerate(names):
        for other in names[i + 1 :]:
            assert (images[one] - images[other]).abs().max() > 1e-3, (one, other)


def test_the_rows_are_those_of_the_cost_table(backbone, enhance) -> None:
    """k inversion steps per image, k guided ones per view and per reference row and loop."""
    options = {"steps": 10, "strength": 0.4, "back_strength": 0.6}
    prior, _ = enhance(backbone, [sphere_portrait(views=4)], **options)
    k, back, loops = 4, 6, 1
    inversion = 3 * k + back + back
    denoising = 2 * (3 + loops) * k + 2 * 2 * back
    assert prior.sampler.count.rows == inversion + denoising
    prior, _ = enhance(backbone, [sphere_portrait(views=4)], **options, guidance=1.0)
    assert prior.sampler.count.rows == inversion + denoising // 2
    prior, _ = enhance(backbone, [sphere_portrait(views=4)], **options, start="noise")
    assert prior.sampler.count.rows == denoising


def test_without_pinning_the_reference_walks_its_own_way(backbone, enhance, plain) -> None:
    loose = ExchangeConfig(pin_reference=False)
    _, (walked,) = enhance(backbone, [sphere_portrait()], exchange=loose)
    assert not torch.equal(_images(plain), _images(walked))
    assert torch.isfinite(_images(walked)).all()


def test_a_face_behind_is_tried_again_without_the_reference(backbone, enhance, plain) -> None:
    looked: list[int] = []

    def face_on_first_look(picture, head):
        looked.append(1)
        return 0.9 if len(looked) == 1 else None

    gates = GateConfig(retries=2, min_agreement_db=0)
    _, (views,) = enhance(backbone, [sphere_portrait()], face_on_first_look, gates=gates)
    back = next(view for view in views if view.view.azimuth_deg == 180)
    assert len(looked) == 2 and back.attempts == 2 and back.verdict.passed
    first = next(view for view in plain if view.view.azimuth_deg == 180)
    assert not torch.equal(back.view.image, first.view.image)


def test_the_budget_ends_the_tries_and_the_best_one_stays(backbone, enhance) -> None:
    scores = iter([0.5, 0.2, 0.8, 0.9])
    looked: list[torch.Tensor] = []

    def always_a_face(picture, head):
        looked.append(picture.copy())
        return next(scores)

    gates = GateConfig(retries=2, min_agreement_db=0)
    _, (views,) = enhance(backbone, [sphere_portrait()], always_a_face, gates=gates)
    back = next(view for view in views if view.view.azimuth_deg == 180)
    assert len(looked) == 3 and back.attempts == 3
    assert back.verdict.face_score == 0.2 and back.verdict.failures == ("face_behind",)
    assert not np.array_equal(looked[0], looked[1])


def test_giving_up_can_be_asked_for(backbone, enhance) -> None:
    gates = GateConfig(retries=1, on_failure="fail")
    with pytest.raises(StageFailed, match="az\\+180_el\\+00 failed face_behind after 2 attempts"):
        enhance(backbone, [sphere_portrait()], lambda picture, head: 1.0, gates=gates)


def test_disagreement_with_what_was_warped_fails_the_gate(backbone, enhance) -> None:
    _, (views,) = enhance(backbone, [sphere_portrait()], gates=GateConfig(0, min_agreement_db=99))
    side = next(view for view in views if view.view.azimuth_deg == 90)
    assert side.verdict.failures == ("agreement",) and side.verdict.agreement_db < 99
    assert next(v for v in views if v.view.azimuth_deg == 180).verdict.agreement_db is None


def test_running_out_of_memory_shrinks_the_batch_and_changes_nothing(
    backbone, enhance, plain, monkeypatch
) -> None:
    original = backbone.predict

    def small(latents, *arguments, **options):
        if len(latents) > 3:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory")
        return original(latents, *arguments, **options)

    monkeypatch.setattr(backbone, "predict", small)
    prior, (views,) = enhance(backbone, [sphere_portrait()], batch_rows=8)
    assert prior.budget.shrinks and prior.budget.rows <= 3
    torch.testing.assert_close(_images(views), _images(plain), atol=1e-3, rtol=0)

    def none(latents, *arguments, **options):
        raise torch.cuda.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(backbone, "predict", none)
    with pytest.raises(StageFailed, match="single view in the batch"):
        enhance(backbone, [sphere_portrait()], batch_rows=8)


def test_odd_and_uneven_views_are_made_too(backbone, enhance) -> None:
    portrait = sphere_portrait(views=5)
    some = replace(portrait, views=(portrait.views[3], portrait.views[1], portrait.views[0]))
    _, (views,) = enhance(backbone, [some])
    assert [v.view.name for v in views] == [v.name for v in some.views]


def test_portraits_need_ids_of_their_own(backbone, enhance) -> None:
    with pytest.raises(ValueError, match="different ids"):
        enhance(backbone, [sphere_portrait("ann"), sphere_portrait("ann")])


def test_the_memory_probe_runs_as_many_rows_as_it_is_told(backbone, enhance, monkeypatch) -> None:
    prior, _ = enhance(backbone, [sphere_portrait(views=2)])
    rows: list[int] = []
    original = backbone.predict
    monkeypatch.setattr(
        backbone, "predict", lambda z, *a, **o: (rows.append(len(z)), original(z, *a, **o))[1]
    )
    for count in (2, 4):
        prior._probe(count)
    assert rows == [2, 4]
