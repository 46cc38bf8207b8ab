from __future__ import annotations

import importlib.util
import subprocess
import sys

import pytest

from fc4d_ray.assets.torchvision_shim import ensure_torchvision_importable


def _missing(*modules: str) -> bool:
    return any(importlib.util.find_spec(name) is None for name in modules)


def _run(source: str) -> str:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", source], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.skipif(_missing("torchvision", "lpips"), reason="torchvision and lpips not installed")
def test_lpips_runs_forward_and_backward_in_a_fresh_process() -> None:
    out = _run(
        """
from fc4d_ray.assets.torchvision_shim import ensure_torchvision_importable
ensure_torchvision_importable()
ensure_torchvision_importable()
import lpips, torch
torch.manual_seed(0)
net = lpips.LPIPS(net="alex", pnet_rand=True, verbose=False)
image = torch.rand(1, 3, 64, 64, requires_grad=True)
assert float(net(image, image.detach()).abs().max()) == 0.0
net(image, torch.rand(1, 3, 64, 64)).sum().backward()
print(float(image.grad.abs().sum()) > 0)
"""
    )
    assert out.strip() == "True"


@pytest.mark.skipif(_missing("torchvision"), reason="torchvision not installed")
def test_operators_still_work_or_raise() -> None:
    """The shim never makes an operator look as if it ran."""
    out = _run(
        """
from fc4d_ray.assets.torchvision_shim import ensure_torchvision_importable
ensure_torchvision_importable()
import torch, torchvision
boxes = torch.tensor([[0.0, 0.0, 1.0, 1.0], [0.0, 0.0, 1.0, 1.0]])
try:
    print(torchvision.ops.nms(boxes, torch.tensor([0.9, 0.8]), 0.5).tolist())
except RuntimeError as error:
    print("refused")
"""
    )
    assert out.strip() in ("[0]", "refused")


def test_without_torchvision_nothing_happens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "torchvision", raising=False)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    ensure_torchvision_importable.__wrapped__()
    assert "torchvision" not in sys.modules
