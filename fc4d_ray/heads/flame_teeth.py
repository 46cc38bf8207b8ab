"""Teeth for FLAME, whose mesh ends at the lips: 120 vertices and 168 faces behind them.

The layout is GaussianAvatars', to the face: ``binding`` in saved avatars counts these faces after
FLAME's own. Two plates of two rows each follow the lips' template shape: the upper one hangs on
the neck joint (the skull), the lower one on the jaw.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

FLAME_VERTICES, FLAME_FACES, FLAME_JOINTS = 5023, 9976, 5
TEETH_VERTICES, TEETH_FACES = 120, 168
_NECK_JOINT, _JAW_JOINT = 1, 2
_COLUMNS = 15

UPPER_LIP_RING = (
    1713, 1715, 1716, 1735, 1696, 1694, 1657, 3543, 2774, 2811, 2813, 2850, 2833, 2832, 2830,
)  # fmt: skip
LOWER_LIP_RING = (
    1576, 1577, 1773, 1774, 1795, 1802, 1865, 3503, 2948, 2905, 2898, 2881, 2880, 2713, 2712,
)  # fmt: skip
"""Vertices of the two lips, one corner of the mouth to the other, in pairs."""

# Order of the eight rows of vertices; each has one vertex per pair of the rings.
_UPPER_ROOT, _LOWER_ROOT, _UPPER_EDGE, _LOWER_EDGE = 0, 1, 2, 3
_UPPER_ROOT_BACK, _UPPER_EDGE_BACK, _LOWER_ROOT_BACK, _LOWER_EDGE_BACK = 4, 5, 6, 7
_LOWER_ROWS = (_LOWER_ROOT, _LOWER_EDGE, _LOWER_ROOT_BACK, _LOWER_EDGE_BACK)
_V_OF_ROW = (0.9746, 0.9803, 0.9917, 0.9860, 0.9746, 0.9689, 0.9575, 0.9632)
_U_ENDS = (0.62, 0.38)

# A strip joins two rows by quads p q (first row) over r s (second row), each cut in two
# triangles; the cut flips at the mid-line, so that left and right mirror one another.
_STRIPS = (
    (_UPPER_ROOT, _UPPER_EDGE, "psr pqs", "pqr qsr"),
    (_UPPER_ROOT_BACK, _UPPER_EDGE_BACK, "prs psq", "prq qrs"),
    (_UPPER_EDGE_BACK, _UPPER_EDGE, "prq qrs", "prs psq"),
    (_LOWER_EDGE, _LOWER_ROOT, "pqr qsr", "psr pqs"),
    (_LOWER_ROOT_BACK, _LOWER_EDGE_BACK, "psr pqs", "pqr qsr"),
    (_LOWER_EDGE_BACK, _LOWER_EDGE, "pqr qsr", "psr pqs"),
)


@dataclass(frozen=True)
class FlameArrays:
    """What a FLAME file holds of its geometry, in the file's own layout."""

    template: NDArray[np.floating]
    """(V, 3) metres"""
    faces: NDArray[np.integer]
    """(F, 3)"""
    shape_basis: NDArray[np.floating]
    """(V, 3, S): identity columns, then expression columns"""
    pose_basis: NDArray[np.floating]
    """(V, 3, 36)"""
    joint_regressor: NDArray[np.floating]
    """(5, V)"""
    skinning_weights: NDArray[np.floating]
    """(V, 5): root, neck, jaw, left eye, right eye"""

    def __post_init__(self) -> None:
        count = len(self.template)
        expected = {
            "template": (count, 3),
            "faces": (len(self.faces), 3),
            "shape_basis": (count, 3, self.shape_basis.shape[-1]),
            "pose_basis": (count, 3, 9 * (FLAME_JOINTS - 1)),
            "joint_regressor": (FLAME_JOINTS, count),
            "skinning_weights": (count, FLAME_JOINTS),
        }
        for name, shape in expected.items():
            found = getattr(self, name).shape
            if found != shape:
                raise ValueError(f"{name}: expected shape {shape}, found {found}")

    @property
    def has_teeth(self) -> bool:
        """Whether ``add_teeth`` was applied already."""
        return len(self.template) == FLAME_VERTICES + TEETH_VERTICES


def add_teeth(flame: FlameArrays, n_identity: int = 300) -> FlameArrays:
    """The model with teeth appended: 5143 vertices, 10,144 faces; dtypes stay.

    ``n_identity`` columns of ``shape_basis`` are identity: teeth widen and move with the lips of a
    person, each like the mean of its pair of lip vertices, but not with expressions, which move
    lips over teeth. They have no pose correctives and no say in where joints are.

    Raises ``ValueError`` where the model is not FLAME's 5023 vertices and 9976 faces.
    """
    if (len(flame.template), len(flame.faces)) != (FLAME_VERTICES, FLAME_FACES):
        raise ValueError(
            f"teeth are placed by vertex number: expected FLAME's {FLAME_VERTICES} vertices and "
            f"{FLAME_FACES} faces, found {len(flame.template)} and {len(flame.faces)}"
            + (" (teeth were added before)" if flame.has_teeth else "")
        )
    upper, lower = list(UPPER_LIP_RING), list(LOWER_LIP_RING)
    basis = np.zeros((TEETH_VERTICES, *flame.shape_basis.shape[1:]), flame.shape_basis.dtype)
    of_lips = 0.5 * (flame.shape_basis[upper] + flame.shape_basis[lower])[..., :n_identity]
    basis[..., :n_identity] = np.tile(of_lips, (len(_V_OF_ROW), 1, 1))
    return replace(
        flame,
        template=_appended(flame.template, _teeth_template(flame.template)),
        faces=_appended(flame.faces, teeth_faces() + FLAME_VERTICES),
        shape_basis=_appended(flame.shape_basis, basis),
        pose_basis=_appended(
            flame.pose_basis, np.zeros((TEETH_VERTICES, *flame.pose_basis.shape[1:]))
        ),
        joint_regressor=_appended(
            flame.joint_regressor, np.zeros((FLAME_JOINTS, TEETH_VERTICES)), axis=1
        ),
        skinning_weights=_appended(flame.skinning_weights, _teeth_skinning()),
    )


def teeth_faces() -> NDArray[np.int64]:
    """(168, 3) vertex numbers counted from the first of the teeth."""
    faces = []
    for first, second, before_middle, after_middle in _STRIPS:
        for column in range(_COLUMNS - 1):
            p, r = first * _COLUMNS + column, second * _COLUMNS + column
            corner = {"p": p, "q": p + 1, "r": r, "s": r + 1}
            cut = before_middle if column < _COLUMNS // 2 else after_middle
            faces += [[corner[name] for name in triangle] for triangle in cut.split()]
    return np.array(faces, np.int64)


def teeth_uv() -> NDArray[np.float32]:
    """(120, 2) texture coordinates, in a patch that FLAME's own map leaves free."""
    u = np.tile(np.linspace(*_U_ENDS, _COLUMNS), len(_V_OF_ROW))
    return np.stack([u, np.repeat(_V_OF_ROW, _COLUMNS)], 1).astype(np.float32)


def _teeth_template(template: NDArray[np.floating]) -> NDArray[np.floating]:
    """(120, 3) metres, sized by the mean distance of the lips' paired vertices."""
    upper, lower = template[list(UPPER_LIP_RING)], template[list(LOWER_LIP_RING)]
    unit = np.linalg.norm(upper - lower, axis=1).mean()
    middle = 0.5 * (upper + lower)
    middle[:, 1] = middle[:, 1].mean()
    middle[:, 2] -= 1.5 * unit

    def moved(row: NDArray, y: float, z: float) -> NDArray:
        return row + unit * np.array([0.0, y, z])

    upper_edge, lower_edge = moved(middle, 0.1, 0), moved(middle, -0.1, -0.4)
    upper_root, lower_root = moved(upper_edge, 2, 0), moved(lower_edge, -2, 0)
    front = (upper_root, lower_root, upper_edge, lower_edge)
    back = (moved(row, 0, -1) for row in (upper_root, upper_edge, lower_root, lower_edge))
    return np.concatenate([*front, *back])


def _teeth_skinning() -> NDArray[np.float64]:
    """(120, 5): each row hangs on one joint."""
    weights = np.zeros((len(_V_OF_ROW), _COLUMNS, FLAME_JOINTS))
    weights[..., _NECK_JOINT] = 1
    weights[list(_LOWER_ROWS)] = np.eye(FLAME_JOINTS)[_JAW_JOINT]
    return weights.reshape(TEETH_VERTICES, FLAME_JOINTS)


def _appended(array: NDArray, more: NDArray, axis: int = 0) -> NDArray:
    return np.concatenate([array, more.astype(array.dtype)], axis)
