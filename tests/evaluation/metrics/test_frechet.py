from __future__ import annotations

import numpy as np
import pytest

from fc4d_ray.assets.torchvision_shim import ensure_torchvision_importable
from fc4d_ray.evaluation.metrics.frechet import frechet_distance, kernel_distance


def features(n: int, d: int, seed: int, shift: float = 0.0, scale: float = 1.0) -> np.ndarray:
    return np.random.default_rng(seed).normal(shift, scale, (n, d))


def frechet_by_definition(a: np.ndarray, b: np.ndarray) -> float:
    """Eigenvalues of the covariances' product in float64."""
    s1, s2 = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    roots = np.sqrt(np.maximum(np.linalg.eigvals(s1 @ s2).real, 0)).sum()
    return float(((a.mean(0) - b.mean(0)) ** 2).sum() + np.trace(s1 + s2) - 2 * roots)


@pytest.mark.parametrize(("n", "m", "d"), [(30, 40, 64), (300, 200, 16), (20, 400, 50)])
def test_equals_the_definition(n: int, m: int, d: int) -> None:
    a, b = features(n, d, 0), features(m, d, 1, 0.3, 1.7)
    assert frechet_distance(a, b) == pytest.approx(frechet_by_definition(a, b), rel=1e-6)
    assert frechet_distance(b, a) == pytest.approx(frechet_distance(a, b), rel=1e-9)


def test_a_set_is_at_no_distance_from_itself_and_a_shift_counts_squared() -> None:
    a = features(100, 32, 0)
    assert frechet_distance(a, a) == pytest.approx(0, abs=1e-9)
    assert frechet_distance(a, a + 0.5) == pytest.approx(32 * 0.25, rel=1e-9)


def test_equals_clean_fid() -> None:
    ensure_torchvision_importable()
    fid = pytest.importorskip("cleanfid.fid")
    a, b = features(200, 48, 0), features(150, 48, 1, 0.2)
    try:
        theirs = fid.fid_from_feats(a, b)
    except TypeError as error:
        pytest.skip(f"clean-fid does not work with this SciPy: {error}")
    assert frechet_distance(a, b) == pytest.approx(theirs, rel=1e-5)


def test_kid_equals_clean_fid_on_whole_sets() -> None:
    ensure_torchvision_importable()
    fid = pytest.importorskip("cleanfid.fid")
    a, b = features(60, 20, 0), features(60, 20, 1, 0.4)
    theirs = fid.kernel_distance(a, b, num_subsets=1, max_subset_size=60)
    assert kernel_distance(a, b) == pytest.approx(theirs, rel=1e-6)


def test_kid_tells_shifted_sets_apart_whatever_their_sizes() -> None:
    a, near, far = features(80, 20, 0), features(300, 20, 1), features(300, 20, 2, 0.5)
    assert abs(kernel_distance(a, near)) < 0.02 < kernel_distance(a, far)
    assert kernel_distance(a, far) == kernel_distance(a, far)


@pytest.mark.parametrize("measure", [frechet_distance, kernel_distance])
def test_too_few_images_unequal_widths_and_nan_are_refused(measure) -> None:
    good = features(5, 4, 0)
    with pytest.raises(ValueError, match="at least two images, found 1 and 5"):
        measure(good[:1], good)
    with pytest.raises(ValueError, match="one width"):
        measure(good, features(5, 3, 0))
    with pytest.raises(ValueError, match="NaN"):
        measure(good, np.where(good > 0, np.nan, good))
