from __future__ import annotations

import cv2
import numpy as np
import pytest

from fc4d_ray.evaluation.pictures import (
    detail_agreement,
    detail_error,
    masked_psnr,
    masked_ssim,
    picture_figures,
    sharpness,
)


@pytest.fixture
def truth() -> np.ndarray:
    noise = np.random.default_rng(0).random((48, 64, 3))
    picture = cv2.GaussianBlur(noise, (0, 0), 1.0)
    return ((picture - picture.min()) / np.ptp(picture)).astype(np.float32)


@pytest.fixture
def mask(truth: np.ndarray) -> np.ndarray:
    inside = np.zeros(truth.shape[:2], bool)
    inside[8:40, 10:50] = True
    return inside


def test_psnr_by_hand_and_only_inside_the_mask(truth: np.ndarray, mask: np.ndarray) -> None:
    picture = truth + np.float32(0.1)
    picture[~mask] = 5
    assert masked_psnr(picture, truth, mask) == pytest.approx(20, abs=1e-3)
    assert masked_psnr(truth, truth, mask) == pytest.approx(100)


def test_ssim_by_hand(truth: np.ndarray) -> None:
    picture = (0.8 * cv2.GaussianBlur(truth, (0, 0), 1.0) + 0.1).astype(np.float64)
    one_pixel = np.zeros(truth.shape[:2], bool)
    one_pixel[20, 30] = True
    assert masked_ssim(truth, truth, one_pixel) == pytest.approx(1)
    distance = np.arange(-5, 6)
    weights = np.exp(-(distance**2) / (2 * 1.5**2))
    weights = np.outer(weights, weights) / weights.sum() ** 2
    x, y = (a[15:26, 25:36].astype(np.float64) for a in (picture, truth))
    mean_x, mean_y = (np.einsum("ij,ijc->c", weights, a) for a in (x, y))
    var_x, var_y, both = (
        np.einsum("ij,ijc->c", weights, a) for a in ((x - mean_x) ** 2, (y - mean_y) ** 2,
                                                     (x - mean_x) * (y - mean_y))
    )  # fmt: skip
    c1, c2 = 0.01**2, 0.03**2
    structure = (2 * both + c2) / (var_x + var_y + c2)
    expected = (2 * mean_x * mean_y + c1) / (mean_x**2 + mean_y**2 + c1) * structure
    assert masked_ssim(picture, truth, one_pixel) == pytest.approx(expected.mean(), abs=1e-6)


def test_blur_lowers_sharpness_noise_raises_it(truth: np.ndarray, mask: np.ndarray) -> None:
    blurred = cv2.GaussianBlur(truth, (0, 0), 1.5)
    noise = np.random.default_rng(1).normal(0, 0.2, truth.shape)
    assert sharpness(truth, truth, mask) == pytest.approx(1)
    assert sharpness(blurred, truth, mask) < 0.6
    assert sharpness(truth + noise, truth, mask) > 1.2


def test_agreement_tells_detail_from_noise(truth: np.ndarray, mask: np.ndarray) -> None:
    other = truth[::-1, ::-1].copy()
    noise = np.random.default_rng(1).normal(0, 0.2, truth.shape)
    assert detail_agreement(0.5 * truth + 0.2, truth, mask) == pytest.approx(1)
    assert abs(detail_agreement(other, truth, mask)) < 0.2
    assert 0.2 < detail_agreement(truth + noise, truth, mask) < 0.9


def test_neither_blur_nor_noise_passes_for_detail(truth: np.ndarray, mask: np.ndarray) -> None:
    noise = np.random.default_rng(1).normal(0, 0.2, truth.shape)
    slightly, fully = (cv2.GaussianBlur(truth, (0, 0), sigma) for sigma in (0.7, 20))
    assert detail_error(truth + 0.2, truth, mask) == pytest.approx(0, abs=1e-6)
    assert detail_error(truth * 0.5, truth, mask) == pytest.approx(0.5, abs=1e-6)
    assert detail_error(fully, truth, mask) == pytest.approx(1, abs=0.02)
    assert 0 < detail_error(slightly, truth, mask) < detail_error(slightly + noise, truth, mask)


def test_an_empty_mask_is_refused(truth: np.ndarray, mask: np.ndarray) -> None:
    for measure in (masked_psnr, masked_ssim, sharpness, detail_agreement, detail_error):
        with pytest.raises(ValueError, match="empty"):
            measure(truth, truth, np.zeros_like(mask))


def test_a_silhouette_s_edge_counts_for_psnr_and_not_as_detail(truth, mask) -> None:
    picture = truth.copy()
    picture[8, 10:50] = 1
    figures = picture_figures(picture, truth, mask)
    assert figures["psnr"] < 30
    assert figures["sharpness"] == pytest.approx(1, abs=1e-3)
    assert figures["detail_agreement"] == pytest.approx(1, abs=1e-3)
