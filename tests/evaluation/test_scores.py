from __future__ import annotations

import numpy as np
import pytest

from fc4d_ray.evaluation.image_sets.contract import ImageKey
from fc4d_ray.evaluation.metrics.frechet import frechet_distance
from fc4d_ray.evaluation.scores import SubjectFigures, score

MODELS = {"clip": "tiny", "dlib": "d"}
MISSING = {"arcface": "weights missing", "lpips": "weights missing"}


def subject(
    method, name, clip, dlib=None, inception=None, models=None, **figures
) -> SubjectFigures:
    dlib = [0.1] * len(clip) if dlib is None else dlib
    images = {
        ImageKey(name, f"v{i}"): {"clip_i": c, "id_dlib_distance": d}
        for i, (c, d) in enumerate(zip(clip, dlib, strict=True))
    }
    known = {"has_reference": True, **figures}
    return SubjectFigures(method, name, known, images, models or MODELS, inception)


def test_means_over_views_then_subjects_by_hand() -> None:
    table = score(
        [subject("a", "ann", [1.0, 0.5]), subject("a", "eve", [0.2, 0.4])],
        MISSING | {"inception": "gone"},
    )
    cell = table.cells["a", "clip_i"]
    assert cell.value == pytest.approx((0.75 + 0.3) / 2)
    assert (cell.subjects, cell.images, cell.of) == (2, 4, 4)
    assert cell.interval.low == pytest.approx(0.3) and cell.interval.high == pytest.approx(0.75)


def test_what_is_missing_is_null_with_its_reason_and_never_zero() -> None:
    table = score([subject("a", "ann", [1.0])], MISSING | {"inception": "gone"})
    assert table.cells["a", "id_arcface"].value is None
    assert table.cells["a", "id_arcface"].note == "weights missing"
    assert table.cells["a", "fid"].note == "gone"
    assert table.cells["a", "psnr"].note == "no true pictures are given"
    assert table.cells["a", "akd_px"].value is None


def test_methods_meet_on_the_views_all_have() -> None:
    ours = [subject("ours", "ann", [0.9, 0.9], [0.2, 0.4]), subject("ours", "eve", [0.5, 0.5])]
    theirs = [
        subject("theirs", "ann", [0.8, 0.6], [0.3, None]),
        subject("theirs", "bob", [1.0, 1.0]),
    ]
    table = score(ours + theirs, MISSING | {"inception": "gone"})
    assert table.subjects == ("ann",)
    assert table.missing == {"ours": ("bob",), "theirs": ("eve",)}
    dlib = table.cells["ours", "id_dlib_distance"]
    assert dlib.value == pytest.approx(0.2), "the view without a face is out for both"
    assert (dlib.images, dlib.of) == (1, 2)
    assert table.differences["theirs", "clip_i"].mean == pytest.approx(0.9 - 0.7)


def test_fid_is_of_equal_sets_and_undefined_for_one_subject() -> None:
    random = np.random.default_rng(0)
    features = {n: random.normal(size=(3, 8)) for n in ("ann", "eve", "bob")}
    people = [subject("a", n, [1.0, 1.0], inception=f) for n, f in features.items()]
    table = score(people, MISSING)
    cell = table.cells["a", "fid"]
    expected = frechet_distance(
        np.concatenate([f[:2] for f in features.values()]),
        np.concatenate([f[2:] for f in features.values()]),
    )
    assert cell.value == pytest.approx(expected)
    assert cell.note.startswith("6 renders against 3 portraits; below 50")
    alone = score(people[:1], MISSING).cells["a", "fid"]
    assert alone.value is None and "two subjects" in alone.note


def test_figures_of_different_models_are_not_mixed() -> None:
    with pytest.raises(ValueError, match="different models"):
        score(
            [subject("a", "ann", [1.0]), subject("b", "ann", [1.0], models={"clip": "other"})],
            MISSING,
        )
    with pytest.raises(ValueError, match="nothing to score"):
        score([], {})
