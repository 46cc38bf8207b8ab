"""The benchmark times networks of the released sizes."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest
import torch

FILE = Path(__file__).resolve().parents[2] / "benchmarks" / "liveportrait.py"
RELEASED_PARAMETERS = {
    "appearance": 836_224,
    "motion": 28_118_728,
    "warping": 45_529_829,
    "decoder": 55_365_388,
    "stitching": 45_249,
    "eye": 144_703,
    "lip": 37_311,
}


@pytest.fixture(scope="module")
def benchmark_module() -> ModuleType:
    spec = importlib.util.spec_from_file_location("benchmark_liveportrait", FILE)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_networks_have_the_released_sizes(benchmark_module: ModuleType) -> None:
    with torch.device("meta"):
        networks = benchmark_module.released_networks()
    counts = {
        name: sum(parameter.numel() for parameter in module.parameters())
        for name, module in vars(networks).items()
    }
    assert counts == RELEASED_PARAMETERS
    assert benchmark_module.PAIRS_PER_AVATAR == 9600
