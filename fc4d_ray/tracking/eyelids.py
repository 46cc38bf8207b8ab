"""How far each eye is closed, by rendering the answer and comparing.

Detected eye landmarks hardly follow a closing lid, and the lid's skin is hidden at rest, so neither
term of the objective tells a blink's depth. Here the picture at rest is laid on the head, the head
is rendered with each eye at several closures, and the one that looks most like the frame wins. What
unfolds takes the completed colour. (Vertex colours alone know neither lashes nor a lid's fold: a
search with them found shut eyes half open.)
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from fc4d_ray.cameras import Camera
from fc4d_ray.heads.rig import HeadRig
from fc4d_ray.images import smoothstep
from fc4d_ray.rendering.mesh import face_areas, interpolate, rasterize_mesh

_LEVELS = np.linspace(0.0, 1.0, 7)
_EYES = (("eyeBlinkLeft", slice(42, 48)), ("eyeBlinkRight", slice(36, 42)))
_NEAR_M = 0.03
_SEEN_TOLERANCE_M = 0.0015
"""Skin this far behind what the picture at rest shows is hidden in it."""
_UNFOLDING = (1.2, 2.0)
"""Growth of area at which skin begins to show what was folded, and at which it shows no other."""


def refine_blinks(
    rig: HeadRig,
    colour: NDArray[np.floating],  # [V, 3] 0…1
    actions: NDArray[np.float32],  # [T, 52] tracked so far
    cameras: Sequence[Camera],
    rests: Sequence[NDArray[np.uint8]],  # per camera [H, W, 3]
    frames: Sequence[NDArray[np.uint8]],  # per camera [T, H, W, 3]
) -> NDArray[np.float32]:
    """``actions`` with both blinks replaced, from the cameras that see the eye."""
    refined = actions.copy()
    for name, landmarks in _EYES:
        column = rig.action_names.index(name)
        windows = [
            _EyeWindow(rig, colour, camera, landmarks, rest)
            for camera, rest in zip(cameras, rests, strict=True)
        ]
        for row in range(len(actions)):
            errors = np.zeros(len(_LEVELS))
            for window, views in zip(windows, frames, strict=True):
                errors += window.errors(actions[row], column, views[row])
            refined[row, column] = _lowest(errors)
    return refined


class _EyeWindow:
    """One eye in one camera, with the skin and the eye as the picture at rest shows them."""

    def __init__(
        self,
        rig: HeadRig,
        colour: NDArray[np.floating],
        camera: Camera,
        landmarks: slice,
        rest: NDArray[np.uint8],
    ) -> None:
        points = rig.landmarks(torch.from_numpy(rig.neutral)).numpy().astype(np.float64)
        pixels, _ = camera.project(points[landmarks])
        centre, half = pixels.mean(0), 0.9 * np.ptp(pixels[:, 0]) + 2
        left, top = np.floor(centre - half).astype(int)
        side = max(4, int(np.ceil(2 * half)))
        self._corner, self._side = (max(int(left), 0), max(int(top), 0)), side
        self._camera = camera.cropped(*self._corner, side, side)
        near = np.linalg.norm(rig.neutral - points[landmarks].mean(0), axis=1) < _NEAR_M
        faces = rig.faces[near[rig.faces].any(1)]
        vertices = np.unique(faces)
        index = np.full(len(rig.neutral), -1, np.int32)
        index[vertices] = np.arange(len(vertices))
        self._faces = index[faces]
        self._neutral, self._basis = rig.neutral[vertices], rig.action_basis[:, vertices]
        self._areas = np.maximum(face_areas(self._neutral, self._faces), 1e-12)
        self._attributes = np.concatenate([self._neutral, colour[vertices]], 1).astype(np.float32)
        self._picture = self._cut(rest)
        self._depth = rasterize_mesh(self._neutral, self._faces, self._camera).z_depth

    def errors(
        self, actions: NDArray[np.float32], column: int, frame: NDArray[np.uint8]
    ) -> NDArray[np.float64]:
        """Mean disagreement of the frame with the eye at each level, (L,)."""
        seen = self._softened(self._cut(frame))
        candidate = actions.copy()
        errors = []
        for level in _LEVELS:
            candidate[column] = level
            errors.append(np.abs(self._softened(self._render(candidate)) - seen).mean())
        return np.array(errors, np.float64)

    def _render(self, actions: NDArray[np.float32]) -> NDArray[np.float32]:
        """The eye (S, S, 3) in another expression; the rest picture where the head ends."""
        vertices = self._neutral + np.einsum("a,avc->vc", actions, self._basis)
        fragments = rasterize_mesh(vertices, self._faces, self._camera)
        attributes = np.concatenate([self._attributes, self._unfolded(vertices)[:, None]], 1)
        values = interpolate(
            torch.from_numpy(attributes), torch.from_numpy(self._faces).long(), fragments
        ).numpy()
        covered = fragments.face >= 0
        pixels, depth = self._camera.project(values[..., :3].astype(np.float64))
        pixels = np.where(covered[..., None], pixels, 0).astype(np.float32)
        taken = cv2.remap(
            self._picture, pixels[..., 0] - 0.5, pixels[..., 1] - 0.5, cv2.INTER_LINEAR,
            borderMode=cv2.BORDER_REPLICATE,
        )  # fmt: skip
        columns, rows = (np.clip(pixels[..., i].astype(int), 0, self._side - 1) for i in (0, 1))
        is_seen = depth < self._depth[rows, columns] + _SEEN_TOLERANCE_M
        share = (is_seen * (1 - values[..., 6]))[..., None]
        image = taken * share + values[..., 3:6] * (1 - share)
        return np.where(covered[..., None], image, self._picture).astype(np.float32)

    def _unfolded(self, vertices: NDArray[np.float32]) -> NDArray[np.float32]:
        """How far (V,) each vertex shows skin that is folded at rest, 0…1."""
        growth = face_areas(vertices, self._faces) / self._areas
        per_vertex = np.zeros(len(vertices))
        for corner in range(3):
            np.maximum.at(per_vertex, self._faces[:, corner], growth)
        return smoothstep(per_vertex, *_UNFOLDING).astype(np.float32)

    def _cut(self, image: NDArray[np.uint8]) -> NDArray[np.float32]:
        x, y = self._corner
        window = np.zeros((self._side, self._side, 3), np.float32)
        part = image[y : y + self._side, x : x + self._side].astype(np.float32) / 255
        window[: part.shape[0], : part.shape[1]] = part
        return window

    def _softened(self, image: NDArray[np.float32]) -> NDArray[np.float32]:
        return cv2.GaussianBlur(image, (0, 0), self._side / 30)


def _lowest(errors: NDArray[np.float64]) -> float:
    """Place of the smallest error, refined by a parabola through its neighbours."""
    best = int(errors.argmin())
    if best in (0, len(errors) - 1):
        return float(_LEVELS[best])
    low, middle, high = errors[best - 1 : best + 2]
    bend = low - 2 * middle + high
    shift = 0.5 * (low - high) / bend if bend > 1e-12 else 0.0
    return float(_LEVELS[best] + shift * (_LEVELS[1] - _LEVELS[0]))
