from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from _sphere import SIZE, sphere_view

from fc4d_ray.portraits.dlib_models import ScoredBox
from fc4d_ray.priors.image.diffusion.compositing import SourceView, composite_view
from fc4d_ray.priors.image.diffusion.config import GateConfig, WarpConfig
from fc4d_ray.priors.image.diffusion.gates import ViewVerdict, agreement_db, dlib_face_score, judge
from fc4d_ray.priors.image.diffusion.views import Source

CONFIG = GateConfig()


def nothing(picture, head) -> None:
    return None


def _composite(azimuth: float):
    view = sphere_view(azimuth)
    return view, composite_view(
        view, [SourceView(sphere_view(0.0), Source.REFERENCE)], WarpConfig()
    )


def test_a_view_like_its_sources_passes_and_another_fails() -> None:
    view, composite = _composite(15.0)
    good = judge(composite.image, view, composite, CONFIG, nothing)
    assert good.passed and good.agreement_db == 100 and good.coverage == composite.coverage
    bad = judge(1 - composite.image, view, composite, CONFIG, nothing)
    assert bad.failures == ("agreement",) and good.order > bad.order


def test_agreement_is_psnr_over_the_mask() -> None:
    one, mask = torch.zeros(3, 4, 4), torch.zeros(4, 4, dtype=torch.bool)
    assert agreement_db(one, one, mask) is None
    mask[0, 0] = True
    assert abs(agreement_db(one, one + 0.1, mask) - 20) < 1e-4
    assert agreement_db(one * torch.nan, one, mask) == 0


def test_faces_are_looked_for_from_behind_only() -> None:
    asked: list[np.ndarray] = []

    def always(picture, head):
        asked.append(picture)
        assert picture.shape == (SIZE, SIZE, 3) and head.any()
        return 0.3

    for azimuth, found in ((0.0, False), (119.0, False), (121.0, True), (-150.0, True)):
        view = sphere_view(azimuth)
        verdict = judge(view.image, view, composite_view(view, [], WarpConfig()), CONFIG, always)
        assert (verdict.failures == ("face_behind",)) == found
    assert len(asked) == 2
    lenient = replace(CONFIG, face_threshold=0.4)
    view = sphere_view(180.0)
    verdict = judge(view.image, view, composite_view(view, [], WarpConfig()), lenient, always)
    assert verdict.passed and verdict.face_score == 0.3


def test_pictures_that_are_not_finite_fail() -> None:
    view = sphere_view(180.0)
    broken = view.image.clone()
    broken[0, 0, 0] = torch.nan
    verdict = judge(broken, view, composite_view(view, [], WarpConfig()), CONFIG, nothing)
    assert verdict.failures == ("not_finite",)


def test_better_tries_come_first() -> None:
    verdicts = [
        ViewVerdict(0.5, 30.0, None, ()),
        ViewVerdict(0.5, 20.0, None, ()),
        ViewVerdict(0.5, 90.0, 0.1, ("face_behind",)),
        ViewVerdict(0.5, 90.0, 0.2, ("face_behind",)),
        ViewVerdict(0.5, 10.0, 0.2, ("face_behind", "agreement")),
    ]
    assert sorted(verdicts, key=lambda v: v.order, reverse=True) == verdicts
    assert verdicts[2].to_json() == {
        "coverage": 0.5, "agreement_db": 90.0, "face_score": 0.1, "failures": ["face_behind"],
    }  # fmt: skip


def test_boxes_beside_the_head_do_not_count() -> None:
    class Models:
        def find_hog(self, picture, *, upsample, threshold):
            boxes = [(0, 0, 10, 10, 2.0), (20, 20, 40, 40, 0.4), (30, 30, 60, 60, 0.1)]
            return [ScoredBox(np.array(b[:4], float), b[4]) for b in boxes if b[4] > threshold]

    head = np.zeros((64, 64), bool)
    head[20:60, 20:60] = True
    score = dlib_face_score(Models())
    assert score(np.zeros((64, 64, 3), np.uint8), head) == 0.4
    assert score(np.zeros((64, 64, 3), np.uint8), np.zeros_like(head)) is None
