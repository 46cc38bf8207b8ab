"""Positions of chosen vertices and how they change with every parameter: what solvers need.

Both head models are affine in their blend coefficients while the pose stands still, so those
columns of the Jacobian are the turned bases, exactly; the few pose angles are differentiated in
forward mode. Columns are identity first, then the parameters in the order of ``parameter_sizes``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from fc4d_ray.heads.flame import (
    POSE_SIZES,
    FlameModel,
    axis_angle_to_matrix,
    skinning_transforms,
)
from fc4d_ray.heads.flame_teeth import FLAME_JOINTS


class PointModel(Protocol):
    """N points of a head, functions of one identity and T frames of parameters."""

    @property
    def identity_size(self) -> int:
        """Number of identity coefficients K."""

    @property
    def parameter_sizes(self) -> dict[str, int]:
        """Width of every per-frame parameter, in the order of the Jacobian's columns."""

    def positions(self, identity: Tensor, parameters: Mapping[str, Tensor]) -> Tensor:
        """(T, N, 3) metres for identity (K,) and parameters (T, d)."""

    def jacobian(self, identity: Tensor, parameters: Mapping[str, Tensor]) -> Tensor:
        """(T, N, 3, K + P) derivatives of ``positions``."""


@dataclass(frozen=True)
class FlamePoints:
    """Some vertices of FLAME. Joints follow the whole head, whichever vertices are chosen."""

    template: Tensor  # [N, 3]
    identity_basis: Tensor  # [K, N, 3]
    expression_basis: Tensor  # [E, N, 3]
    pose_basis: Tensor  # [36, N, 3]
    weights: Tensor  # [N, 5]
    joints: Tensor  # [5, 3] of the template
    identity_joints: Tensor  # [K, 5, 3] their change with identity
    expression_joints: Tensor  # [E, 5, 3]

    @staticmethod
    def of(model: FlameModel, indices: Tensor) -> FlamePoints:
        """The vertices ``indices`` (N,) of a model."""
        regress = model.joint_regressor
        return FlamePoints(
            model.template[indices], model.identity_basis[:, indices],
            model.expression_basis[:, indices], model.pose_basis[:, indices],
            model.skinning_weights[indices], regress @ model.template,
            regress @ model.identity_basis, regress @ model.expression_basis,
        )  # fmt: skip

    @property
    def identity_size(self) -> int:
        return len(self.identity_basis)

    @property
    def parameter_sizes(self) -> dict[str, int]:
        return {"expr": len(self.expression_basis)} | POSE_SIZES | {"translation": 3}

    def positions(self, identity: Tensor, parameters: Mapping[str, Tensor]) -> Tensor:
        shaped, joints = self._shaped(identity, parameters["expr"])
        return self._skinned(shaped, joints, _angles(parameters), parameters["translation"])

    def jacobian(self, identity: Tensor, parameters: Mapping[str, Tensor]) -> Tensor:
        shaped, joints = self._shaped(identity, parameters["expr"])
        angles, translation = _angles(parameters), parameters["translation"]
        rotations = _rotations(angles)
        turned, _ = skinning_transforms(rotations, joints)
        vertex_rotation = torch.einsum("nj,tjab->tnab", self.weights, turned)
        n_frames, n_points = vertex_rotation.shape[:2]
        linear = []
        for basis, moved in (
            (self.identity_basis, self.identity_joints),
            (self.expression_basis, self.expression_joints),
        ):
            columns = torch.einsum("tnab,knb->tnak", vertex_rotation, basis)
            # The shift of a joint's transform is linear in the rest joints.
            count = len(moved)
            each = rotations[:, None].expand(-1, count, -1, -1, -1).flatten(0, 1)
            _, shift = skinning_transforms(each, moved.repeat(n_frames, 1, 1))
            shift = shift.unflatten(0, (n_frames, count))
            linear.append(columns + torch.einsum("nj,tkja->tnak", self.weights, shift))
        turning = _forward_columns(lambda a: self._skinned(shaped, joints, a, translation), angles)
        shifting = torch.eye(3).to(shaped).expand(n_frames, n_points, 3, 3)
        return torch.cat([*linear, turning, shifting], -1)

    def _shaped(self, identity: Tensor, expr: Tensor) -> tuple[Tensor, Tensor]:
        shaped = self.template + torch.tensordot(identity, self.identity_basis, 1)
        joints = self.joints + torch.tensordot(identity, self.identity_joints, 1)
        return (
            shaped + torch.tensordot(expr, self.expression_basis, 1),
            joints + torch.tensordot(expr, self.expression_joints, 1),
        )

    def _skinned(
        self, shaped: Tensor, joints: Tensor, angles: Tensor, translation: Tensor
    ) -> Tensor:
        rotations = _rotations(angles)
        identity = torch.eye(3).to(rotations)
        features = (rotations[:, 1:] - identity).flatten(1)
        posed = shaped + torch.tensordot(features, self.pose_basis, 1)
        turned, shifted = skinning_transforms(rotations, joints)
        vertex_rotation = torch.einsum("nj,tjab->tnab", self.weights, turned)
        moved = (vertex_rotation @ posed[..., None])[..., 0]
        return moved + self.weights @ shifted + translation[:, None]


@dataclass(frozen=True)
class RigPoints:
    """Some vertices of a linear rig with a neck joint, moved as a whole by a rigid motion.

    The rigid motion (``rotation`` about the origin, then ``translation``) is what tracked people
    have and the rig itself has not: its frame is the head's.
    """

    neutral: Tensor  # [N, 3]
    identity_basis: Tensor  # [K, N, 3]; K may be 0
    action_basis: Tensor  # [A, N, 3]
    neck_pivot: Tensor  # [3]
    neck_weight: Tensor  # [N]

    @property
    def identity_size(self) -> int:
        return len(self.identity_basis)

    @property
    def parameter_sizes(self) -> dict[str, int]:
        return {"actions": len(self.action_basis), "neck": 3, "rotation": 3, "translation": 3}

    def positions(self, identity: Tensor, parameters: Mapping[str, Tensor]) -> Tensor:
        still = self._still(identity, parameters["actions"])
        angles = torch.cat([parameters["neck"], parameters["rotation"]], -1)
        return self._moved(still, angles) + parameters["translation"][:, None]

    def jacobian(self, identity: Tensor, parameters: Mapping[str, Tensor]) -> Tensor:
        still = self._still(identity, parameters["actions"])
        angles = torch.cat([parameters["neck"], parameters["rotation"]], -1)
        turn = axis_angle_to_matrix(angles[:, 3:])[:, None] @ self._neck_turn(angles[:, :3])
        basis = torch.cat([self.identity_basis, self.action_basis])
        linear = torch.einsum("tnab,knb->tnak", turn, basis)
        turning = _forward_columns(lambda a: self._moved(still, a), angles)
        shifting = torch.eye(3).to(still).expand(*still.shape[:2], 3, 3)
        return torch.cat([linear, turning, shifting], -1)

    def _still(self, identity: Tensor, actions: Tensor) -> Tensor:
        shaped = self.neutral + torch.tensordot(identity, self.identity_basis, 1)
        return shaped + torch.tensordot(actions, self.action_basis, 1)

    def _neck_turn(self, neck: Tensor) -> Tensor:
        """(T, N, 3, 3): each point turns by its share of the neck's angle."""
        return axis_angle_to_matrix(neck[:, None] * self.neck_weight[:, None])

    def _moved(self, still: Tensor, angles: Tensor) -> Tensor:
        turn = self._neck_turn(angles[:, :3])
        nodded = (turn @ (still - self.neck_pivot)[..., None])[..., 0] + self.neck_pivot
        return nodded @ axis_angle_to_matrix(angles[:, 3:]).transpose(-1, -2)


def _angles(parameters: Mapping[str, Tensor]) -> Tensor:
    return torch.cat([parameters[name] for name in POSE_SIZES], -1)


def _rotations(angles: Tensor) -> Tensor:
    return axis_angle_to_matrix(angles.unflatten(-1, (FLAME_JOINTS, 3)))


def _forward_columns(function: Callable[[Tensor], Tensor], angles: Tensor) -> Tensor:
    """(T, N, 3, D) derivatives of a per-frame function (T, D) -> (T, N, 3), in forward mode."""
    size = angles.shape[-1]
    tangents = torch.eye(size).to(angles)[:, None].expand(-1, len(angles), -1)

    def column(tangent: Tensor) -> Tensor:
        return torch.func.jvp(function, (angles,), (tangent,))[1]

    return torch.stack([column(tangent) for tangent in tangents], -1)
