from __future__ import annotations

import torch

from fc4d_ray.avatar.optimiser import AvatarOptimiser


def optimiser_after_steps(n: int) -> tuple[AvatarOptimiser, torch.Tensor]:
    tensor = torch.arange(4.0).requires_grad_()
    optimiser = AvatarOptimiser(torch.device("cpu"))
    optimiser.add("a", tensor)
    optimiser.set_rates({"a": 0.1})
    for _ in range(n):
        (tensor * torch.tensor([1.0, -1.0, 2.0, 0.0])).sum().backward()
        optimiser.step()
    return optimiser, tensor


def test_moments_follow_their_rows_and_new_rows_start_at_zero():
    optimiser, tensor = optimiser_after_steps(3)
    before = optimiser.state()["a"]["exp_avg"].clone()
    parent = torch.tensor([2, 0, 0])
    edited = tensor.detach()[parent].clone().requires_grad_()
    optimiser.replace_rows({"a": edited}, parent, torch.tensor([False, False, True]))
    after = optimiser.state()["a"]
    assert torch.equal(after["exp_avg"], torch.stack([before[2], before[0], torch.tensor(0.0)]))
    assert after["exp_avg_sq"][2] == 0
    assert after["step"] == 3
    edited.sum().backward()
    held = edited.detach().clone()
    optimiser.step()
    assert (edited != held).all()
    assert edited.grad is None


def test_restored_optimiser_goes_on_alike():
    first, a = optimiser_after_steps(2)
    second = AvatarOptimiser(torch.device("cpu"))
    b = a.detach().clone().requires_grad_()
    second.add("a", b)
    second.set_rates({"a": 0.1})
    saved = {n: {k: v.clone() for k, v in s.items()} for n, s in first.state().items()}
    second.restore(saved)
    for optimiser, tensor in ((first, a), (second, b)):
        tensor.square().sum().backward()
        optimiser.step()
    assert torch.equal(a, b)


def test_clearing_and_removing():
    optimiser, tensor = optimiser_after_steps(2)
    optimiser.clear_moments("a")
    assert not optimiser.state()["a"]["exp_avg"].any()
    other = torch.ones(2).requires_grad_()
    optimiser.add("b", other)
    optimiser.remove("a")
    optimiser.set_rates({"b": 0.5})
    held = tensor.detach().clone()
    (tensor.sum() + other.sum()).backward()
    optimiser.step()
    assert torch.equal(tensor, held)
    assert torch.allclose(other, torch.full((2,), 0.5))
