from __future__ import annotations

import torch

from fc4d_ray.tracking.arrow_system import ArrowSystem

K, T, P = 3, 4, 5


def _system(chained: bool) -> tuple[ArrowSystem, torch.Tensor, torch.Tensor]:
    """A random system and the same one written out as a dense matrix."""
    g = torch.Generator().manual_seed(0)
    size = K + T * P
    root = torch.zeros(3 * size, size, dtype=torch.float64)
    for t in range(T):
        rows = slice(t * 15, t * 15 + 15)
        root[rows, :K] = torch.randn(15, K, generator=g).double()
        root[rows, K + t * P : K + (t + 1) * P] = torch.randn(15, P, generator=g).double()
    dense = root.T @ root + 0.1 * torch.eye(size).double()
    chain = torch.zeros(T - 1, P).double()
    if chained:
        tie = torch.rand(T - 1, P, generator=g).double()
        tie[1] = 0  # another clip begins
        for t in range(T - 1):
            for p in range(P):
                a, b = K + t * P + p, K + (t + 1) * P + p
                dense[a, a] += tie[t, p]
                dense[b, b] += tie[t, p]
                dense[a, b] -= tie[t, p]
                dense[b, a] -= tie[t, p]
        chain = -tie
    right = torch.randn(size, generator=g).double()
    frames = dense[K:, K:].unflatten(0, (T, P)).unflatten(2, (T, P))
    index = torch.arange(T)
    system = ArrowSystem(
        dense[:K, :K], right[:K], frames[index, :, index], right[K:].unflatten(0, (T, P)),
        dense[K:, :K].unflatten(0, (T, P)), chain,
    )  # fmt: skip
    return system, dense, right


def test_the_step_is_the_dense_systems() -> None:
    for chained in (False, True):
        system, dense, right = _system(chained)
        shared, frames = system.solve(0.0)
        expected = torch.linalg.solve(dense, right)
        torch.testing.assert_close(torch.cat([shared, frames.flatten()]), expected, rtol=1e-6,
                                   atol=1e-7)  # fmt: skip


def test_frozen_variables_stay_and_the_others_solve_without_them() -> None:
    system, dense, right = _system(True)
    frozen_shared = torch.tensor([False, True, False])
    frozen = torch.zeros(T, P, dtype=torch.bool)
    frozen[0, 2] = frozen[3] = True
    shared, frames = system.frozen(frozen_shared, frozen).solve(0.0)
    still = torch.cat([frozen_shared, frozen.flatten()])
    step = torch.cat([shared, frames.flatten()])
    assert (step[still] == 0).all()
    expected = torch.linalg.solve(dense[~still][:, ~still], right[~still])
    torch.testing.assert_close(step[~still], expected, rtol=1e-6, atol=1e-7)


def test_damping_shortens_the_step() -> None:
    system, _, _ = _system(True)
    lengths = [torch.cat([p.flatten() for p in system.solve(d)]).norm() for d in (0.0, 1.0, 100.0)]
    assert lengths[0] > lengths[1] > lengths[2] > 0


def test_a_known_identity_is_no_unknown() -> None:
    system, _, _ = _system(False)
    empty = ArrowSystem(
        system.shared[:0, :0], system.shared_right[:0], system.frames, system.frames_right,
        system.coupling[..., :0], system.chain,
    )  # fmt: skip
    shared, frames = empty.solve(0.0)
    assert len(shared) == 0
    torch.testing.assert_close(
        (system.frames @ frames[..., None])[..., 0], system.frames_right, atol=1e-6, rtol=1e-6
    )
