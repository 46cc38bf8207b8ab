"""A head in FLAME's form made of the embedded head, for tests that need a face with meaning."""

from __future__ import annotations

import numpy as np
import torch

from fc4d_ray.heads.anny import AnnyHead
from fc4d_ray.heads.flame import FlameModel
from fc4d_ray.heads.rig import Region

SCALE = 1.04
SHIFT = np.array([0.002, -0.006, 0.004])


def flame_like(head: AnnyHead, n_expression: int = 36) -> FlameModel:
    """``anny``'s mean head, larger and moved, with expression axes, a jaw joint and two eyes."""
    place = lambda points: SCALE * points + SHIFT  # noqa: E731
    count = len(head.mean)
    deviations = head.action_basis.reshape(len(head.action_basis), -1).astype(np.float64)
    _, _, axes = np.linalg.svd(deviations, full_matrices=False)
    basis = axes[:n_expression].reshape(n_expression, count, 3) * SCALE * 0.05
    opened = np.linalg.norm(head.action_basis[head.action_names.index("jawOpen")], axis=1)
    weights = np.zeros((count, 5))
    weights[:, 1] = 1
    jaw = np.clip(opened / (0.8 * opened.max()), 0, 1) * (head.region != Region.EYE)
    weights[:, 1] -= jaw
    weights[:, 2] = jaw
    regressor = np.zeros((5, count))
    eyes = []
    for joint, side in ((3, 1), (4, -1)):
        ball = (head.region == Region.EYE) & (head.mean[:, 0] * side > 0)
        weights[ball] = np.eye(5)[joint]
        regressor[joint, ball] = 1 / ball.sum()
        eyes.append(ball)
    y, z = head.mean[:, 1], head.mean[:, 2]
    for joint, chosen in (
        (0, head.region == Region.BUST),
        (1, head.region == Region.NECK),
        (2, (head.region == Region.EAR) & (y < 0)),
    ):
        regressor[joint, chosen] = 1 / chosen.sum()
    assert z.max() > 0

    def tensor(array: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(np.ascontiguousarray(array)).double()

    return FlameModel(
        tensor(place(head.mean)), torch.from_numpy(head.faces.astype(np.int64)),
        torch.zeros(0, count, 3, dtype=torch.float64), tensor(basis),
        torch.zeros(36, count, 3, dtype=torch.float64), tensor(regressor), tensor(weights),
    )  # fmt: skip
