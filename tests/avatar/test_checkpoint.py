from __future__ import annotations

import resource
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from fc4d_ray.avatar.checkpoint import fingerprint, load_checkpoint, save_checkpoint
from fc4d_ray.avatar.config import TrainConfig
from fc4d_ray.avatar.frames import Sample
from fc4d_ray.avatar.losses import LossConfig
from fc4d_ray.avatar.trainer import train_avatar
from fc4d_ray.clips import ClipReader, write_clip
from fc4d_ray.errors import StoreError

CONFIG = TrainConfig(
    static_steps=8, coin_steps=6, sh_degree=0, losses=LossConfig(alpha=0.2),
    checkpoint_interval_s=0, checkpoint_interval_steps=4, log_interval=2,
)  # fmt: skip


@contextmanager
def files_end_at(n_bytes: int) -> Iterator[None]:
    """Writes beyond ``n_bytes`` of a file fail midway, as on a disk that is full."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def state(value: float, n: int = 50_000) -> dict[str, torch.Tensor]:
    return {"tensor": torch.full((n,), value)}


def test_states_come_back_and_replace_one_another(tmp_path: Path) -> None:
    assert load_checkpoint(tmp_path / "new", "mark") is None
    save_checkpoint(tmp_path / "new", "mark", state(1.0))
    save_checkpoint(tmp_path / "new", "mark", state(2.0))
    assert load_checkpoint(tmp_path / "new", "mark")["tensor"].unique().tolist() == [2.0]
    assert load_checkpoint(tmp_path / "new", "other") is None
    assert [p.name for p in (tmp_path / "new").iterdir()] == ["training.pt"]


def test_a_full_disk_leaves_the_checkpoint_before_it(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, "mark", state(1.0))
    with files_end_at(100_000), pytest.raises(StoreError, match="cannot write checkpoint.*intact"):
        save_checkpoint(tmp_path, "mark", state(2.0))
    assert load_checkpoint(tmp_path, "mark")["tensor"].unique().tolist() == [1.0]
    assert [p.name for p in tmp_path.iterdir()] == ["training.pt"], "nothing half written stays"


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StoreError, match="cannot write checkpoint .*file/inner/training.pt: Not a"):
        save_checkpoint(tmp_path / "file" / "inner", "mark", state(1.0))


def test_training_on_a_full_disk_says_so_and_goes_on_later_to_the_same_end(
    ellipsoid, make_frames, make_splats, tmp_path: Path
) -> None:
    arguments = (ellipsoid, make_frames(32), make_splats(400), CONFIG, 3)
    expected = train_avatar(*arguments)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    progress_at = []

    def fill_the_disk(fraction: float, message: str) -> None:
        progress_at.append(fraction)
        if fraction > 0.4:
            resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limits[1]))

    try:
        with pytest.raises(StoreError, match="cannot write checkpoint"):
            train_avatar(*arguments, tmp_path, fill_the_disk)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert 0.4 < progress_at[-1] < 0.6
    result = train_avatar(*arguments, tmp_path)
    assert result.facts["resumed_at"] == 4
    assert torch.equal(result.gaussians.sh0, expected.gaussians.sh0)
    assert torch.equal(result.gaussians.positions, expected.gaussians.positions)


class ClipFrames:
    """The pictures of another source, the animated ones read from a clip per view."""

    def __init__(self, source, directory: Path) -> None:
        self.views, self.reference_view = source.views, source.reference_view
        self.parameters = source.parameters
        self.static_samples = source.static_samples
        self.animated_samples = source.animated_samples
        self._source = source
        times = range(len(source.parameters["stretch"]))
        self.paths = [directory / f"{view}.clip" for view in range(len(source.views))]
        for view, path in enumerate(self.paths):
            frames = [source.load(Sample(view, time)) for time in times]
            write_clip(path, frames, fps=10, codec="lossless")

    def load(self, sample: Sample) -> np.ndarray:
        if sample.time == 0:
            return self._source.load(sample)
        with ClipReader(self.paths[sample.view]) as clip:
            return clip.frame(sample.time)


def test_a_clip_cut_short_is_named_and_costs_no_checkpoint(
    ellipsoid, make_frames, make_splats, tmp_path: Path
) -> None:
    """The clip is damaged while the training runs; mended, the training goes on."""
    frames = ClipFrames(make_frames(32), tmp_path)
    config = replace(CONFIG, frame_cache_mb=0)
    arguments = (ellipsoid, frames, make_splats(400), config, 3)
    expected = train_avatar(*arguments)
    whole = [path.read_bytes() for path in frames.paths]

    def cut(fraction: float, message: str) -> None:
        if fraction > 0.55:
            for path in frames.paths:
                path.write_bytes(path.read_bytes()[:-40])

    kept = tmp_path / "kept"
    with pytest.raises(StoreError, match=r"\d\.clip is cut short"):
        train_avatar(*arguments, kept, cut)
    for path, content in zip(frames.paths, whole, strict=True):
        path.write_bytes(content)
    result = train_avatar(*arguments, kept)
    assert result.facts["resumed_at"] == 8
    assert torch.equal(result.gaussians.sh0, expected.gaussians.sh0)


def test_the_mark_covers_seed_options_pictures_splats_and_folds(make_frames, make_splats) -> None:
    def mark(config=CONFIG, seed=3, frames=None, splats=None, grown=None) -> str:
        frames, splats = frames or make_frames(32), splats or make_splats(400)
        return fingerprint(config, seed, frames, splats, grown)

    tinted = make_frames(32, tints=np.full((6, 3), 0.05))
    others = [
        mark(replace(CONFIG, coin_steps=7)),
        mark(seed=4),
        mark(frames=tinted),
        mark(frames=make_frames(32, stretches=(0.0, 0.2))),
        mark(splats=make_splats(401)),
        mark(grown=np.full(320, 1.0)),
        mark(grown=np.full(320, 2.0)),
    ]
    assert mark() == mark()
    assert len({mark(), *others}) == 8
