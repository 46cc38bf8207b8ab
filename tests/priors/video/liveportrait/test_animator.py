"""Many pairs at once give what one at a time gives; crops go back where they came from."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from fc4d_ray.assets.tiny_liveportrait import write_tiny_liveportrait
from fc4d_ray.errors import ConfigError, StageFailed
from fc4d_ray.priors.video.liveportrait.animator import FaceAnimator, InferenceConfig, Sources
from fc4d_ray.priors.video.liveportrait.checkpoint import LivePortraitNetworks, read_networks
from fc4d_ray.priors.video.liveportrait.driving import MotionConfig, driven_keypoints
from fc4d_ray.priors.video.liveportrait.framing import crop_transform
from fc4d_ray.priors.video.liveportrait.keypoint_motion import KeypointMotion
from fc4d_ray.priors.video.liveportrait.view_crops import CropSheet, flow_of, moved_alpha
from fc4d_ray.priors.video.liveportrait.warping import identity_grid

SIZE, FRAME = 96, 80
INPUT = 64


@pytest.fixture(scope="module")
def networks(tmp_path_factory: pytest.TempPathFactory) -> LivePortraitNetworks:
    return read_networks(write_tiny_liveportrait(tmp_path_factory.mktemp("tiny")))


@pytest.fixture(scope="module")
def pictures() -> list[NDArray[np.uint8]]:
    """Three smooth discs on transparent ground."""
    y, x = np.mgrid[:SIZE, :SIZE] / SIZE
    views = []
    for shift in (0.0, 0.05, -0.05):
        waves = [np.sin(9 * x + k) * np.cos(7 * y + 2 * k + shift) for k in range(3)]
        colours = 128 + 100 * np.stack(waves, -1)
        inside = (x - 0.5 - shift) ** 2 + (y - 0.5) ** 2 < 0.4**2
        views.append(np.dstack([colours, 255 * inside]).astype(np.uint8))
    return views


@pytest.fixture(scope="module")
def transform() -> NDArray[np.float64]:
    points = np.array([[36.0, 40], [60, 41], [48, 50], [40, 60], [57, 61]])
    return crop_transform(points, 2 * INPUT)


def _clip(n_frames: int, strength: float = 0.05) -> KeypointMotion:
    rng = np.random.default_rng(0)
    expression = strength * rng.standard_normal((n_frames, 21, 3)).astype(np.float32)
    expression[0] = 0
    return KeypointMotion(
        "noise",
        25.0,
        np.repeat(np.eye(3, dtype=np.float32)[None], n_frames, 0),
        expression,
        np.zeros((n_frames, 3), np.float32),
        np.ones((n_frames, 1), np.float32),
    )


@pytest.fixture(scope="module")
def prepare(
    networks: LivePortraitNetworks,
    pictures: list[NDArray[np.uint8]],
    transform: NDArray[np.float64],
) -> Callable[..., tuple[FaceAnimator, Sources]]:
    def make(chosen: list[int], **options: object) -> tuple[FaceAnimator, Sources]:
        animator = FaceAnimator(networks, InferenceConfig(input_size=INPUT, **options))
        sheet = CropSheet(
            [pictures[i] for i in chosen],
            [transform] * len(chosen),
            animator.crop_size,
            FRAME,
            animator.device,
        )
        return animator, animator.read_sources(sheet)

    return make


@pytest.mark.parametrize("batch_size", [2, 3, 64])
def test_batches_across_views_equal_one_by_one(
    prepare: Callable[..., tuple[FaceAnimator, Sources]],
    networks: LivePortraitNetworks,
    batch_size: int,
) -> None:
    """Four frames of three views: batches of two and three cross from one view to the next."""
    animator, sources = prepare([0, 1, 2], batch_size=batch_size)
    driven = driven_keypoints(sources.faces, _clip(4), MotionConfig(), networks)
    together = list(animator.frames(sources, driven))
    assert len(together) == 12
    for view in range(3):
        single, source = prepare([view], batch_size=1)
        alone = driven_keypoints(source.faces, _clip(4), MotionConfig(), networks)
        np.testing.assert_allclose(alone[0], driven[view], atol=2e-6)
        for frame, expected in enumerate(single.frames(source, alone)):
            difference = np.abs(together[4 * view + frame].astype(int) - expected)
            assert difference.max() <= 1


def test_frames_come_as_they_are_made(
    prepare: Callable[..., tuple[FaceAnimator, Sources]], monkeypatch: pytest.MonkeyPatch
) -> None:
    animator, sources = prepare([0, 1], batch_size=2)
    batches = []
    original = FaceAnimator._batch
    monkeypatch.setattr(
        FaceAnimator, "_batch", lambda self, *a: (batches.append(1), original(self, *a))[1]
    )
    driven = sources.faces.keypoints[:, None].expand(-1, 6, -1, -1)
    frames = animator.frames(sources, driven)
    next(frames)
    assert len(batches) == 1
    assert sum(1 for _ in frames) == 11 and len(batches) == 6


def test_only_the_face_moves_and_its_outline_with_it(
    prepare: Callable[..., tuple[FaceAnimator, Sources]], networks: LivePortraitNetworks
) -> None:
    animator, sources = prepare([0])
    driven = driven_keypoints(sources.faces, _clip(3, 0.2), MotionConfig(), networks)
    still, *moved = (frame.astype(int) for frame in animator.frames(sources, driven))
    changed = np.abs(moved[1] - still).max(-1) > 3
    assert 0.05 < changed.mean() < 0.9
    corners = np.abs(moved[1] - still)[:4, :4]
    assert corners.max() == 0
    assert (still[..., 3] > 250).mean() > 0.3


def test_a_crop_laid_back_unchanged_is_the_picture(
    pictures: list[NDArray[np.uint8]], transform: NDArray[np.float64]
) -> None:
    size = 4 * SIZE
    fine = crop_transform(np.array([[36.0, 40], [60, 41], [48, 50], [40, 60], [57, 61]]), size)
    sheet = CropSheet(pictures, [fine] * 3, size, SIZE, torch.device("cpu"))
    frames = sheet.frames(torch.arange(3), sheet.pictures, sheet.alpha).numpy()
    for frame, picture in zip(frames, pictures, strict=True):
        solid = (frame[..., 3] > 250) & (picture[..., 3] == 255)
        assert solid.mean() > 0.3
        assert np.abs(frame[solid].astype(int) - picture[solid])[:, :3].max() <= 4
        assert np.abs(frame[..., 3].astype(int) - picture[..., 3]).mean() < 3


def test_the_matte_follows_the_flow() -> None:
    alpha = torch.zeros(1, 1, 64, 64)
    alpha[..., 20:40, 20:40] = 1
    grid = identity_grid([2, 16, 16], alpha)[None]
    assert torch.equal(moved_alpha(alpha, flow_of(grid, grid)) > 0.5, alpha > 0.5)
    shifted = grid.clone()
    shifted[..., 0] += 2 / 64 * 8
    moved = moved_alpha(alpha, flow_of(shifted, grid))
    # What is read 8 pixels further right appears 8 pixels further left.
    assert torch.equal(moved[..., :, :50] > 0.5, (alpha > 0.5)[..., :, 8:58])


def test_views_of_unequal_sizes_share_a_sheet(
    pictures: list[NDArray[np.uint8]], transform: NDArray[np.float64]
) -> None:
    large = pictures[0].repeat(2, 0).repeat(2, 1)
    doubled = transform * [0.5, 0.5, 1]
    sheet = CropSheet([pictures[0], large], [transform, doubled], 128, 64, torch.device("cpu"))
    assert (sheet.pictures[0] - sheet.pictures[1]).abs().mean() < 0.02
    frames = sheet.frames(torch.arange(2), sheet.pictures, sheet.alpha).int()
    solid = (frames[..., 3] == 255).all(0)
    assert (frames[0] - frames[1]).abs()[solid].float().mean() < 3


def test_oblong_pictures_are_refused(
    pictures: list[NDArray[np.uint8]], transform: NDArray[np.float64]
) -> None:
    for odd in (pictures[0][:-2], pictures[0][..., :3]):
        with pytest.raises(ValueError, match="square RGBA"):
            CropSheet([odd], [transform], 128, 64, torch.device("cpu"))


def test_overflow_is_reported_with_a_way_out(
    prepare: Callable[..., tuple[FaceAnimator, Sources]],
) -> None:
    animator, sources = prepare([0])
    broken = sources.faces.keypoints[:, None] * torch.inf
    with pytest.raises(StageFailed, match="try float32"):
        next(animator.frames(sources, broken))


def test_half_precision_runs(prepare: Callable[..., tuple[FaceAnimator, Sources]]) -> None:
    exact, sources = prepare([0])
    driven = sources.faces.keypoints[:, None].expand(-1, 2, -1, -1)
    expected = np.stack(list(exact.frames(sources, driven))).astype(int)
    half, sources = prepare([0], precision="bfloat16")
    found = np.stack(list(half.frames(sources, driven))).astype(int)
    assert np.abs(found - expected).mean() < 3


def test_driving_is_read_in_batches(
    prepare: Callable[..., tuple[FaceAnimator, Sources]],
) -> None:
    crops = np.random.default_rng(1).integers(0, 255, (5, INPUT, INPUT, 3), np.uint8)
    one, _ = prepare([0], motion_batch_size=2)
    other, _ = prepare([0], motion_batch_size=64)
    a, b = one.read_driving(iter(crops)), other.read_driving(crops)
    np.testing.assert_allclose(a.expression, b.expression, atol=1e-6)
    assert a.scale.shape == (5, 1)
    with pytest.raises(ValueError, match="no frames"):
        one.read_driving([])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"precision": "float16", "device": "cpu"}, "float16 needs a CUDA device"),
        ({"device": "tpu"}, "inference.device"),
        ({"input_size": 100}, "multiple of 32"),
        ({"batch_size": 0}, "at least 1"),
    ],
)
def test_impossible_options(options: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        InferenceConfig(**options)


def test_files_on_disk_are_enough(tmp_path: Path) -> None:
    """A worker can start from nothing but the five files."""
    files = write_tiny_liveportrait(tmp_path)
    animator = FaceAnimator(read_networks(files), InferenceConfig(input_size=INPUT))
    assert animator.crop_size == 2 * INPUT
