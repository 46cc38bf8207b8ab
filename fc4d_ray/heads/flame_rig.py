"""A person's FLAME head as a rig: identity is fixed, expression and pose move it.

The arrays are complete: an avatar with this rig plays without FLAME's file. They are derived from
it, so such an avatar falls under FLAME's licence (docs/licences.md).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fc4d_ray.errors import ModelFileError
from fc4d_ray.heads.expression_conversion import ExpressionConversion
from fc4d_ray.heads.flame import POSE_SIZES, FlameModel
from fc4d_ray.heads.flame_files import FlameFiles
from fc4d_ray.heads.flame_landmarks import IBUG_POINTS, barycentric_points
from fc4d_ray.heads.flame_regions import vertex_regions
from fc4d_ray.heads.flame_teeth import add_teeth

_HALF = ("expression_basis", "pose_basis")


@dataclass(frozen=True)
class FlameRig:
    """A ``PosableMesh`` with FLAME's parameters ``expr``, ``rotation``, ``neck``, ``jaw``,
    ``eyes`` (left, right) and ``translation``; angles are axis-angle vectors in radians."""

    template: NDArray[np.float32]  # [V, 3] metres, the person without expression, FLAME's frame
    faces: NDArray[np.int32]  # [F, 3]
    expression_basis: NDArray[np.float32]  # [E, V, 3]
    pose_basis: NDArray[np.float32]  # [36, V, 3]
    joint_regressor: NDArray[np.float32]  # [5, V]
    skinning_weights: NDArray[np.float32]  # [V, 5]
    region: NDArray[np.uint8]  # [V] Region
    landmark_faces: NDArray[np.int32]  # [68]
    landmark_barycentric: NDArray[np.float32]  # [68, 3]
    placement: NDArray[np.float32] = field(default_factory=lambda: np.eye(4, dtype=np.float32))
    """(4, 4) rigid motion from FLAME's own frame to the world, applied last."""
    conversion: ExpressionConversion | None = None
    """From ARKit actions; None where none was fitted, and then no ARKit clip drives this rig."""
    edition: str = ""
    digest: str = ""
    """Digest of the FLAME release the parameters belong to."""

    kind = "flame"
    parameter_sizes: dict[str, int] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        sizes = {"expr": len(self.expression_basis)} | POSE_SIZES | {"translation": 3}
        object.__setattr__(self, "parameter_sizes", sizes)
        empty = np.zeros((0, *self.template.shape), np.float32)
        model = FlameModel(
            torch.from_numpy(self.template), torch.from_numpy(self.faces.astype(np.int64)),
            torch.from_numpy(empty), torch.from_numpy(self.expression_basis),
            torch.from_numpy(self.pose_basis), torch.from_numpy(self.joint_regressor),
            torch.from_numpy(self.skinning_weights),
        )  # fmt: skip
        object.__setattr__(self, "_model", model)

    @property
    def neutral(self) -> NDArray[np.float32]:
        """(V, 3) vertices in the world with all parameters zero."""
        return self.pose(self.neutral_parameters())[0].numpy()

    @property
    def action_names(self) -> tuple[str, ...]:
        """Names of the actions ``parameters_from_motion`` takes, () without a conversion."""
        return self.conversion.action_names if self.conversion else ()

    def pose(self, parameters: Mapping[str, Tensor]) -> Tensor:
        """Vertices (T, V, 3) in metres for parameters (T, d); a differentiable function."""
        shape = parameters["translation"].new_zeros(len(parameters["translation"]), 0)
        device = parameters["translation"].device
        own = self._model.to(device).pose({**parameters, "shape": shape}).vertices
        place = torch.from_numpy(self.placement).to(own)
        return own @ place[:3, :3].T + place[:3, 3]

    def neutral_parameters(self, n_frames: int = 1) -> dict[str, Tensor]:
        """Zero parameters: no expression, looking ahead."""
        return {name: torch.zeros(n_frames, d) for name, d in self.parameter_sizes.items()}

    def parameters_from_motion(self, actions: Tensor, neck: Tensor) -> dict[str, Tensor]:
        """FLAME parameters of ARKit actions (T, 52) and neck axis-angles (T, 3).

        Raises ``ValueError`` where the rig has no conversion.
        """
        if self.conversion is None:
            raise ValueError("this FLAME rig has no conversion from ARKit actions")
        parameters = self.neutral_parameters(len(actions))
        return parameters | self.conversion.to_flame(actions) | {"neck": neck.float()}

    def parameters_from_actions(self, actions: Mapping[str, float]) -> dict[str, Tensor]:
        """One frame of parameters from named actions; ``KeyError`` where one is unknown."""
        weights = torch.zeros(1, len(self.action_names))
        for name, value in actions.items():
            if name not in self.action_names:
                raise KeyError(f"unknown action {name!r}; known: {', '.join(self.action_names)}")
            weights[0, self.action_names.index(name)] = value
        if not self.action_names:
            return self.neutral_parameters()
        return self.parameters_from_motion(weights, torch.zeros(1, 3))

    def landmarks(self, vertices: Tensor) -> Tensor:
        """The 68 landmark points (..., 68, 3) on posed vertices (..., V, 3)."""
        faces = torch.from_numpy(self.faces.astype(np.int64))
        return barycentric_points(vertices, faces, self.landmark_faces, self.landmark_barycentric)

    def to_arrays(self) -> dict[str, NDArray]:
        """Plain arrays; bases as float16 (error below a hundredth of a millimetre)."""
        names = [n for n in self.__dataclass_fields__ if n not in ("conversion", "parameter_sizes")]
        arrays = {n: np.asarray(getattr(self, n)) for n in names}
        arrays |= {n: arrays[n].astype(np.float16) for n in _HALF}
        if self.conversion is not None:
            arrays |= {f"conversion.{n}": a for n, a in self.conversion.to_arrays().items()}
        return arrays

    @staticmethod
    def from_arrays(arrays: Mapping[str, NDArray]) -> FlameRig:
        prefix = "conversion."
        stored = {n.removeprefix(prefix): a for n, a in arrays.items() if n.startswith(prefix)}
        return FlameRig(
            template=np.asarray(arrays["template"], np.float32),
            faces=np.asarray(arrays["faces"], np.int32),
            expression_basis=np.asarray(arrays["expression_basis"], np.float32),
            pose_basis=np.asarray(arrays["pose_basis"], np.float32),
            joint_regressor=np.asarray(arrays["joint_regressor"], np.float32),
            skinning_weights=np.asarray(arrays["skinning_weights"], np.float32),
            region=np.asarray(arrays["region"], np.uint8),
            landmark_faces=np.asarray(arrays["landmark_faces"], np.int32),
            landmark_barycentric=np.asarray(arrays["landmark_barycentric"], np.float32),
            placement=np.asarray(arrays["placement"], np.float32),
            conversion=ExpressionConversion.from_arrays(stored) if stored else None,
            edition=str(arrays["edition"]),
            digest=str(arrays["digest"]),
        )


def flame_rig(
    files: FlameFiles,
    shape: NDArray[np.floating],  # [S] identity coefficients
    static_offset: NDArray[np.floating] | None = None,  # [V, 3] metres
    *,
    placement: NDArray[np.floating] | None = None,  # [4, 4]
    n_expression: int = 100,
    teeth: bool = True,
    conversion: ExpressionConversion | None = None,
) -> FlameRig:
    """The rig of a tracked person, with teeth unless told otherwise.

    ``static_offset`` covers FLAME's own vertices; teeth have none.
    Raises ``ModelFileError`` where the files came without a landmark embedding.
    """
    if files.landmarks is None:
        raise ModelFileError("FLAME was imported without its landmark embedding; import it again")
    arrays = add_teeth(files.arrays) if teeth else files.arrays
    model = FlameModel.from_arrays(
        arrays, len(shape), n_expression, identity_columns=300, dtype=torch.float64
    )
    coefficients = torch.from_numpy(np.asarray(shape, np.float64))
    template = (model.template + torch.tensordot(coefficients, model.identity_basis, 1)).numpy()
    if static_offset is not None:
        template[: len(static_offset)] += static_offset

    def single(tensor: Tensor) -> NDArray[np.float32]:
        return np.ascontiguousarray(tensor.numpy(), np.float32)

    return FlameRig(
        template=template.astype(np.float32),
        faces=arrays.faces.astype(np.int32),
        expression_basis=single(model.expression_basis),
        pose_basis=single(model.pose_basis),
        joint_regressor=single(model.joint_regressor),
        skinning_weights=single(model.skinning_weights),
        region=vertex_regions(files.masks, len(template)),
        landmark_faces=files.landmarks.faces[IBUG_POINTS].astype(np.int32),
        landmark_barycentric=files.landmarks.barycentric[IBUG_POINTS].astype(np.float32),
        placement=np.asarray(np.eye(4) if placement is None else placement, np.float32),
        conversion=conversion,
        edition=files.edition,
        digest=files.digest,
    )
