from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.mark.parametrize("name", ["train_gpu", "render_gpu"])
def test_gpu_benchmarks_say_that_they_need_a_gpu(name: str) -> None:
    environment = os.environ | {"CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": str(BENCHMARKS.parent)}
    command = [sys.executable, str(BENCHMARKS / f"{name}.py")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2
    assert done.stderr.startswith("no CUDA device")
    assert done.stdout == ""


def test_every_part_of_a_coin_step_is_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import coin_step

    found = coin_step.parts_ms(n_splats=300, size=64, rounds=1)
    assert set(coin_step.PARTS) < set(found)
    assert all(value > 0 for value in found.values())


def test_the_benchmarks_training_goes_through_both_stages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import coin_step

    coin = coin_step.CoinConfig(structure="lpips_random")
    training = coin_step.make_training(300, 64, coin, static_steps=1)
    stages = [sorted(training.advance(coin_step.Sample(0, 0))) for _ in range(2)]
    assert "offset" not in stages[0]
    assert {"offset", "structure"} <= set(stages[1])
    assert torch.isfinite(training.gaussians.sh0).all()
