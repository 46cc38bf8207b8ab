"""FLAME's landmarks: a face and three barycentric weights each, fixed or by head turn.

The full set of 70 holds 17 points of a fixed jaw contour, the 51 inner points of iBUG's 68, and
two pupils. The dynamic table holds 79 jaw contours, one per degree of head turn: what the camera
sees as the outline slides over the cheek.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fc4d_ray.errors import ModelFileError
from fc4d_ray.heads.flame import axis_angle_to_matrix

JAW_POINTS = slice(0, 17)
IBUG_POINTS = slice(0, 68)
N_LANDMARKS, N_JAW, N_TURNS = 70, 17, 79
_LARGEST_TURN = 39


@dataclass(frozen=True)
class LandmarkEmbedding:
    """Where landmarks lie on the mesh."""

    faces: NDArray[np.int64]  # [70]
    barycentric: NDArray[np.float64]  # [70, 3]
    dynamic_faces: NDArray[np.int64] | None = None  # [79, 17]
    dynamic_barycentric: NDArray[np.float64] | None = None  # [79, 17, 3]

    @staticmethod
    def from_file_arrays(arrays: Mapping[str, object], n_faces: int) -> LandmarkEmbedding:
        """From the members of the publishers' embedding file.

        Raises ``ModelFileError`` where a member is missing, misshapen or names no face.
        """
        full = _member(arrays, "full_lmk_faces_idx", (N_LANDMARKS,))
        weights = _member(arrays, "full_lmk_bary_coords", (N_LANDMARKS, 3))
        dynamic = dynamic_weights = None
        if "dynamic_lmk_faces_idx" in arrays:
            dynamic = _member(arrays, "dynamic_lmk_faces_idx", (N_TURNS, N_JAW)).astype(np.int64)
            dynamic_weights = _member(arrays, "dynamic_lmk_bary_coords", (N_TURNS, N_JAW, 3))
        embedding = LandmarkEmbedding(
            full.astype(np.int64), weights.astype(np.float64), dynamic,
            None if dynamic_weights is None else dynamic_weights.astype(np.float64),
        )  # fmt: skip
        for name, index in (("full", embedding.faces), ("dynamic", embedding.dynamic_faces)):
            if index is not None and not (index.min() >= 0 and index.max() < n_faces):
                raise ModelFileError(
                    f"{name}_lmk_faces_idx: faces must lie in 0..{n_faces - 1}, "
                    f"found {index.min()}..{index.max()}"
                )
        return embedding

    def points(self, vertices: Tensor, faces: Tensor) -> Tensor:
        """The 70 landmarks (..., 70, 3) on vertices (..., V, 3)."""
        return barycentric_points(vertices, faces, self.faces, self.barycentric)

    def contour(self, vertices: Tensor, faces: Tensor, row: Tensor) -> Tensor:
        """Jaw contour (T, 17, 3) on vertices (T, V, 3) for rows (T,) of the dynamic table.

        Raises ``ModelFileError`` where the file had no such table.
        """
        if self.dynamic_faces is None or self.dynamic_barycentric is None:
            raise ModelFileError("the landmark file has no dynamic contour (dynamic_lmk_*)")
        rows = row.cpu().numpy()
        contours = [
            barycentric_points(v, faces, self.dynamic_faces[r], self.dynamic_barycentric[r])
            for v, r in zip(vertices, rows, strict=True)
        ]
        return torch.stack(contours)


def barycentric_points(
    vertices: Tensor, faces: Tensor, index: NDArray[np.integer], weights: NDArray[np.floating]
) -> Tensor:
    """Points (..., L, 3) on faces ``index`` (L,) with barycentric ``weights`` (L, 3)."""
    corners = faces.to(vertices.device)[torch.as_tensor(index, device=vertices.device)].long()
    shares = torch.as_tensor(np.asarray(weights)).to(vertices)
    return (vertices[..., corners, :] * shares[..., None]).sum(-2)


def head_turn_deg(rotation: Tensor, neck: Tensor) -> Tensor:
    """Turn (T,) about the vertical in degrees, of root and neck axis-angles (T, 3)."""
    matrix = axis_angle_to_matrix(rotation) @ axis_angle_to_matrix(neck)
    across = (matrix[:, 0, 0].square() + matrix[:, 1, 0].square()).sqrt()
    return torch.rad2deg(-torch.atan2(-matrix[:, 2, 0], across))


def contour_row(turn_deg: Tensor) -> Tensor:
    """Row (T,) of the dynamic table: 0..39 for turns from 0 up, 40..78 for those below 0."""
    positive = turn_deg.clamp(max=_LARGEST_TURN).round()
    negative = _LARGEST_TURN - turn_deg.clamp(min=-_LARGEST_TURN).round()
    return torch.where(turn_deg < 0, negative, positive).long()


def _member(arrays: Mapping[str, object], name: str, shape: tuple[int, ...]) -> NDArray:
    if name not in arrays:
        raise ModelFileError(f"the landmark file has no {name}")
    value = arrays[name]
    array = value.numpy() if isinstance(value, Tensor) else np.asarray(value)
    if array.size == int(np.prod(shape)) and array.shape != shape:
        array = array.reshape(shape)
    if array.shape != shape:
        raise ModelFileError(f"{name}: expected shape {shape}, found {array.shape}")
    if not np.isfinite(array.astype(np.float64)).all():
        raise ModelFileError(f"{name} holds values that are not finite")
    return array
