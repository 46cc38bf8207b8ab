"""Least-squares steps for one shared identity and a chain of frames.

The normal equations have the shape of an arrow: a dense block for the identity, a block per frame,
and couplings between neighbouring frames only through the smoothness of single parameters. The
chain is eliminated frame by frame (block Thomas), then the identity is solved for.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class ArrowSystem:
    """Half the Hessian and minus half the gradient of a sum of squares, float64 on the CPU."""

    shared: Tensor  # [K, K]
    shared_right: Tensor  # [K]
    frames: Tensor  # [T, P, P]
    frames_right: Tensor  # [T, P]
    coupling: Tensor  # [T, P, K]
    chain: Tensor  # [T - 1, P] minus the weight that ties a parameter of t to that of t + 1

    def frozen(self, shared: Tensor, frames: Tensor) -> ArrowSystem:
        """The system in which the marked variables, (K,) and (T, P) bool, stay as they are."""
        free_shared, free = (~shared).double(), (~frames).double()
        blocks = self.frames * free[:, :, None] * free[:, None] + torch.diag_embed(frames.double())
        core = self.shared * free_shared[:, None] * free_shared + torch.diag(shared.double())
        return ArrowSystem(
            core, self.shared_right * free_shared, blocks, self.frames_right * free,
            self.coupling * free[:, :, None] * free_shared,
            self.chain * free[1:] * free[:-1],
        )  # fmt: skip

    def solve(self, damping: float) -> tuple[Tensor, Tensor]:
        """The step (K,) of the identity and (T, P) of the frames.

        ``damping`` is Levenberg's, relative to the diagonal (Marquardt).
        """
        blocks = _damped(self.frames, damping)
        right = torch.cat([self.coupling, self.frames_right[..., None]], -1)
        reached = _solve_chain(blocks, self.chain, right)
        towards_shared, alone = reached[..., :-1], reached[..., -1]
        core = _damped(self.shared, damping)
        core = core - torch.einsum("tpk,tpl->kl", self.coupling, towards_shared)
        rest = self.shared_right - torch.einsum("tpk,tp->k", self.coupling, alone)
        step = torch.linalg.solve(core, rest) if len(rest) else rest
        return step, alone - towards_shared @ step


def _damped(blocks: Tensor, damping: float) -> Tensor:
    diagonal = blocks.diagonal(dim1=-2, dim2=-1)
    return blocks + torch.diag_embed(damping * diagonal + 1e-9)


def _solve_chain(blocks: Tensor, chain: Tensor, right: Tensor) -> Tensor:
    """x (T, P, R) of the block tridiagonal system with diagonal off-diagonal blocks."""
    n_frames = len(blocks)
    if n_frames == 1 or not bool(chain.any()):
        return torch.linalg.solve(blocks, right)
    inverses: list[Tensor] = []
    carried: list[Tensor] = []
    for t in range(n_frames):
        block, wanted = blocks[t], right[t]
        if t > 0:
            tie = chain[t - 1]
            block = block - tie[:, None] * inverses[-1] * tie
            wanted = wanted - tie[:, None] * (inverses[-1] @ carried[-1])
        inverses.append(torch.linalg.inv(block))
        carried.append(wanted)
    solved = [inverses[-1] @ carried[-1]]
    for t in range(n_frames - 2, -1, -1):
        wanted = carried[t] - chain[t][:, None] * solved[-1]
        solved.append(inverses[t] @ wanted)
    return torch.stack(solved[::-1])
