"""Writes a head model in FLAME's file formats that is none: the free ``anny`` head, laid out anew.

Sizes, names and layouts are those of the publishers' files (5023 vertices, 9976 faces, 300 + 100
basis columns, five joints), so readers, tracker and trainer run as with the real model. Geometry,
identity and expressions are anny's, sampled along a grid of directions; nothing of FLAME is in it.
"""

from __future__ import annotations

import pickle
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from fc4d_ray.heads.anny import AnnyHead, load_anny_head
from fc4d_ray.heads.flame_files import MASK_NAMES
from fc4d_ray.heads.flame_landmarks import JAW_POINTS, N_TURNS
from fc4d_ray.heads.flame_teeth import (
    FLAME_FACES,
    FLAME_VERTICES,
    LOWER_LIP_RING,
    UPPER_LIP_RING,
)
from fc4d_ray.heads.rig import Region

MODEL_NAME = "flame2023_Open.pkl"
"""Name under which ``fc4d assets import flame FOLDER`` finds the model."""

_COLUMNS, _RINGS = 62, 81
_LOWEST_POLAR_DEG = 140.0
_FRONT_DENSITY = 0.75
"""How much denser columns are in front than behind, 0 (not at all) to 1."""
_NEIGHBOURS = 6
_N_IDENTITY, _N_BASIS = 300, 400
_INNER = (Region.TEETH, Region.TONGUE, Region.MOUTH)
_JAW_JOINT_M = (0.0, -0.015, 0.01)
_LOWEST_M, _NECK_RADIUS_M = -0.17, 0.08
_BOUNDARY_M = 0.01
"""Height of the strip along the lower edge that counts as boundary."""
_SMOOTHING_STEPS = 3
_MASK_REGIONS = {"face": Region.FACE, "neck": Region.NECK, "scalp": Region.SCALP}


def write_tiny_flame(directory: Path) -> Path:
    """Model, landmark embedding and masks under ``directory``; returns the model's path."""
    layout = _Layout.of(load_anny_head())
    directory.mkdir(parents=True, exist_ok=True)
    model = directory / MODEL_NAME
    _dump(model, layout.model())
    _dump(directory / "FLAME_masks.pkl", layout.masks())
    np.save(directory / "landmark_embedding.npy", np.array(layout.embedding(), dtype=object))
    return model


@dataclass(frozen=True)
class _Layout:
    """Anny's head on a grid of directions: each vertex is a mean of anny's."""

    head: AnnyHead
    shares: scipy.sparse.csr_matrix  # [V, V of anny], rows sum to one
    faces: NDArray[np.int64]  # [F, 3]

    @staticmethod
    def of(head: AnnyHead) -> _Layout:
        # Beyond the neck the surface is no longer one seen from inside the head.
        is_shoulder = np.hypot(head.mean[:, 0], head.mean[:, 2]) > _NECK_RADIUS_M
        kept = ~np.isin(head.region, (*_INNER, Region.BUST)) & (head.mean[:, 1] > _LOWEST_M)
        kept &= ~((head.region == Region.NECK) & is_shoulder)
        outer = np.flatnonzero(kept)
        points = head.mean[outer].astype(np.float64)
        radius = np.linalg.norm(points, axis=1)
        distance, near = cKDTree(points / radius[:, None]).query(_directions(), _NEIGHBOURS)
        weights = 1 / (distance + 0.01)
        # Behind an ear or a lid there is a second surface: the outer one counts.
        weights[radius[near] < 0.9 * radius[near].max(1, keepdims=True)] = 0
        weights /= weights.sum(1, keepdims=True)
        rows = np.repeat(np.arange(FLAME_VERTICES), _NEIGHBOURS)
        shares = scipy.sparse.csr_matrix(
            (weights.ravel(), (rows, outer[near].ravel())), shape=(FLAME_VERTICES, len(head.mean))
        )
        faces = _grid_faces()
        shares = _smoothing(faces) @ shares
        order = _lips_first(head, shares @ head.mean)
        place = np.empty_like(order)
        place[order] = np.arange(len(order))
        return _Layout(head, shares[order], place[faces])

    def spread(self, values: NDArray) -> NDArray[np.float64]:
        """Values (V_anny, …) of anny's vertices at ours (V, …)."""
        return (self.shares @ values.reshape(len(values), -1)).reshape(-1, *values.shape[1:])

    @property
    def template(self) -> NDArray[np.float64]:
        return self.spread(self.head.mean)

    @property
    def region(self) -> NDArray[np.uint8]:
        """(V,) the region of the nearest of anny's vertices."""
        return self.head.region[np.asarray(self.shares.argmax(1)).ravel()]

    def model(self) -> dict[str, Any]:
        basis = np.zeros((FLAME_VERTICES, 3, _N_BASIS), np.float32)
        identity = self.head.identity_basis
        basis[..., : len(identity)] = self.spread(identity.transpose(1, 2, 0))
        # The jaw joint opens the mouth.
        actions = self.head.action_basis.copy()
        actions[self.head.action_names.index("jawOpen")] = 0
        expressions = slice(_N_IDENTITY, _N_IDENTITY + len(actions))
        basis[..., expressions] = self.spread(actions.transpose(1, 2, 0))
        parents = np.array([[2**32 - 1, 0, 1, 1, 1], [0, 1, 2, 3, 4]], np.int64)
        return {
            "v_template": self.template,
            "f": self.faces.astype(np.uint32),
            "shapedirs": basis,
            "posedirs": np.zeros((FLAME_VERTICES, 3, 36), np.float32),
            "J_regressor": scipy.sparse.csc_matrix(self._joint_regressor()),
            "weights": self._skinning(),
            "kintree_table": parents,
            "bs_style": "lbs",
            "bs_type": "lrotmin",
        }

    def _joint_regressor(self) -> NDArray[np.float64]:
        """(5, V), rows that sum to one: the flattest combination that gives each joint."""
        eye = self.head.region == Region.EYE
        left, right = (
            self.head.mean[eye & (sign * self.head.mean[:, 0] > 0)].mean(0) for sign in (1, -1)
        )
        pivot = self.head.neck_pivot
        joints = np.stack([pivot - [0, 0.05, 0], pivot, _JAW_JOINT_M, left, right])
        constraints = np.vstack([np.ones(FLAME_VERTICES), self.template.T])
        wanted = np.column_stack([np.ones(5), joints])
        return (constraints.T @ np.linalg.solve(constraints @ constraints.T, wanted.T)).T

    def _skinning(self) -> NDArray[np.float64]:
        opening = self.head.action_basis[self.head.action_names.index("jawOpen")]
        motion = np.linalg.norm(self.spread(opening), axis=1)
        jaw = np.clip(motion / (0.7 * motion.max()), 0, 1)
        follows = np.clip(self.spread(self.head.neck_weight), 0, 1)
        weights = np.column_stack(
            [1 - follows, follows * (1 - jaw), follows * jaw, *np.zeros((2, FLAME_VERTICES))]
        )
        for joint, ids in ((3, self._eyeball(1)), (4, self._eyeball(-1))):
            weights[ids] = np.eye(5)[joint]
        return weights / weights.sum(1, keepdims=True)

    def _eyeball(self, side: int) -> NDArray[np.intp]:
        return np.flatnonzero((self.region == Region.EYE) & (side * self.template[:, 0] > 0))

    def masks(self) -> dict[str, NDArray[np.int64]]:
        """Vertex ids of the publishers' region names; finer ones are boxes around landmarks."""
        region, points = self.region, self.template
        marks = self.landmarks()
        x, y = points[:, 0], points[:, 1]
        is_face = region == Region.FACE
        ears = region == Region.EAR
        eyes = {side: marks[part].mean(0) for side, part in _EYE_MARKS.items()}

        def around(centre: NDArray, width: float, height: float) -> NDArray[np.bool_]:
            inside = (np.abs(x - centre[0]) < width) & (np.abs(y - centre[1]) < height)
            return is_face & inside

        left, right = (around(eyes[side], 0.025, 0.02) for side in ("left", "right"))
        chosen = {name: region == label for name, label in _MASK_REGIONS.items()} | {
            "left_ear": ears & (x > 0), "right_ear": ears & (x < 0),
            "boundary": y < y.min() + _BOUNDARY_M,
            "forehead": is_face & (y > marks[17:27, 1].max()),
            "left_eye_region": left, "right_eye_region": right, "eye_region": left | right,
            "nose": around(marks[27:36].mean(0), 0.018, 0.025),
            "lips": around(marks[48:68].mean(0), 0.026, 0.012),
        }  # fmt: skip
        ids = {name: np.flatnonzero(mask).astype(np.int64) for name, mask in chosen.items()}
        ids |= {"left_eyeball": self._eyeball(1), "right_eyeball": self._eyeball(-1)}
        return {name: ids[name] for name in MASK_NAMES}

    def landmarks(self) -> NDArray[np.float64]:
        """(68, 3) anny's landmarks at rest."""
        corners = self.head.mean[self.head.faces[self.head.landmark_faces]].astype(np.float64)
        return (corners * self.head.landmark_barycentric[..., None]).sum(1)

    def embedding(self) -> dict[str, NDArray]:
        marks = self.landmarks()
        pupils = [marks[_EYE_MARKS[side]].mean(0) for side in ("right", "left")]
        faces, weights = _nearest_on_mesh(self.template, self.faces, np.vstack([marks, pupils]))
        return {
            "full_lmk_faces_idx": faces[None],
            "full_lmk_bary_coords": weights[None],
            "dynamic_lmk_faces_idx": np.repeat(faces[None, JAW_POINTS], N_TURNS, 0),
            "dynamic_lmk_bary_coords": np.repeat(weights[None, JAW_POINTS], N_TURNS, 0),
        }


_EYE_MARKS = {"right": slice(36, 42), "left": slice(42, 48)}


def _directions() -> NDArray[np.float64]:
    """(5023, 3) unit vectors: the pole, then rings from the crown down."""
    turn = 2 * np.pi * np.arange(_COLUMNS) / _COLUMNS
    azimuth = turn - _FRONT_DENSITY * np.sin(turn)
    polar = np.deg2rad(_LOWEST_POLAR_DEG) * np.arange(1, _RINGS + 1) / _RINGS
    polar, azimuth = np.meshgrid(polar, azimuth, indexing="ij")
    across = np.sin(polar)
    rings = np.stack(
        [across * np.sin(azimuth), np.cos(polar), across * np.cos(azimuth)], -1
    ).reshape(-1, 3)
    return np.vstack([[0.0, 1.0, 0.0], rings])


def _grid_faces() -> NDArray[np.int64]:
    """(9976, 3) counter-clockwise from outside; some behind the lowest ring are left out."""
    column = np.arange(_COLUMNS)
    following = (column + 1) % _COLUMNS
    faces = [np.column_stack([np.zeros_like(column), column + 1, following + 1])]
    for ring in range(_RINGS - 1):
        above, below = 1 + ring * _COLUMNS, 1 + (ring + 1) * _COLUMNS
        faces.append(np.column_stack([above + column, below + column, below + following]))
        faces.append(np.column_stack([above + column, below + following, above + following]))
    # The columns in the middle of a ring are behind the head.
    complete = np.concatenate(faces)
    surplus = len(complete) - FLAME_FACES
    last = len(complete) - _COLUMNS + _COLUMNS // 2
    return np.delete(complete, np.arange(last, last + surplus), 0)


def _lips_first(head: AnnyHead, template: NDArray[np.float64]) -> NDArray[np.intp]:
    """Order of the vertices in which FLAME's numbers of both lips fall on the lips."""
    corners = head.mean[head.faces[head.landmark_faces]].astype(np.float64)
    marks = (corners * head.landmark_barycentric[..., None]).sum(1)
    order = np.arange(FLAME_VERTICES)
    taken: set[int] = set()
    wanted = []
    for ring, curve in (
        (UPPER_LIP_RING, [48, 49, 50, 51, 52, 53, 54]),
        (LOWER_LIP_RING, [48, 59, 58, 57, 56, 55, 54]),
    ):
        along = np.linspace(0, len(curve) - 1, len(ring))
        at = np.stack([np.interp(along, range(len(curve)), axis) for axis in marks[curve].T], 1)
        for number, point in zip(ring, at, strict=True):
            nearest = np.argsort(np.linalg.norm(template - point, axis=1))[: len(taken) + 1]
            vertex = next(int(v) for v in nearest if int(v) not in taken)
            taken.add(vertex)
            wanted.append((number, vertex))
    position = {int(v): i for i, v in enumerate(order)}
    for number, vertex in wanted:
        other = int(order[number])
        where = position[vertex]
        order[number], order[where] = vertex, other
        position[vertex], position[other] = number, where
    return order


def _nearest_on_mesh(
    vertices: NDArray[np.float64], faces: NDArray[np.int64], points: NDArray[np.float64]
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Face and barycentric weights near each point, weights clamped into the face."""
    index = np.zeros(len(points), np.int64)
    weights = np.zeros((len(points), 3))
    for i, point in enumerate(points):
        close = np.argsort(np.linalg.norm(vertices[faces].mean(1) - point, axis=1))[:24]
        a, b, c = vertices[faces[close]].transpose(1, 0, 2)
        sides = np.stack([b - a, c - a], -1)
        solved = np.einsum("nij,nj->ni", np.linalg.pinv(sides), point - a)
        candidate = np.clip(np.column_stack([1 - solved.sum(1), solved]), 0, None)
        candidate /= candidate.sum(1, keepdims=True)
        hit = np.einsum("nk,nki->ni", candidate, vertices[faces[close]])
        best = int(np.argmin(np.linalg.norm(hit - point, axis=1)))
        index[i], weights[i] = close[best], candidate[best]
    return index, weights


def _smoothing(faces: NDArray[np.int64]) -> scipy.sparse.csr_matrix:
    """(V, V) that takes folds out of eyelids: vertices move half way to their neighbours' mean."""
    edges = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])
    edges = np.unique(np.concatenate([edges, edges[:, ::-1]]), axis=0)
    count = np.bincount(edges[:, 0], minlength=FLAME_VERTICES)
    means = scipy.sparse.csr_matrix(
        (1 / count[edges[:, 0]], edges.T), shape=(FLAME_VERTICES, FLAME_VERTICES)
    )
    step = 0.5 * (scipy.sparse.identity(FLAME_VERTICES, format="csr") + means)
    return scipy.sparse.csr_matrix(step**_SMOOTHING_STEPS)


def _dump(path: Path, value: dict[str, Any]) -> None:
    path.write_bytes(pickle.dumps(value, protocol=2))
