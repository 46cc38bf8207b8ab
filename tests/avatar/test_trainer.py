from __future__ import annotations

import csv
import logging
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from fc4d_ray.avatar.coin import CoinConfig
from fc4d_ray.avatar.config import TrainConfig
from fc4d_ray.avatar.density import DensityConfig
from fc4d_ray.avatar.frames import WindowConfig
from fc4d_ray.avatar.gaussians import LEARNED, Gaussians
from fc4d_ray.avatar.learning_rates import LearningRateConfig
from fc4d_ray.avatar.losses import LossConfig
from fc4d_ray.avatar.trainer import TrainResult, train_avatar
from fc4d_ray.errors import ConfigError, StageFailed, TrainingDiverged

SHORT = TrainConfig(
    static_steps=16,
    coin_steps=14,
    sh_degree=1,
    sh_interval=4,
    background="random",
    window=WindowConfig(size=32),
    losses=LossConfig(alpha=0.2),
    rates=LearningRateConfig(head={"stretch": 1e-3}),
    density=DensityConfig(start_step=2, stop_step=15, interval=5, reset_interval=12),
    coin=CoinConfig(place_size=3, density="first_half", structure_interval=2),
    checkpoint_interval_s=0,
    checkpoint_interval_steps=7,
    log_interval=5,
)


class Stop(Exception):
    """What an interrupted test raises."""


def stop_at(fraction: float):
    def progress(done: float, message: str) -> None:
        if done >= fraction:
            raise Stop(message)

    return progress


def assert_same_bits(a: TrainResult, b: TrainResult) -> None:
    for name in (*LEARNED, "binding"):
        assert torch.equal(getattr(a.gaussians, name), getattr(b.gaussians, name)), name
        assert torch.equal(getattr(a.base, name), getattr(b.base, name)), name
    for name in a.parameters:
        assert torch.equal(a.parameters[name], b.parameters[name]), name


def rows(path: Path) -> list[dict[str, str]]:
    with open(path, newline="") as file:
        return [{k: v for k, v in row.items() if k != "seconds"} for row in csv.DictReader(file)]


@pytest.fixture(scope="module")
def uninterrupted(ellipsoid, make_frames, make_splats, tmp_path_factory):
    output = tmp_path_factory.mktemp("whole")
    result = train_avatar(ellipsoid, make_frames(48), make_splats(500), SHORT, 7, output_dir=output)
    return result, rows(output / "curves.csv")


def test_training_makes_the_pictures_alike(ellipsoid, make_frames, make_splats):
    config = TrainConfig(
        static_steps=120, coin_steps=60, sh_degree=0, density=DensityConfig(enabled=False),
        losses=LossConfig(alpha=0.2), rates=LearningRateConfig(sh0=0.02), log_interval=20,
    )  # fmt: skip
    seen: list[float] = []
    result = train_avatar(
        ellipsoid, make_frames(), make_splats(2500), config, 1,
        progress=lambda fraction, message: seen.append(fraction),
    )  # fmt: skip
    start = train_avatar(
        ellipsoid, make_frames(), make_splats(2500),
        replace(config, static_steps=1, coin_steps=0), 1,
    )  # fmt: skip
    assert result.facts["psnr_static"] > start.facts["psnr_static"] + 6
    assert result.facts["psnr_static"] > 19
    assert result.facts["n_splats"] == 2500
    assert result.facts["structure_loss"] == "gradient_pyramid"
    assert start.facts["structure_loss"] == "none"
    assert seen == pytest.approx([k / 9 for k in range(1, 10)])


@pytest.mark.parametrize("fraction", [0.3, 0.8], ids=["static stage", "coin stage"])
def test_interrupted_and_resumed_equals_uninterrupted(
    ellipsoid, make_frames, make_splats, tmp_path, uninterrupted, fraction
):
    arguments = (ellipsoid, make_frames(48), make_splats(500), SHORT, 7, tmp_path / "kept")
    with pytest.raises(Stop):
        train_avatar(*arguments, stop_at(fraction), tmp_path / "first")
    result = train_avatar(*arguments, None, tmp_path / "second")
    assert result.facts["resumed_at"] == {0.3: 7, 0.8: 21}[fraction]
    expected, expected_rows = uninterrupted
    assert_same_bits(result, expected)
    assert rows(tmp_path / "second" / "curves.csv") == expected_rows
    again = train_avatar(*arguments)
    assert again.facts["resumed_at"] == 30
    assert_same_bits(again, expected)


def test_the_short_run_exercises_density_head_and_degrees(uninterrupted, make_splats, make_frames):
    result, curve = uninterrupted
    assert len(result.gaussians) != 500
    assert set(result.gaussians.binding.tolist()) == set(range(320))
    assert result.gaussians.shN.abs().sum() > 0
    assert not torch.equal(result.parameters["stretch"], make_frames().parameters["stretch"])
    assert [row["stage"] for row in curve] == ["static"] * 3 + ["coin"] * 3
    assert curve[0]["structure"] == ""
    assert float(curve[-1]["structure"]) > 0


def test_folded_skin_learns_from_poses_that_unfold_it_only(ellipsoid, make_frames, make_splats):
    """At rest these faces have a third of their size; one pose of the clips shows half of it."""
    config = replace(SHORT, rates=LearningRateConfig(), density=DensityConfig(enabled=False))
    splats = make_splats(500).with_sh_degree(config.sh_degree)
    folds = np.arange(len(ellipsoid.faces)) % 2 == 0
    on_folding = torch.from_numpy(folds)[splats.binding]
    results = {
        size: train_avatar(
            ellipsoid, make_frames(48), splats, config, 1, grown=np.where(folds, size, 1.0)
        ).base.sh0
        for size in (3.0, 1.1)
    }
    start = splats.sh0
    assert torch.equal(results[3.0][on_folding], start[on_folding]), "never unfolded, never moved"
    moved = (results[3.0][~on_folding] - start[~on_folding]).abs().max(1).values
    assert (moved > 0).float().mean() > 0.9
    assert (results[1.1][on_folding] != start[on_folding]).any(1).float().mean() > 0.9


def test_seeds_decide_the_course(ellipsoid, make_frames, make_splats, uninterrupted):
    arguments = (ellipsoid, make_frames(48), make_splats(500), SHORT)
    assert_same_bits(train_avatar(*arguments, 7), uninterrupted[0])
    other = train_avatar(*arguments, 8)
    assert not torch.equal(other.gaussians.sh0[:10], uninterrupted[0].gaussians.sh0[:10])


_KILLED = """
import sys
from pathlib import Path
import torch
torch.set_num_threads(int(sys.argv[3]))
sys.path.insert(0, sys.argv[2])
import conftest
import test_trainer as t
mesh = conftest.EllipsoidMesh()
t.train_avatar(
    mesh, conftest.EllipsoidFrames(48), conftest.surface_splats(mesh, 500), t.SHORT, 7,
    Path(sys.argv[1]), lambda f, m: __import__("time").sleep(1.0 if f > 0.5 else 0.0),
)
"""


def test_killed_process_leaves_a_checkpoint_another_goes_on_from(
    ellipsoid, make_frames, make_splats, tmp_path, uninterrupted
):
    here = Path(__file__).resolve()
    environment = {**os.environ, "PYTHONPATH": str(here.parents[2]), "OMP_WAIT_POLICY": "PASSIVE"}
    command = [sys.executable, "-c", _KILLED, str(tmp_path), str(here.parent)]
    process = subprocess.Popen([*command, str(torch.get_num_threads())], env=environment)
    try:
        deadline = time.monotonic() + 120
        while not (tmp_path / "training.pt").exists() and process.poll() is None:
            assert time.monotonic() < deadline, "no checkpoint appeared"
            time.sleep(0.05)
        assert process.poll() is None, "the training ended before it could be killed"
        process.send_signal(signal.SIGKILL)
    finally:
        process.kill()
        process.wait()
    result = train_avatar(ellipsoid, make_frames(48), make_splats(500), SHORT, 7, tmp_path)
    assert result.facts["resumed_at"] in (7, 14, 21)
    assert_same_bits(result, uninterrupted[0])


def test_checkpoints_of_other_trainings_and_torn_ones_are_not_used(
    ellipsoid, make_frames, make_splats, tmp_path, caplog
):
    short = replace(SHORT, static_steps=7, coin_steps=0)
    arguments = (ellipsoid, make_frames(48), make_splats(500))
    train_avatar(*arguments, short, 7, tmp_path)
    with caplog.at_level(logging.WARNING):
        other = train_avatar(*arguments, short, 8, tmp_path)
    assert other.facts["resumed_at"] == 0
    assert "belongs to another training" in caplog.text
    path = tmp_path / "training.pt"
    path.write_bytes(path.read_bytes()[:1000])
    with caplog.at_level(logging.WARNING):
        assert train_avatar(*arguments, short, 8, tmp_path).facts["resumed_at"] == 0
    assert "cannot be read" in caplog.text


def test_non_finite_values_end_the_training(ellipsoid, make_frames, make_splats, tmp_path):
    gaussians = make_splats(500)
    gaussians.sh0[:] = float("nan")
    with pytest.raises(TrainingDiverged, match="step 0"):
        train_avatar(ellipsoid, make_frames(48), gaussians, SHORT, 7, tmp_path)
    gaussians = make_splats(500)
    gaussians.opacity_logits[0] = float("inf")
    gaussians.positions[0] = 1e9
    with pytest.raises(TrainingDiverged, match="opacity_logits"):
        train_avatar(
            ellipsoid, make_frames(48), gaussians, replace(SHORT, static_steps=2, coin_steps=0), 7
        )
    assert not (tmp_path / "training.pt").exists()


def test_unusable_frames_are_named(ellipsoid, make_frames, make_splats):
    frames = make_frames(48)
    frames.static_samples = [(9, 0)]
    with pytest.raises(StageFailed, match=r"\(9, 0\)"):
        train_avatar(ellipsoid, frames, make_splats(500), SHORT, 7)
    frames = make_frames(48)
    frames.load = lambda sample: np.zeros((40, 48, 4), np.uint8)
    with pytest.raises(StageFailed, match=r"\(40, 48, 4\)"):
        train_avatar(ellipsoid, frames, make_splats(500), SHORT, 7)
    config = replace(SHORT, rates=LearningRateConfig(head={"jaw": 1e-3}))
    with pytest.raises(ConfigError, match="jaw"):
        train_avatar(ellipsoid, make_frames(48), make_splats(500), config, 7)


def test_outputs_previews_and_events(ellipsoid, make_frames, make_splats, tmp_path):
    config = replace(
        SHORT, static_steps=4, coin_steps=4, preview_interval=4, tensorboard=True, log_interval=4
    )
    train_avatar(ellipsoid, make_frames(48), make_splats(500), config, 7, output_dir=tmp_path)
    previews = sorted(p.name for p in (tmp_path / "previews").iterdir())
    assert previews == ["step_000004.png", "step_000008.png"]
    assert any((tmp_path / "tensorboard").iterdir())
    assert [row["step"] for row in rows(tmp_path / "curves.csv")] == ["4", "8"]


def coin_contest(ellipsoid, make_frames, make_splats, enabled: bool) -> tuple[float, Gaussians]:
    """Train on views whose colours disagree; PSNR against consistent pictures of the base."""
    tints = np.random.default_rng(3).normal(0, 0.12, (6, 3))
    tints[0] = 0
    config = TrainConfig(
        static_steps=60, coin_steps=160, sh_degree=0, density=DensityConfig(enabled=False),
        coin=CoinConfig(enabled=enabled, offset_weight=0.1, learning_rate=5e-3),
    )  # fmt: skip
    frames = make_frames(48, tints=tints)
    result = train_avatar(ellipsoid, frames, make_splats(1500), config, 2)
    return result.facts["psnr_reference"], result.gaussians


def test_coin_keeps_other_views_disagreement_out_of_the_reference_look(
    ellipsoid, make_frames, make_splats
):
    with_offsets, _ = coin_contest(ellipsoid, make_frames, make_splats, True)
    without, _ = coin_contest(ellipsoid, make_frames, make_splats, False)
    assert with_offsets > without + 0.5


def test_impossible_configurations_are_refused_by_option():
    for wrong, message in {
        "static_steps": r"train\.static_steps",
        "sh_interval": r"train\.sh_interval",
    }.items():
        with pytest.raises(ConfigError, match=message):
            TrainConfig(**{wrong: -1})
    with pytest.raises(ConfigError, match=r"train\.sh_degree"):
        TrainConfig(sh_degree=4)
    with pytest.raises(ConfigError, match="both 0"):
        TrainConfig(static_steps=0, coin_steps=0)
    with pytest.raises(ConfigError, match=r"coin\.static_fraction"):
        CoinConfig(static_fraction=1.5)
    with pytest.raises(ConfigError, match=r"window\.focus_fraction"):
        WindowConfig(focus_fraction=-1)


@pytest.mark.gpu
def test_a_few_steps_on_cuda_go_where_they_go_on_the_cpu(ellipsoid, make_frames, make_splats):
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    pytest.importorskip("gsplat")
    config = replace(
        SHORT, static_steps=4, coin_steps=4, density=DensityConfig(enabled=False),
        coin=CoinConfig(structure="lpips_random"),
    )  # fmt: skip
    arguments = (ellipsoid, make_frames(48), make_splats(500))
    on_cpu = train_avatar(*arguments, config, 7)
    on_cuda = train_avatar(*arguments, replace(config, device="cuda"), 7)
    assert on_cuda.gaussians.positions.device.type == "cpu"
    assert on_cuda.facts["psnr_static"] == pytest.approx(on_cpu.facts["psnr_static"], abs=0.1)
    moved = (on_cuda.gaussians.sh0 - make_splats(500).sh0).abs().mean()
    apart = (on_cuda.gaussians.sh0 - on_cpu.gaussians.sh0).abs().mean()
    assert apart < 0.1 * moved
