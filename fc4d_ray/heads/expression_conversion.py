"""ARKit actions to FLAME's expression, jaw and eyes, and back, by least squares on vertices.

Both models are brought onto each other by their 68 landmarks; points of FLAME's face then have a
counterpart on the other surface. An action at full strength moves that surface; FLAME's
coefficients are those that move the corresponding points alike. The way back finds actions in
[0, 1] for what FLAME's points did. What neither basis can say of the other is the reported error.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.interpolate import RBFInterpolator
from scipy.optimize import lsq_linear
from scipy.spatial import cKDTree
from torch import Tensor

from fc4d_ray.heads.anny import rotation_between
from fc4d_ray.heads.flame import FlameModel
from fc4d_ray.heads.point_models import FlamePoints
from fc4d_ray.heads.rig import HeadRig, Region

_ITERATIONS = 4
_MOST_POINTS = 1200
_TARGETS = ("expr", "jaw", "eyes")
_FARTHEST_M = 0.012
_WARP_SMOOTHING = 1e-6
_GAZE_LIMIT_RAD = 0.7


@dataclass(frozen=True)
class ExpressionConversion:
    """Linear from actions to FLAME; the way back solves for actions within [0, 1]."""

    action_names: tuple[str, ...]
    expr: NDArray[np.float32]  # [A, E] coefficients at action = 1
    jaw: NDArray[np.float32]  # [A, 3] rad
    eyes: NDArray[np.float32]  # [A, 6] rad, left then right
    points: NDArray[np.float32]  # [A, M, 3] metres: what each action does to FLAME's points
    vertices: NDArray[np.int32]  # [M] FLAME's vertices the points are
    error_mm: NDArray[np.float32]  # [A] rms of what FLAME could not follow
    motion_mm: NDArray[np.float32]  # [A] rms motion of the moving points

    def to_flame(self, actions: Tensor) -> dict[str, Tensor]:
        """``expr`` (T, E), ``jaw`` (T, 3) and ``eyes`` (T, 6) of actions (T, A)."""
        actions = actions.float()
        return {n: actions @ torch.from_numpy(getattr(self, n)).to(actions) for n in _TARGETS}

    def to_actions(
        self, model: FlameModel, parameters: Mapping[str, Tensor], sparsity: float = 1e-3
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Actions (T, A) for FLAME's ``expr``, ``jaw`` and ``eyes``, and each frame's rms in mm.

        ``model`` is the person's; head and neck pose do not count. ``sparsity`` in millimetres
        keeps actions at zero that explain less than it.
        """
        chosen = torch.from_numpy(self.vertices).long()
        points = FlamePoints.of(model, chosen)
        n_frames = len(parameters["expr"])
        sizes = points.parameter_sizes
        still = {n: model.template.new_zeros(n_frames, d) for n, d in sizes.items()}
        identity = model.template.new_zeros(points.identity_size)
        moved = still | {n: parameters[n].to(model.template) for n in _TARGETS}
        moved["expr"] = _padded(moved["expr"], sizes["expr"])
        offset = points.positions(identity, moved) - points.positions(identity, still)
        gaze = [self.action_names.index(n) for n in self.action_names if n.startswith("eyeLook")]
        face = np.setdiff1d(np.arange(len(self.action_names)), gaze)
        actions = np.zeros((n_frames, len(self.action_names)), np.float32)
        errors = np.zeros(n_frames, np.float32)
        basis = self.points[face].reshape(len(face), -1).T.astype(np.float64) * 1000
        ridge = sparsity * np.sqrt(len(self.vertices)) * np.eye(len(face))
        for t in range(n_frames):
            target = offset[t].reshape(-1).double().numpy() * 1000
            solved = lsq_linear(
                np.vstack([basis, ridge]), np.concatenate([target, np.zeros(len(face))]), (0, 1)
            )
            actions[t, face] = solved.x
            rest = (target - basis @ solved.x).reshape(-1, 3)
            errors[t] = np.sqrt(np.square(rest).sum(1).mean())
            if gaze:
                angles = parameters["eyes"][t].double().numpy()
                found = lsq_linear(self.eyes[gaze].T.astype(np.float64), angles, (0, 1))
                actions[t, gaze] = found.x
        return actions, errors

    def to_arrays(self) -> dict[str, NDArray]:
        """Plain arrays."""
        return {n: np.asarray(getattr(self, n)) for n in self.__dataclass_fields__}

    @staticmethod
    def from_arrays(arrays: Mapping[str, NDArray]) -> ExpressionConversion:
        values = {n: arrays[n] for n in ExpressionConversion.__dataclass_fields__}
        names = tuple(str(n) for n in values.pop("action_names"))
        return ExpressionConversion(action_names=names, **values)


@dataclass(frozen=True)
class Correspondence:
    """Points of one head's face and where they lie on another's."""

    vertices: NDArray[np.intp]  # [M] of FLAME
    source: NDArray[np.intp]  # [M, 3] vertices of the other head
    weights: NDArray[np.float64]  # [M, 3] their shares
    turn: NDArray[np.float64]  # [3, 3] scale times rotation, other head to FLAME


def fit_conversion(
    model: FlameModel, flame_region: NDArray[np.uint8], landmarks: NDArray, rig: HeadRig
) -> ExpressionConversion:
    """Fit the conversion from ``rig``'s actions.

    ``model`` is FLAME with identity fixed (or the mean), ``landmarks`` (68, 3) its own at rest.
    """
    pairs = correspond(model.template.double().numpy(), flame_region, landmarks, rig)
    moved = np.einsum("mk,amkc->amc", pairs.weights, rig.action_basis[:, pairs.source])
    targets = moved @ pairs.turn.T
    points = FlamePoints.of(model, torch.from_numpy(pairs.vertices))
    expr, jaw, error = _fit_face(points, targets)
    motion = np.linalg.norm(targets, axis=-1)
    moving = motion > 5e-4
    rms = [float(np.sqrt(np.square(m[k]).mean())) if k.any() else 0.0
           for m, k in zip(motion, moving, strict=True)]  # fmt: skip
    eyes = np.stack([_gaze(rig, row, pairs.turn) for row in range(len(rig.action_names))])
    for row, name in enumerate(rig.action_names):
        if name.startswith("eyeLook"):
            expr[row], jaw[row] = 0, 0
        else:
            eyes[row] = 0
    return ExpressionConversion(
        rig.action_names, expr.astype(np.float32), jaw.astype(np.float32),
        eyes.astype(np.float32), targets.astype(np.float32), pairs.vertices.astype(np.int32),
        (error * 1000).astype(np.float32), (np.array(rms) * 1000).astype(np.float32),
    )  # fmt: skip


def correspond(
    vertices: NDArray, region: NDArray[np.uint8], landmarks: NDArray, rig: HeadRig
) -> Correspondence:
    """Counterparts of FLAME's face vertices (V, 3) on the rig's face.

    The rig is moved by the similarity, then by the smooth warp, that its landmarks ask for. At
    most 1200 points are taken, spread evenly over the vertex numbers.
    """
    marks = rig.landmarks(torch.from_numpy(rig.neutral)).double().numpy()
    a, b = marks.mean(0), landmarks.mean(0)
    rotation = rotation_between(marks - a, landmarks - b)
    aligned = (marks - a) @ rotation
    scale = float((aligned * (landmarks - b)).sum() / np.square(aligned).sum())
    skin = np.flatnonzero(rig.region == Region.FACE)
    moved = scale * (rig.neutral[skin].astype(np.float64) - a) @ rotation + b
    warp = RBFInterpolator(
        scale * aligned + b, landmarks - (scale * aligned + b),
        kernel="thin_plate_spline", smoothing=_WARP_SMOOTHING,
    )  # fmt: skip
    moved = moved + warp(moved)
    face = np.flatnonzero(region == Region.FACE)
    distance, nearest = cKDTree(moved).query(vertices[face], k=3)
    near = np.flatnonzero(distance[:, 0] < _FARTHEST_M)
    near = near[:: max(1, -(-len(near) // _MOST_POINTS))]
    share = 1 / np.maximum(distance[near], 1e-6)
    share /= share.sum(1, keepdims=True)
    return Correspondence(face[near], skin[nearest[near]], share, scale * rotation.T)


def _fit_face(points: FlamePoints, targets: NDArray) -> tuple[NDArray, NDArray, NDArray]:
    """Expression (A, E), jaw (A, 3) and rms error (A,) in metres for motions (A, M, 3)."""
    count, size = len(targets), points.parameter_sizes["expr"]
    dtype = points.template.dtype
    wanted = torch.from_numpy(targets).to(dtype)
    identity = torch.zeros(points.identity_size, dtype=dtype)
    zero = {n: torch.zeros(count, d, dtype=dtype) for n, d in points.parameter_sizes.items()}
    rest = points.positions(identity, zero)
    current = dict(zero)
    first = points.identity_size
    columns = [*range(first, first + size)] + [first + size + 6 + i for i in range(3)]
    ridge = torch.full((size + 3,), 1e-5, dtype=torch.float64)
    scale = 1e6 / wanted.shape[1]
    for _ in range(_ITERATIONS):
        gap = (wanted - (points.positions(identity, current) - rest)).flatten(1).double()
        design = points.jacobian(identity, current)[..., columns].flatten(1, 2).double()
        values = torch.cat([current["expr"], current["jaw"]], -1).double()
        normal = scale * (design.transpose(1, 2) @ design) + torch.diag(ridge)
        right = scale * (design.transpose(1, 2) @ gap[..., None])[..., 0] - ridge * values
        values = (values + torch.linalg.solve(normal, right)).to(dtype)
        current |= {"expr": values[:, :size], "jaw": values[:, size:]}
    gap = wanted - (points.positions(identity, current) - rest)
    error = gap.square().sum(-1).mean(-1).sqrt()
    return current["expr"].numpy(), current["jaw"].numpy(), error.double().numpy()


def _gaze(rig: HeadRig, row: int, turn: NDArray) -> NDArray[np.float64]:
    """How an action turns the eyes: axis-angles (6,), left then right, in FLAME's frame."""
    from scipy.spatial.transform import Rotation

    eye = np.flatnonzero(rig.region == Region.EYE)
    rotation = turn / np.cbrt(np.linalg.det(turn))
    angles = []
    for side in (rig.neutral[eye, 0] > 0, rig.neutral[eye, 0] < 0):
        ball = eye[side]
        if not len(ball):
            angles.append(np.zeros(3))
            continue
        rest = rig.neutral[ball].astype(np.float64)
        after = rest + rig.action_basis[row, ball]
        matrix = rotation_between(rest - rest.mean(0), after - after.mean(0)).T
        angle = rotation @ Rotation.from_matrix(matrix).as_rotvec()
        angles.append(np.clip(angle, -_GAZE_LIMIT_RAD, _GAZE_LIMIT_RAD))
    return np.concatenate(angles)


def _padded(coefficients: Tensor, size: int) -> Tensor:
    missing = size - coefficients.shape[-1]
    return torch.nn.functional.pad(coefficients, (0, missing)) if missing > 0 else coefficients
