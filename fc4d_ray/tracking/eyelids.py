"""How far each eye is closed, by rendering the answer and comparing.

Detected eye landmarks hardly follow a closing lid, and the lid's skin is hidden at rest, so neither
term of the objective tells a blink's depth. Here the coloured head is rendered with each eye at
several closures, and the one whose *change* against rest matches the frame's change wins.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from fc4d_ray.cameras import Camera
from fc4d_ray.heads.rig import HeadRig
from fc4d_ray.rendering.mesh import interpolate, rasterize_mesh

_LEVELS = np.linspace(0.0, 1.0, 7)
_EYES = (("eyeBlinkLeft", slice(42, 48)), ("eyeBlinkRight", slice(36, 42)))


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
        windows = [_EyeWindow(rig, colour, camera, landmarks) for camera in cameras]
        pairs = list(zip(windows, rests, frames, strict=True))
        for row in range(len(actions)):
            errors = np.array(
                [
                    sum(
                        window.error(actions[row], column, level, rest, views[row])
                        for window, rest, views in pairs
                    )
                    for level in _LEVELS
                ]
            )
            refined[row, column] = _lowest(errors)
    return refined


class _EyeWindow:
    """One eye in one camera."""

    def __init__(self, rig: HeadRig, colour, camera: Camera, landmarks: slice) -> None:
        points = rig.landmarks(torch.from_numpy(rig.neutral)).numpy().astype(np.float64)
        pixels, _ = camera.project(points[landmarks])
        centre, half = pixels.mean(0), 0.9 * np.ptp(pixels[:, 0]) + 2
        left, top = np.floor(centre - half).astype(int)
        side = max(4, int(np.ceil(2 * half)))
        self._corner, self._side = (max(int(left), 0), max(int(top), 0)), side
        self._camera = camera.cropped(*self._corner, side, side)
        eye = points[landmarks].mean(0)
        near = np.linalg.norm(rig.neutral - eye, axis=1) < 0.03
        self._rig = rig
        vertices = np.unique(rig.faces[near[rig.faces].any(1)])
        index = np.full(len(rig.neutral), -1, np.int32)
        index[vertices] = np.arange(len(vertices))
        self._faces = index[rig.faces[near[rig.faces].any(1)]]
        self._neutral, self._basis = rig.neutral[vertices], rig.action_basis[:, vertices]
        self._colour = torch.from_numpy(np.asarray(colour[vertices], np.float32))
        self._rest = self._render(np.zeros(len(rig.action_names), np.float32))

    def error(self, actions, column: int, level: float, rest, frame) -> float:
        """Mean disagreement between the rendered and the seen change."""
        candidate = actions.copy()
        candidate[column] = level
        rendered = self._render(candidate) - self._rest
        seen = self._cut(frame) - self._cut(rest)
        return float(np.abs(rendered - seen).mean())

    def _render(self, actions: NDArray[np.float32]) -> NDArray[np.float32]:
        vertices = self._neutral + np.einsum("a,avc->vc", actions, self._basis)
        fragments = rasterize_mesh(vertices, self._faces, self._camera)
        image = interpolate(self._colour, torch.from_numpy(self._faces).long(), fragments)
        return cv2.GaussianBlur(image.numpy(), (0, 0), self._side / 20)

    def _cut(self, image: NDArray[np.uint8]) -> NDArray[np.float32]:
        x, y = self._corner
        window = np.zeros((self._side, self._side, 3), np.float32)
        part = image[y : y + self._side, x : x + self._side].astype(np.float32) / 255
        window[: part.shape[0], : part.shape[1]] = part
        return cv2.GaussianBlur(window, (0, 0), self._side / 20)


def _lowest(errors: NDArray[np.float64]) -> float:
    """Place of the smallest error, refined by a parabola through its neighbours."""
    best = int(errors.argmin())
    if best in (0, len(errors) - 1):
        return float(_LEVELS[best])
    low, middle, high = errors[best - 1 : best + 2]
    bend = low - 2 * middle + high
    shift = 0.5 * (low - high) / bend if bend > 1e-12 else 0.0
    return float(_LEVELS[best] + shift * (_LEVELS[1] - _LEVELS[0]))
