"""One Adam over everything training moves, and how its moments follow splats that come and go."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

_BETAS = (0.9, 0.999)
_MOMENTS = ("exp_avg", "exp_avg_sq")


class AvatarOptimiser:
    """Named leaf tensors, each a group of its own with its own rate."""

    def __init__(self, device: torch.device, epsilon: float = 1e-15) -> None:
        self._epsilon = epsilon
        self._fused = device.type in ("cpu", "cuda")
        self._adam: torch.optim.Adam | None = None
        self.tensors: dict[str, Tensor] = {}

    def add(self, name: str, tensor: Tensor) -> None:
        """Take on a leaf tensor under a name; its rate is 0 until ``set_rates``."""
        group = {"params": [tensor], "name": name, "lr": 0.0}
        if self._adam is None:
            self._adam = torch.optim.Adam(
                [group], betas=_BETAS, eps=self._epsilon, fused=self._fused
            )
        else:
            self._adam.add_param_group(group)
        self.tensors[name] = tensor

    def set_rates(self, rates: Mapping[str, float]) -> None:
        """Set the rate of every group; ``rates`` names each."""
        for group in self._groups():
            group["lr"] = rates[group["name"]]

    def step(self) -> None:
        """Move along the gradients, then drop them."""
        self._adam.step()
        self._adam.zero_grad(set_to_none=True)

    def replace_rows(self, tensors: Mapping[str, Tensor], parent: Tensor, is_new: Tensor) -> None:
        """Swap in edited per-splat tensors: moments follow ``parent``, new rows start at 0."""
        for name, tensor in tensors.items():
            state = self._swap(name, tensor)
            for moment in _MOMENTS:
                if moment in state:
                    moved = state[moment][parent]
                    moved[is_new] = 0
                    state[moment] = moved

    def clear_moments(self, name: str) -> None:
        """Forget the history of one tensor."""
        state = self._adam.state[self.tensors[name]]
        for moment in _MOMENTS:
            if moment in state:
                state[moment].zero_()

    def remove(self, name: str) -> None:
        """Let go of a tensor."""
        tensor = self.tensors.pop(name)
        self._adam.state.pop(tensor, None)
        self._adam.param_groups[:] = [g for g in self._groups() if g["name"] != name]

    def state(self) -> dict[str, dict[str, Tensor]]:
        """Moments and step counts by name."""
        return {name: dict(self._adam.state.get(t, {})) for name, t in self.tensors.items()}

    def restore(self, states: Mapping[str, Mapping[str, Tensor]]) -> None:
        """Inverse of ``state`` for an optimiser with the same tensors added."""
        for name, state in states.items():
            if state:
                self._adam.state[self.tensors[name]] = dict(state)

    def _swap(self, name: str, tensor: Tensor) -> dict[str, Any]:
        old = self.tensors[name]
        state = self._adam.state.pop(old, {})
        self._adam.state[tensor] = state
        for group in self._groups():
            if group["name"] == name:
                group["params"] = [tensor]
        self.tensors[name] = tensor
        return state

    def _groups(self) -> Iterable[dict[str, Any]]:
        return self._adam.param_groups if self._adam is not None else ()
