"""FLAME's forward model: blend shapes, joints, linear blend skinning, landmarks.

Li et al., "Learning a model of facial shape and expression from 4D scans" (2017). Frame: FLAME's
own, which is ours (docs/conventions.md): metres, y up, z towards the viewer, x to the subject's
left. Joints are root, neck, jaw, left eye, right eye; angles are axis-angle vectors in radians.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from fc4d_ray.heads.flame_teeth import FLAME_JOINTS, FlameArrays

PARENTS = (-1, 0, 1, 1, 1)
NECK_JOINT, JAW_JOINT, LEFT_EYE_JOINT, RIGHT_EYE_JOINT = 1, 2, 3, 4
N_IDENTITY, N_EXPRESSION = 300, 100
POSE_SIZES: dict[str, int] = {"rotation": 3, "neck": 3, "jaw": 3, "eyes": 6}
"""Angle vectors in joint order; ``eyes`` holds left then right."""
_ANGLE_OFFSET = 1e-8


@dataclass(frozen=True)
class FlamePose:
    """A posed batch of T frames."""

    vertices: Tensor  # [T, V, 3] metres
    joints: Tensor  # [T, 5, 3] posed joints
    rest_joints: Tensor  # [T, 5, 3] regressed from the shaped, unposed vertices
    rotations: Tensor  # [T, 5, 3, 3] of each joint against its parent
    transforms: Tensor  # [T, 5, 4, 4] skinning transforms, without the translation
    shaped: Tensor  # [T, V, 3] before pose correctives


@dataclass(frozen=True)
class FlameModel:
    """A FLAME file as tensors, ready to be posed; any number of vertices and coefficients."""

    template: Tensor  # [V, 3]
    faces: Tensor  # [F, 3] int64
    identity_basis: Tensor  # [S, V, 3] metres per unit
    expression_basis: Tensor  # [E, V, 3]
    pose_basis: Tensor  # [36, V, 3]
    joint_regressor: Tensor  # [5, V]
    skinning_weights: Tensor  # [V, 5]

    @staticmethod
    def from_arrays(
        arrays: FlameArrays,
        n_identity: int = N_IDENTITY,
        n_expression: int = N_EXPRESSION,
        *,
        identity_columns: int = N_IDENTITY,
        dtype: torch.dtype = torch.float32,
    ) -> FlameModel:
        """The first coefficients of each kind; the file has ``identity_columns`` of identity.

        Raises ``ValueError`` where the file has fewer.
        """
        columns = arrays.shape_basis.shape[-1]
        if n_identity > identity_columns or n_expression > columns - identity_columns:
            raise ValueError(
                f"expected at least {n_identity} identity and {n_expression} expression columns, "
                f"found {identity_columns} and {columns - identity_columns}"
            )

        def tensor(array: np.ndarray) -> Tensor:
            return torch.from_numpy(np.ascontiguousarray(array, np.float64)).to(dtype)

        basis = np.moveaxis(np.asarray(arrays.shape_basis), -1, 0)
        return FlameModel(
            tensor(arrays.template),
            torch.from_numpy(np.ascontiguousarray(arrays.faces, np.int64)),
            tensor(basis[:n_identity]),
            tensor(basis[identity_columns : identity_columns + n_expression]),
            tensor(np.moveaxis(np.asarray(arrays.pose_basis), -1, 0)),
            tensor(arrays.joint_regressor),
            tensor(arrays.skinning_weights),
        )

    @property
    def parameter_sizes(self) -> dict[str, int]:
        """Width of every parameter ``pose`` takes."""
        bases = {"shape": len(self.identity_basis), "expr": len(self.expression_basis)}
        return bases | POSE_SIZES | {"translation": 3}

    def neutral_parameters(self, n_frames: int = 1) -> dict[str, Tensor]:
        """Zeros for every parameter, (T, d) each."""
        return {n: self.template.new_zeros(n_frames, d) for n, d in self.parameter_sizes.items()}

    def to(self, device: torch.device | str) -> FlameModel:
        """The same model on another device."""
        return FlameModel(*(getattr(self, n).to(device) for n in self.__dataclass_fields__))

    def pose(
        self, parameters: Mapping[str, Tensor], static_offset: Tensor | None = None
    ) -> FlamePose:
        """Pose parameters (T, d); fewer coefficients than the basis has count as zeros behind.

        ``static_offset`` (V, 3) or (T, V, 3) is added to the shaped vertices and, like expression,
        moves the joints.
        """
        shaped = self._shaped(parameters["shape"], parameters["expr"])
        if static_offset is not None:
            shaped = shaped + static_offset
        angles = torch.cat([parameters[name] for name in POSE_SIZES], -1)
        rotations = axis_angle_to_matrix(angles.reshape(len(angles), FLAME_JOINTS, 3))
        rest_joints = self.joint_regressor @ shaped
        identity = torch.eye(3, dtype=rotations.dtype, device=rotations.device)
        features = (rotations[:, 1:] - identity).flatten(1)
        posed = shaped + _blend(features, self.pose_basis)
        turned, shifted = skinning_transforms(rotations, rest_joints)
        weights = self.skinning_weights
        vertex_rotation = torch.einsum("vj,tjab->tvab", weights, turned)
        translation = parameters["translation"][:, None]
        vertices = (vertex_rotation @ posed[..., None])[..., 0] + weights @ shifted + translation
        joints = (turned @ rest_joints[..., None])[..., 0] + shifted + translation
        return FlamePose(
            vertices, joints, rest_joints, rotations, _homogeneous(turned, shifted), shaped
        )

    def _shaped(self, shape: Tensor, expr: Tensor) -> Tensor:
        return (
            self.template + _blend(shape, self.identity_basis) + _blend(expr, self.expression_basis)
        )


def axis_angle_to_matrix(vectors: Tensor) -> Tensor:
    """Rotation matrices (..., 3, 3) of axis-angle vectors (..., 3), Rodrigues' formula.

    The angle is that of the vector plus 1e-8 per component, as FLAME's publishers compute it: at
    zero the result is the identity and the gradient finite and right.
    """
    angle = (vectors + _ANGLE_OFFSET).norm(dim=-1, keepdim=True)
    x, y, z = (vectors / angle).unbind(-1)
    zero = torch.zeros_like(x)
    skew = torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], -1).unflatten(-1, (3, 3))
    angle = angle[..., None]
    identity = torch.eye(3, dtype=vectors.dtype, device=vectors.device)
    return identity + angle.sin() * skew + (1 - angle.cos()) * (skew @ skew)


def skinning_transforms(rotations: Tensor, rest_joints: Tensor) -> tuple[Tensor, Tensor]:
    """Global rotation (T, 5, 3, 3) and shift (T, 5, 3) that carry rest points with each joint.

    ``rotations`` (T, 5, 3, 3) are against the parent, ``rest_joints`` (T, 5, 3).
    """
    turned: list[Tensor] = []
    places: list[Tensor] = []
    for joint, parent in enumerate(PARENTS):
        if parent < 0:
            turned.append(rotations[:, joint])
            places.append(rest_joints[:, joint])
            continue
        bone = rest_joints[:, joint] - rest_joints[:, parent]
        turned.append(turned[parent] @ rotations[:, joint])
        places.append(places[parent] + (turned[parent] @ bone[..., None])[..., 0])
    stacked = torch.stack(turned, 1)
    return stacked, torch.stack(places, 1) - (stacked @ rest_joints[..., None])[..., 0]


def _blend(coefficients: Tensor, basis: Tensor) -> Tensor:
    """(T, V, 3) of coefficients (T, n) and the first n rows of a basis (N, V, 3)."""
    used = basis[: coefficients.shape[-1]]
    return (coefficients @ used.flatten(1)).unflatten(-1, basis.shape[1:])


def _homogeneous(rotation: Tensor, shift: Tensor) -> Tensor:
    upper = torch.cat([rotation, shift[..., None]], -1)
    last = upper.new_tensor([0.0, 0.0, 0.0, 1.0]).expand(*upper.shape[:-2], 1, 4)
    return torch.cat([upper, last], -2)
