"""Triangle frames of the head at every time step, kept while the head is not being refined."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping

import torch
from torch import Tensor

from fc4d_ray.avatar.binding import Attachment, FaceFrames, face_frames
from fc4d_ray.avatar.stretch import triangle_shape
from fc4d_ray.heads.protocol import PosableMesh

_CACHE_BYTES = 128 << 20


class PoseCache:
    """``face_frames`` of the mesh by time index.

    Recomputed each time, with a graph, once any parameter requires gradients.
    """

    def __init__(
        self,
        mesh: PosableMesh,
        parameters: Mapping[str, Tensor],
        device: torch.device,
        attachment: Attachment = "similarity",
    ) -> None:
        self._mesh = mesh
        self._parameters = parameters
        self._device = device
        self._faces = torch.as_tensor(mesh.faces).long().to(device)
        self._is_fixed = not any(p.requires_grad for p in parameters.values())
        self._rest: Tensor | None = None
        if attachment == "affine":
            self._rest = triangle_shape(self.neutral_vertices(), self._faces)
        numbers_per_face = 17 if self._rest is None else 20
        bytes_per_pose = max(len(self._faces), 1) * numbers_per_face * 4
        self._capacity = max(1, _CACHE_BYTES // bytes_per_pose)
        self._frames: OrderedDict[int, FaceFrames] = OrderedDict()

    def frames(self, time: int) -> FaceFrames:
        """Frames (F) of all triangles at a row of the parameters."""
        if not self._is_fixed:
            return self._compute(time)
        if time not in self._frames:
            with torch.no_grad():
                self._frames[time] = self._compute(time)
            if len(self._frames) > self._capacity:
                self._frames.popitem(last=False)
        self._frames.move_to_end(time)
        return self._frames[time]

    def neutral_vertices(self) -> Tensor:
        """(V, 3) with all parameters zero."""
        with torch.no_grad():
            return self._pose({n: torch.zeros_like(p[:1]) for n, p in self._parameters.items()})

    def frames_of(self, vertices: Tensor) -> FaceFrames:
        """Frames (F) of the mesh with the given vertices (V, 3)."""
        return face_frames(vertices, self._faces, self._rest)

    def _compute(self, time: int) -> FaceFrames:
        return self.frames_of(
            self._pose({name: rows[time : time + 1] for name, rows in self._parameters.items()})
        )

    def _pose(self, rows: Mapping[str, Tensor]) -> Tensor:
        """Vertices (V, 3) on the training's device; rigs hold plain arrays and pose on CPU."""
        return self._mesh.pose({n: row.cpu() for n, row in rows.items()})[0].to(self._device)
