from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from fc4d_ray.cameras import orbit_camera
from fc4d_ray.errors import TrackingFailed
from fc4d_ray.tracking.evidence import (
    MultiviewFrames,
    make_scale,
    sample_with_slope,
    stack_frames,
)


def _frames(n_frames: int = 2, n_views: int = 2, size: int = 32) -> MultiviewFrames:
    return MultiviewFrames(
        [orbit_camera(20.0 * v, size=size) for v in range(n_views)],
        np.zeros((n_frames, n_views, size, size, 3), np.uint8),
        np.full((n_frames, n_views, 68, 2), 5.0),
        np.ones((n_frames, n_views, 68)),
        np.zeros((n_frames, n_views, size, size), np.uint8),
    )


def test_frames_that_do_not_fit_are_refused() -> None:
    good = _frames()
    bad_marks = good.landmarks.copy()
    bad_marks[1, 0, 7] = np.nan
    cases = {
        "no face": {"confidence": np.zeros((2, 2, 68))},
        "frame 1, view 0: landmarks that are no numbers": {"landmarks": bad_marks},
        "confidences must be finite": {"confidence": np.full((2, 2, 68), np.nan)},
        "1 cameras for 2 views": {"cameras": good.cameras[:1]},
        "view 0: the camera is": {"cameras": [c.resized(16, 16) for c in good.cameras]},
        "mattes: expected": {"mattes": np.zeros((2, 2, 8, 8), np.uint8)},
        "must be uint8": {"images": np.full((2, 2, 32, 32, 3), np.nan)},
        "there are no frames": {"images": np.zeros((0, 2, 32, 32, 3), np.uint8)},
        "clip: 3 of 2": {"clip": np.zeros(3, int)},
    }
    for text, change in cases.items():
        with pytest.raises(TrackingFailed, match=text):
            replace(good, **change)
    unseen = bad_marks.copy()
    hidden = good.confidence.copy()
    hidden[1, 0, 7] = 0
    replace(good, landmarks=unseen, confidence=hidden)


def test_pictures_of_unequal_size_are_named() -> None:
    small, large = np.zeros((4, 4, 3), np.uint8), np.zeros((4, 5, 3), np.uint8)
    assert stack_frames([[small, small]] * 3).shape == (3, 2, 4, 4, 3)
    with pytest.raises(TrackingFailed, match="frame 1, view 0 is .4, 5., the first was .4, 4."):
        stack_frames([[small, small], [large, small]])
    with pytest.raises(TrackingFailed, match="frame 1 has 1 views"):
        stack_frames([[small, small], [small]])
    with pytest.raises(TrackingFailed, match="no frames"):
        stack_frames([])


def test_clips_do_not_continue_one_another() -> None:
    frames = replace(_frames(4), clip=np.array([0, 0, 1, 1]))
    assert frames.continues().tolist() == [True, False, True]
    assert frames.only(np.array([0, 2])).continues().tolist() == [False]


def test_distances_to_the_mattes_edge_are_signed_pixels() -> None:
    frames = _frames(1, 1)
    frames.mattes[0, 0, :, 10:] = 255
    outside = make_scale(frames, 1).outside[0, 0, 0].float()
    assert outside[16, 10] == pytest.approx(-0.5, abs=0.1)
    assert outside[16, 9] == pytest.approx(0.5, abs=0.1)
    assert outside[16, 4] == pytest.approx(5.5, abs=0.2) and outside[16, 30] < -15
    half = make_scale(frames, 2)
    assert half.images.shape == (1, 1, 3, 16, 16) and half.cameras[0].width == 16


def test_samples_know_their_slope() -> None:
    y, x = torch.meshgrid(torch.arange(8.0), torch.arange(8.0), indexing="ij")
    image = torch.stack([2 * x + 3 * y, x * 0 + 1])[None]
    values, slopes = sample_with_slope(image, torch.tensor([[[4.0, 3.0], [2.5, 5.5]]]))
    torch.testing.assert_close(values[0, :, 0], torch.tensor([2 * 3.5 + 3 * 2.5, 2 * 2 + 3 * 5.0]))
    torch.testing.assert_close(slopes[0, :, 0], torch.tensor([[2.0, 3.0]] * 2))
    assert not slopes[0, :, 1].any()
