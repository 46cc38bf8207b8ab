"""Tracked heads drawn over the frames they were found in, to be looked at."""

from __future__ import annotations

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from fc4d_ray.cameras import Camera
from fc4d_ray.rendering.mesh import interpolate, rasterize_mesh, vertex_normals

_TINT = np.array([0.45, 0.75, 1.0])
_FEATURES = (
    (range(17, 22), False), (range(22, 27), False), (range(27, 31), False), (range(31, 36), False),
    (range(36, 42), True), (range(42, 48), True), (range(48, 60), True), (range(60, 68), True),
)  # fmt: skip
"""iBUG's landmarks as lines: brows, nose, eyes, lips; True closes the line."""
_FOUND, _DETECTED = (255, 210, 40), (40, 230, 90)


def overlay(
    picture: NDArray[np.uint8],  # [H, W, 3]
    vertices: NDArray[np.floating],  # [V, 3]
    faces: NDArray[np.integer],  # [F, 3]
    camera: Camera,
    landmarks: NDArray[np.floating] | None = None,  # [68, 3] tracked
    detected: NDArray[np.floating] | None = None,  # [68, 2] px
    *,
    strength: float = 0.5,
    zoom: int = 2,
) -> NDArray[np.uint8]:
    """The picture, ``zoom`` times as large, under the shaded mesh and the landmarks' lines.

    Yellow lines are the tracked head's, green dots the detector's.
    """
    large = camera.resized(camera.width * zoom, camera.height * zoom)
    size = (large.width, large.height)
    image = cv2.resize(picture, size, interpolation=cv2.INTER_CUBIC).astype(np.float32) / 255
    points = torch.from_numpy(np.asarray(vertices, np.float32))
    index = torch.from_numpy(np.asarray(faces, np.int64))
    fragments = rasterize_mesh(vertices, faces, large)
    normals = interpolate(vertex_normals(points, index), index, fragments).numpy()
    towards = large.position / np.linalg.norm(large.position)
    shade = (0.25 + 0.75 * (normals @ towards).clip(0, 1))[..., None] * _TINT
    mixed = np.where(fragments.covered[..., None], (1 - strength) * image + strength * shade, image)
    canvas = np.ascontiguousarray((mixed.clip(0, 1) * 255).astype(np.uint8))
    if landmarks is not None:
        _draw_lines(canvas, large.project(np.asarray(landmarks, np.float64))[0])
    if detected is not None:
        for x, y in np.asarray(detected) * zoom:
            cv2.circle(canvas, (round(x), round(y)), max(1, zoom // 2), _DETECTED, -1, cv2.LINE_AA)
    return canvas


def _draw_lines(canvas: NDArray[np.uint8], pixels: NDArray) -> None:
    fixed = np.round(pixels * 16).astype(np.int32)
    for feature, closed in _FEATURES:
        line = fixed[list(feature)].reshape(-1, 1, 2)
        cv2.polylines(canvas, [line], closed, _FOUND, 1, cv2.LINE_AA, shift=4)
