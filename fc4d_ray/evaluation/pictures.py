"""A picture against the true one, within a mask: PSNR, SSIM, and how much detail survived.

Pictures are (H, W, 3) float in [0, 1], masks (H, W) bool. Outside the mask nothing counts, so a
large empty background cannot flatter a picture.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray
from skimage.metrics import structural_similarity

DETAIL_SIGMA_PX = 1.5
"""Standard deviation of the blur whose difference from the picture counts as detail."""
RIM_PX = 5
"""Where the blur of a silhouette's edge has faded, three standard deviations away."""
DIGITS = 4
_ERROR_FLOOR = 1e-10


def picture_figures(
    picture: NDArray[np.floating], truth: NDArray[np.floating], mask: NDArray[np.bool_]
) -> dict[str, float]:
    """``psnr`` in dB, ``ssim``, ``detail_error``, ``detail_agreement`` and ``sharpness``.

    A silhouette against an empty background would outweigh all detail, so for the latter three the
    mask loses a rim as wide as the blur reaches. Raises ``ValueError`` where nothing is left.
    """
    inside = cv2.erode(mask.astype(np.uint8), np.ones((3, 3), np.uint8), iterations=RIM_PX) > 0
    return {
        "psnr": round(masked_psnr(picture, truth, mask), DIGITS),
        "ssim": round(masked_ssim(picture, truth, mask), DIGITS),
        "detail_error": round(detail_error(picture, truth, inside), DIGITS),
        "detail_agreement": round(detail_agreement(picture, truth, inside), DIGITS),
        "sharpness": round(sharpness(picture, truth, inside), DIGITS),
    }


def masked_psnr(
    picture: NDArray[np.floating], truth: NDArray[np.floating], mask: NDArray[np.bool_]
) -> float:
    """Peak signal-to-noise ratio in dB over the mask's pixels, at most 100.

    Raises ``ValueError`` where the mask is empty.
    """
    error = np.square(picture[_checked(mask)] - truth[mask]).mean(dtype=np.float64)
    return float(-10 * np.log10(max(error, _ERROR_FLOOR)))


def masked_ssim(
    picture: NDArray[np.floating], truth: NDArray[np.floating], mask: NDArray[np.bool_]
) -> float:
    """Mean structural similarity (11 x 11 Gaussian window, sigma 1.5) over the mask's pixels.

    Windows reach beyond the mask; only their centres are counted.
    """
    _, similarity = structural_similarity(
        picture.astype(np.float64), truth.astype(np.float64), channel_axis=-1, data_range=1.0,
        gaussian_weights=True, sigma=1.5, use_sample_covariance=False, full=True,
    )  # fmt: skip
    return float(similarity[_checked(mask)].mean())


def detail_error(
    picture: NDArray[np.floating], truth: NDArray[np.floating], mask: NDArray[np.bool_]
) -> float:
    """Error of the picture's detail over the amplitude of the truth's: sharpness that counts.

    0 where all detail is as it should be, 1 where the picture is blurred to nothing (or its detail
    is worth no more than that), above 1 where a blurred picture would be nearer the truth. Unlike
    the amplitude that ``sharpness`` gives, noise cannot pass for detail.
    """
    mine, true = _detail(picture, mask), _detail(truth, mask)
    error = np.square(mine - true).mean()
    return float(np.sqrt(error / max(np.square(true).mean(), _ERROR_FLOOR)))


def sharpness(
    picture: NDArray[np.floating], truth: NDArray[np.floating], mask: NDArray[np.bool_]
) -> float:
    """Amplitude of detail relative to the truth's: 1 as sharp, below it blurred, above it noisy.

    Detail is what a Gaussian blur of ``DETAIL_SIGMA_PX`` takes away; it need not be in the right
    place, which is what ``detail_agreement`` tells.
    """
    mine, true = _detail(picture, mask), _detail(truth, mask)
    return float(np.sqrt(np.square(mine).mean() / max(np.square(true).mean(), _ERROR_FLOOR)))


def detail_agreement(
    picture: NDArray[np.floating], truth: NDArray[np.floating], mask: NDArray[np.bool_]
) -> float:
    """Correlation of the picture's detail with the truth's, -1…1: noise and ghosts lower it."""
    mine, true = _detail(picture, mask), _detail(truth, mask)
    power = np.sqrt(np.square(mine).sum() * np.square(true).sum())
    return float((mine * true).sum() / max(power, _ERROR_FLOOR))


def _detail(picture: NDArray[np.floating], mask: NDArray[np.bool_]) -> NDArray[np.float64]:
    picture = picture.astype(np.float64)
    return (picture - cv2.GaussianBlur(picture, (0, 0), DETAIL_SIGMA_PX))[_checked(mask)]


def _checked(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    if not mask.any():
        raise ValueError("there is nothing to compare: the mask is empty")
    return mask
