"""What PanoHead's benchmark compares computes the same."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from fc4d_ray.assets.tiny_panohead import make_tiny_generator
from fc4d_ray.priors.shape.panohead.labels import orbit_label

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.mark.parametrize("people", [1, 2])
def test_the_naive_arithmetic_agrees_with_ours(
    people: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    from panohead_naive import naive_arithmetic

    generator = make_tiny_generator(2)
    z = torch.randn(people, 8, generator=torch.Generator().manual_seed(3))
    front = torch.from_numpy(orbit_label(0)).expand(people, -1)
    cameras = torch.stack([torch.from_numpy(orbit_label(a)) for a in (20, 170)])
    cameras = cameras.expand(people, -1, -1)
    with torch.no_grad():
        image, ours = generator(z, front, cameras)
        with naive_arithmetic():
            expected, naive = generator(z, front, cameras)
    assert image.shape == (2 * people, 3, 32, 32)
    torch.testing.assert_close(image, expected, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(ours.ray_distance, naive.ray_distance, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(ours.mask, naive.mask, rtol=1e-4, atol=1e-5)


def test_the_gpu_part_says_that_it_needs_a_gpu() -> None:
    environment = os.environ | {"CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": str(BENCHMARKS.parent)}
    command = [sys.executable, str(BENCHMARKS / "panohead.py"), "--gpu"]
    done = subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=200, check=False
    )
    assert done.returncode == 2 and done.stderr.startswith("no CUDA device")
