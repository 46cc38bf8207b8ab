"""The three small perceptrons: stitching, and eye and lip retargeting.

All take the source's keypoints first; see ``retargeting`` for when they are used.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn


class Perceptron(nn.Module):
    """Linear layers with ReLU between; state-dict names ``mlp.0``, ``mlp.2`` …"""

    def __init__(self, sizes: list[int]) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for before, after in pairwise(sizes):
            layers += [nn.Linear(before, after), nn.ReLU()]
        self.mlp = nn.Sequential(*layers[:-1])

    def forward(self, x: Tensor) -> Tensor:
        return self.mlp(x)


def stitch(network: Perceptron, source: Tensor, driven: Tensor) -> Tensor:
    """Driven keypoints (B, K, 3) moved so that shoulders and the crop's border stay in place."""
    n, n_keypoints, _ = driven.shape
    offsets = network(torch.cat([source.reshape(n, -1), driven.reshape(n, -1)], -1))
    moved = driven + offsets[:, : 3 * n_keypoints].view_as(driven)
    shift = torch.nn.functional.pad(offsets[:, 3 * n_keypoints :], (0, 1))
    return moved + shift[:, None]


def keypoint_delta(network: Perceptron, source: Tensor, ratios: Tensor) -> Tensor:
    """Keypoint offsets (B, K, 3) that bring eyes or lips to the wanted openness.

    ``ratios``: for eyes (B, 3) the source's left and right and the wanted one, for lips (B, 2)
    the source's and the wanted one; see ``openness``.
    """
    return network(torch.cat([source.flatten(1), ratios], -1)).view_as(source)
