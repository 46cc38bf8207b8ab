"""Head models as the tracker sees them: shared identity, frame parameters, landmarks, priors."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fc4d_ray.errors import ModelFileError
from fc4d_ray.heads.anny import AnnyHead
from fc4d_ray.heads.flame import N_IDENTITY, FlameModel
from fc4d_ray.heads.flame_files import FlameFiles
from fc4d_ray.heads.flame_landmarks import IBUG_POINTS
from fc4d_ray.heads.flame_regions import vertex_regions
from fc4d_ray.heads.point_models import FlamePoints, PointModel, RigPoints

SIZE_STEP = 0.05
"""Change of a head's size per unit of the ``anny`` head's last tracked identity coefficient."""


@dataclass(frozen=True)
class ParameterPrior:
    """What is known of one kind of parameter before looking."""

    deviation: float = np.inf
    """Standard deviation of a Gaussian around zero."""
    slope: float = 0.0
    """Weight of the value itself, for parameters that are never negative: a sparse prior."""
    smooth_deviation: float = np.inf
    """Standard deviation of the change from one frame to the next."""
    limits: tuple[float, float] | None = None


@dataclass(frozen=True)
class TrackableHead:
    """A head whose identity is shared by all frames."""

    kind: str
    faces: NDArray[np.int64]  # [F, 3]
    region: NDArray[np.uint8]  # [V] Region
    landmark_faces: NDArray[np.int64]  # [68]
    landmark_barycentric: NDArray[np.float64]  # [68, 3]
    points: Callable[[NDArray[np.integer]], PointModel]
    """The model at some vertices (N,)."""
    identity_prior: NDArray[np.float64]  # [K] standard deviations
    priors: Mapping[str, ParameterPrior]

    @property
    def n_vertices(self) -> int:
        return len(self.region)

    @property
    def identity_size(self) -> int:
        return len(self.identity_prior)

    @property
    def parameter_sizes(self) -> dict[str, int]:
        """Width of every per-frame parameter."""
        return self.points(np.zeros(1, np.int64)).parameter_sizes

    def vertices(self, identity: Tensor, parameters: Mapping[str, Tensor]) -> Tensor:
        """(T, V, 3) metres for identity (K,) and parameters (T, d)."""
        return self.points(np.arange(self.n_vertices)).positions(identity, parameters)

    def landmark_corners(self) -> NDArray[np.int64]:
        """(68, 3) vertices whose barycentric means the landmarks are."""
        return self.faces[self.landmark_faces]


ANNY_PRIORS: Mapping[str, ParameterPrior] = MappingProxyType(
    {
        "actions": ParameterPrior(
            deviation=0.7, slope=0.4, smooth_deviation=0.25, limits=(0.0, 1.0)
        ),
        "neck": ParameterPrior(deviation=0.1, smooth_deviation=0.05),
        "rotation": ParameterPrior(smooth_deviation=0.1),
        "translation": ParameterPrior(smooth_deviation=0.02),
    }
)

FLAME_PRIORS: Mapping[str, ParameterPrior] = MappingProxyType(
    {
        "expr": ParameterPrior(deviation=1.0, smooth_deviation=0.5),
        "rotation": ParameterPrior(smooth_deviation=0.1),
        "neck": ParameterPrior(deviation=0.2, smooth_deviation=0.05),
        "jaw": ParameterPrior(deviation=0.2, smooth_deviation=0.1),
        "eyes": ParameterPrior(deviation=0.2, smooth_deviation=0.2),
        "translation": ParameterPrior(smooth_deviation=0.02),
    }
)


def trackable_anny(
    head: AnnyHead, n_identity: int | None = None, device: torch.device | str = "cpu"
) -> TrackableHead:
    """The embedded head; one more identity coefficient behind the model's own is its size."""
    own = head.identity_basis[:n_identity]
    basis = np.concatenate([own, SIZE_STEP * head.mean[None]])

    def points(indices: NDArray[np.integer]) -> RigPoints:
        def chosen(array: NDArray) -> Tensor:
            return torch.from_numpy(np.ascontiguousarray(array, np.float32)).to(device)

        return RigPoints(
            chosen(head.mean[indices]), chosen(basis[:, indices]),
            chosen(head.action_basis[:, indices]), chosen(head.neck_pivot),
            chosen(head.neck_weight[indices]),
        )  # fmt: skip

    return TrackableHead(
        "anny", head.faces.astype(np.int64), head.region, head.landmark_faces.astype(np.int64),
        head.landmark_barycentric.astype(np.float64), points, np.ones(len(basis)), ANNY_PRIORS,
    )  # fmt: skip


def trackable_flame(
    files: FlameFiles,
    n_identity: int = N_IDENTITY,
    n_expression: int = 100,
    device: torch.device | str = "cpu",
) -> TrackableHead:
    """FLAME with its first coefficients.

    Raises ``ModelFileError`` where it was imported without its landmark embedding.
    """
    if files.landmarks is None:
        raise ModelFileError("FLAME was imported without its landmark embedding; import it again")
    model = FlameModel.from_arrays(files.arrays, n_identity, n_expression).to(device)

    def points(indices: NDArray[np.integer]) -> FlamePoints:
        return FlamePoints.of(model, torch.as_tensor(indices, device=device))

    return TrackableHead(
        "flame", files.arrays.faces.astype(np.int64),
        vertex_regions(files.masks, len(files.arrays.template)),
        files.landmarks.faces[IBUG_POINTS], files.landmarks.barycentric[IBUG_POINTS],
        points, np.ones(n_identity), FLAME_PRIORS,
    )  # fmt: skip
