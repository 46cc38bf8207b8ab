"""One person's posable head: a neutral mesh, its expression basis and a neck joint.

World frame as in docs/conventions.md, metres. The rig is what the shape stage leaves, what the
trainer binds Gaussians to and what a published avatar carries, so it holds plain arrays only.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


class Region(IntEnum):
    """What a vertex of the rig belongs to."""

    FACE = 0
    SCALP = 1
    EAR = 2
    NECK = 3
    BUST = 4
    EYE = 5
    TEETH = 6
    TONGUE = 7
    HAIR = 8
    CLOTHING = 9
    MOUTH = 10


@dataclass(frozen=True)
class HeadRig:
    """A linear expression rig with one neck joint; a ``PosableMesh``.

    ``pose`` adds ``actions @ action_basis`` to ``neutral``, then turns every vertex about
    ``neck_pivot`` by the neck rotation times its ``neck_weight``.
    """

    neutral: NDArray[np.float32]  # [V, 3] metres
    faces: NDArray[np.int32]  # [F, 3]
    action_basis: NDArray[np.float32]  # [A, V, 3] metres at action = 1
    action_names: tuple[str, ...]
    neck_pivot: NDArray[np.float32]  # [3]
    neck_weight: NDArray[np.float32]  # [V] 0 (torso) to 1 (head)
    region: NDArray[np.uint8]  # [V] Region
    landmark_faces: NDArray[np.int32]  # [68] face each landmark lies on
    landmark_barycentric: NDArray[np.float32]  # [68, 3]

    kind = "anny"
    parameter_sizes: dict[str, int] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        sizes = {"actions": len(self.action_names), "neck": 3}
        object.__setattr__(self, "parameter_sizes", sizes)
        # Only vertices some action moves take part in the sum: a fifth of the mesh.
        moving = np.flatnonzero(np.abs(self.action_basis).max(axis=(0, 2)) > 1e-6)
        basis = torch.from_numpy(np.ascontiguousarray(self.action_basis[:, moving]))
        object.__setattr__(self, "_moving", torch.from_numpy(moving))
        object.__setattr__(self, "_moving_basis", basis.reshape(len(basis), -1))

    def pose(self, parameters: Mapping[str, Tensor]) -> Tensor:
        """Vertices (T, V, 3) in metres for ``actions`` (T, A) and ``neck`` (T, 3) axis-angle."""
        actions, neck = parameters["actions"], parameters["neck"]
        basis = self._moving_basis.to(actions)
        offsets = (actions @ basis).reshape(len(actions), -1, 3)
        neutral = torch.as_tensor(self.neutral).to(actions)
        vertices = neutral.expand(len(actions), -1, -1).index_add(1, self._moving, offsets)
        pivot = torch.as_tensor(self.neck_pivot).to(actions)
        weight = torch.as_tensor(self.neck_weight).to(actions)
        return _turn(vertices - pivot, neck, weight) + pivot

    def neutral_parameters(self, n_frames: int = 1) -> dict[str, Tensor]:
        """Zero parameters: the neutral face, looking ahead."""
        return {name: torch.zeros(n_frames, d) for name, d in self.parameter_sizes.items()}

    def parameters_from_actions(self, actions: Mapping[str, float]) -> dict[str, Tensor]:
        """One frame of parameters from named actions.

        Raises ``KeyError`` with the known names where one is unknown.
        """
        parameters = self.neutral_parameters()
        for name, value in actions.items():
            if name not in self.action_names:
                raise KeyError(f"unknown action {name!r}; known: {', '.join(self.action_names)}")
            parameters["actions"][0, self.action_names.index(name)] = value
        return parameters

    def landmarks(self, vertices: Tensor) -> Tensor:
        """The 68 landmark points (..., 68, 3) on posed vertices (..., V, 3)."""
        corners = torch.as_tensor(self.faces[self.landmark_faces]).long()
        weights = torch.as_tensor(self.landmark_barycentric).to(vertices)
        return (vertices[..., corners, :] * weights[:, :, None]).sum(-2)

    def to_arrays(self) -> dict[str, NDArray]:
        """Plain arrays, float16 for the basis (error below a hundredth of a millimetre)."""
        return {
            "neutral": self.neutral,
            "faces": self.faces,
            "action_basis": self.action_basis.astype(np.float16),
            "action_names": np.array(self.action_names),
            "neck_pivot": self.neck_pivot,
            "neck_weight": self.neck_weight,
            "region": self.region,
            "landmark_faces": self.landmark_faces,
            "landmark_barycentric": self.landmark_barycentric,
        }

    @staticmethod
    def from_arrays(arrays: Mapping[str, NDArray]) -> HeadRig:
        return HeadRig(
            neutral=np.asarray(arrays["neutral"], np.float32),
            faces=np.asarray(arrays["faces"], np.int32),
            action_basis=np.asarray(arrays["action_basis"], np.float32),
            action_names=tuple(str(n) for n in arrays["action_names"]),
            neck_pivot=np.asarray(arrays["neck_pivot"], np.float32),
            neck_weight=np.asarray(arrays["neck_weight"], np.float32),
            region=np.asarray(arrays["region"], np.uint8),
            landmark_faces=np.asarray(arrays["landmark_faces"], np.int32),
            landmark_barycentric=np.asarray(arrays["landmark_barycentric"], np.float32),
        )


def _turn(points: Tensor, axis_angle: Tensor, weight: Tensor) -> Tensor:
    """Rotate points (T, V, 3) by ``weight`` (V) times the axis-angle (T, 3), Rodrigues' formula."""
    angle = (axis_angle.square().sum(-1, keepdim=True) + 1e-20).sqrt()
    axis = (axis_angle / angle)[:, None].expand_as(points)
    theta = (angle * weight)[..., None]
    along = (axis * points).sum(-1, keepdim=True) * axis
    return along + (points - along) * theta.cos() + torch.cross(axis, points, -1) * theta.sin()
