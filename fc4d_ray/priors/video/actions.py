"""Video prior ``actions``: the fitted head's own ARKit actions move every view's pixels.

Each view's completed picture is textured onto the head where that view shows it at rest, the head
is posed by the driving signal and rendered from the same camera. All views are driven by one
signal (paper section 3.3: identical driving, source pose kept), so expressions are in sync. What
the picture never showed (eyelids, teeth, the mouth) comes from the surface's completed colour.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from fc4d_ray.cameras import Camera
from fc4d_ray.errors import ConfigError
from fc4d_ray.heads.rig import HeadRig
from fc4d_ray.images import smoothstep
from fc4d_ray.priors.shape.bust import presence
from fc4d_ray.priors.shape.lid_colour import lid_vertices
from fc4d_ray.priors.video.motion import MotionClip, shipped_clip_names
from fc4d_ray.rendering.mesh import face_areas, interpolate, rasterize_mesh, vertex_normals


@dataclass(frozen=True)
class ActionsVideoConfig:
    """Video stage of the embedded profile."""

    __pydantic_config__: ClassVar = {"extra": "forbid"}

    clips: tuple[str, ...] = (
        "speech", "smile", "surprise", "blink", "brow", "mixed", "frown", "neutral",
    )  # fmt: skip
    """Driving clips: names of shipped ones or paths of Live Link Face CSV files."""
    frames_per_clip: int = 6
    """Frames taken from each clip, spread over its motion."""
    max_azimuth_deg: float = 75.0
    """Orbit views up to this azimuth are animated; the reference always is."""
    frame_size: int = 512
    """Side of a frame in pixels."""

    def __post_init__(self) -> None:
        if not self.clips:
            raise ConfigError("video.clips must name at least one clip")
        for clip in self.clips:
            if not clip.endswith(".csv") and clip not in shipped_clip_names():
                raise ConfigError(
                    f"video.clips: {clip!r} is neither shipped "
                    f"({', '.join(shipped_clip_names())}) nor a .csv file"
                )
        if self.frames_per_clip < 1:
            raise ConfigError(
                f"video.frames_per_clip must be at least 1, got {self.frames_per_clip}"
            )
        if not 32 <= self.frame_size <= 2048:
            raise ConfigError(f"video.frame_size must lie in 32…2048, got {self.frame_size}")


def telling_frames(clip: MotionClip, count: int) -> NDArray[np.intp]:
    """Up to ``count`` frame indices, rising, far apart in expression (farthest-point order)."""
    count = min(count, clip.n_frames)
    chosen = [int(np.argmax(np.abs(clip.actions).sum(1)))]
    distance = np.linalg.norm(clip.actions - clip.actions[chosen[0]], axis=1)
    while len(chosen) < count:
        candidate = int(np.argmax(distance))
        if candidate in chosen:
            unused = np.setdiff1d(np.arange(clip.n_frames), chosen)
            candidate = int(unused[len(unused) // 2])
        chosen.append(candidate)
        step = np.linalg.norm(clip.actions - clip.actions[candidate], axis=1)
        distance = np.minimum(distance, step)
    return np.sort(np.array(chosen))


class ViewAnimator:
    """One view of one person, ready to be driven.

    Only the window that any action can reach is rendered; the rest of the picture stands still.
    """

    def __init__(
        self,
        rig: HeadRig,
        colour: NDArray[np.floating],  # [V, 3] completed surface colour, 0…1
        material: NDArray[np.uint8],  # [V]
        camera: Camera,
        picture: NDArray[np.uint8],  # [H, W, 4] the completed view
        frame_size: int,
    ) -> None:
        self.rig = rig
        self.picture_camera = camera
        self.picture = picture.astype(np.float32) / 255
        side = (frame_size, frame_size)
        self.rest_frame = cv2.resize(picture, side, interpolation=cv2.INTER_AREA)
        camera = camera.resized(*side)
        self.window = _reach(rig, camera)
        self.camera = camera.cropped(*self.window)
        self.faces = _faces_within(rig, self.camera)
        self._shown = _shown_at_rest(rig, material, self.picture_camera)
        self._lids = lid_vertices(rig)
        self._rest_areas = face_areas(rig.neutral, self.faces)
        attributes = np.concatenate([rig.neutral, colour, presence(rig.neutral)[:, None]], 1)
        self.attributes = torch.from_numpy(attributes.astype(np.float32))
        self._rest_cover = rasterize_mesh(rig.neutral, self.faces, self.camera).face >= 0

    def frames(self, actions: NDArray[np.float32]) -> Iterator[NDArray[np.uint8]]:
        """(H, W, 4) RGBA per row of ``actions`` (T, 52); the neck stays as photographed."""
        for row in actions:
            parameters = self.rig.neutral_parameters()
            parameters["actions"] = torch.from_numpy(row)[None]
            yield self.render(self.rig.pose(parameters)[0].numpy())

    def render(self, vertices: NDArray[np.float32]) -> NDArray[np.uint8]:
        """The view with the surface at ``vertices`` (V, 3)."""
        fragments = rasterize_mesh(vertices, self.faces, self.camera)
        trust = torch.from_numpy(self._shown * self._unstretched(vertices))[:, None]
        values = interpolate(
            torch.cat([self.attributes, trust], 1), torch.from_numpy(self.faces).long(), fragments
        ).numpy()
        covered = fragments.face >= 0
        source, _ = self.picture_camera.project(values[..., :3].astype(np.float64))
        source = np.where(covered[..., None], source, 0).astype(np.float32) - 0.5
        taken = cv2.remap(
            self.picture, source[..., 0], source[..., 1], cv2.INTER_CUBIC,
            borderMode=cv2.BORDER_REPLICATE,
        )  # fmt: skip
        # At the outline the picture's colour is half background.
        weight = values[..., 7:8] * smoothstep(taken[..., 3:], 0.7, 0.98)
        colour = taken[..., :3] * weight + values[..., 3:6] * (1 - weight)
        left, top, width, height = self.window
        frame = self.rest_frame.copy()
        inside = frame[top : top + height, left : left + width]
        matte = self._alpha(covered, values[..., 6], inside[..., 3])
        inside[..., :3] = np.where(
            (covered & (matte > 0))[..., None], _to_bytes(colour), inside[..., :3]
        )
        inside[..., 3] = matte
        return frame

    def _unstretched(self, vertices: NDArray[np.float32]) -> NDArray[np.float32]:
        """1 where the surface keeps its size, 0 where it unfolds (a closing lid, an inner lip)."""
        ratio = face_areas(vertices, self.faces) / self._rest_areas
        per_vertex = np.zeros(len(vertices), np.float32)
        for corner in range(3):
            np.maximum.at(per_vertex, self.faces[:, corner], ratio)
        # An open eye's lid is lashes and fold: stretched over the eye it shows neither.
        lid = 1 - smoothstep(per_vertex, 1.15, 1.8)
        return np.where(self._lids, lid, 1 - smoothstep(per_vertex, 2.0, 3.5)).astype(np.float32)

    def _alpha(
        self, covered: NDArray[np.bool_], fade: NDArray, rest_matte: NDArray[np.uint8]
    ) -> NDArray[np.uint8]:
        """The picture's own matte where the outline has not moved, the surface's elsewhere."""
        surface = _to_bytes(np.where(covered, fade, 0))
        moved = cv2.dilate((covered != self._rest_cover).astype(np.uint8), np.ones((3, 3)))
        alpha = np.where(moved > 0, surface, rest_matte)
        # Where the surface drew back, the matte's soft rim goes with it.
        side = 2 * max(2, rest_matte.shape[0] // 60) + 1
        left = cv2.dilate((self._rest_cover & ~covered).astype(np.uint8), np.ones((side, side)))
        return np.where((left > 0) & ~covered, 0, alpha).astype(np.uint8)


def _reach(rig: HeadRig, camera: Camera) -> tuple[int, int, int, int]:
    """Window (left, top, width, height), px, of everything the actions can move."""
    reach = np.abs(rig.action_basis).max(0)
    moving = reach.max(1) > 5e-4
    corners = np.concatenate([(rig.neutral + s * reach)[moving] for s in (-1, 1)])
    pixels, _ = camera.project(corners.astype(np.float64))
    low = np.clip(np.floor(pixels.min(0)).astype(int) - 4, 0, [camera.width, camera.height])
    high = np.clip(np.ceil(pixels.max(0)).astype(int) + 4, 0, [camera.width, camera.height])
    return int(low[0]), int(low[1]), int(high[0] - low[0]), int(high[1] - low[1])


def _faces_within(rig: HeadRig, camera: Camera) -> NDArray[np.int32]:
    """Faces that touch the window at rest, or that some action moves."""
    pixels, _ = camera.project(rig.neutral.astype(np.float64))
    inside = ((pixels > -2) & (pixels < [camera.width + 2, camera.height + 2])).all(1)
    moving = np.abs(rig.action_basis).max(axis=(0, 2)) > 5e-4
    return rig.faces[(inside | moving)[rig.faces].any(1)]


def _shown_at_rest(
    rig: HeadRig, material: NDArray[np.uint8], camera: Camera
) -> NDArray[np.float32]:
    """How far the view's picture shows each vertex at rest, (V,) in 0…1.

    A folded eyelid lies a millimetre behind the eye's outline: a vertex only counts where the
    pixel's own surface has the vertex's material and turns the same way.
    """
    fragments = rasterize_mesh(rig.neutral, rig.faces, camera)
    pixels, depth = camera.project(rig.neutral.astype(np.float64))
    columns = np.clip(pixels[:, 0].astype(int), 0, camera.width - 1)
    rows = np.clip(pixels[:, 1].astype(int), 0, camera.height - 1)
    face = fragments.face[rows, columns]
    at_pixel = fragments.z_depth[rows, columns]
    corner = rig.faces[np.maximum(face, 0), fragments.barycentric[rows, columns].argmax(-1)]
    same = (face >= 0) & (material[corner] == material)
    normals = vertex_normals(
        torch.as_tensor(rig.neutral).double(), torch.as_tensor(rig.faces).long()
    ).numpy()
    ray = camera.position - rig.neutral
    cosine = (normals * ray).sum(1) / np.linalg.norm(ray, axis=1)
    same &= (normals[corner] * normals).sum(1) > 0.3
    close = np.abs(depth - at_pixel) < 0.003 + 0.004 * (1 - cosine.clip(0, 1))
    shown = same & close & (cosine > 0.05)
    return shown.astype(np.float32)


def _to_bytes(values: NDArray) -> NDArray[np.uint8]:
    return (values.clip(0, 1) * 255 + 0.5).astype(np.uint8)
