"""What a tracked head must explain: landmarks and the look of its own skin, in every view."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import grid_sample

from fc4d_ray.cameras import Camera
from fc4d_ray.heads.rig import HeadRig, Region
from fc4d_ray.rendering.mesh import rasterize_mesh
from fc4d_ray.warping import project


class LinearPoints:
    """Points of a rig that keeps its neck still: linear in the actions, so cheap to move."""

    def __init__(self, neutral: NDArray[np.float32], basis: NDArray[np.float32]) -> None:
        self.neutral = torch.from_numpy(neutral)  # [N, 3]
        self.basis = torch.from_numpy(basis.reshape(len(basis), -1))  # [A, N * 3]

    @staticmethod
    def of_vertices(rig: HeadRig, indices: NDArray[np.intp]) -> LinearPoints:
        return LinearPoints(rig.neutral[indices], rig.action_basis[:, indices])

    @staticmethod
    def of_landmarks(rig: HeadRig) -> LinearPoints:
        corners = rig.faces[rig.landmark_faces]
        weights = rig.landmark_barycentric[..., None]
        return LinearPoints(
            (rig.neutral[corners] * weights).sum(1), (rig.action_basis[:, corners] * weights).sum(2)
        )

    def __call__(self, actions: Tensor) -> Tensor:
        """Positions (T, N, 3) in metres for actions (T, A)."""
        return self.neutral + (actions @ self.basis).reshape(len(actions), -1, 3)


@dataclass(frozen=True)
class TrackedView:
    """One camera's part of the evidence."""

    camera: Camera
    landmarks: Tensor  # [T, 68, 2] px, already free of the detector's bias
    confidence: Tensor  # [T, 68] 0…1
    frames: Tensor  # [T, 3, H, W] 0…1, blurred
    skin: LinearPoints  # [N] vertices this camera sees at rest
    colour: Tensor  # [N, 3] their colour in the rest picture


def visible_skin(rig: HeadRig, camera: Camera, step: int = 2) -> NDArray[np.intp]:
    """Indices of face vertices that the camera sees squarely at rest, every ``step``-th."""
    fragments = rasterize_mesh(rig.neutral, rig.faces, camera)
    shown = np.unique(fragments.face[fragments.face >= 0])
    corners = np.unique(rig.faces[shown])
    skin = corners[rig.region[corners] == Region.FACE]
    moving = np.abs(rig.action_basis[:, skin]).max(axis=(0, 2)) > 5e-4
    return skin[moving][::step]


def sample_at(images: Tensor, pixels: Tensor) -> Tensor:
    """Colours (T, N, 3) of images (T, 3, H, W) at pixels (T, N, 2), bilinear."""
    size = torch.tensor([images.shape[-1], images.shape[-2]]).to(pixels)
    grid = (pixels / size * 2 - 1)[:, :, None]
    sampled = grid_sample(images, grid, padding_mode="border", align_corners=False)
    return sampled[..., 0].transpose(1, 2)


def landmark_loss(points: Tensor, view: TrackedView) -> Tensor:
    """Robust mean landmark distance, in hundredths of the picture's side."""
    pixels, _ = project(points, view.camera)
    distance = (pixels - view.landmarks).square().sum(-1).add(1e-4).sqrt()
    scaled = distance / view.camera.width * 100
    return (
        view.confidence
        * torch.nn.functional.huber_loss(
            scaled, torch.zeros_like(scaled), delta=0.5, reduction="none"
        )
    ).mean()


def photometric_loss(actions: Tensor, view: TrackedView) -> Tensor:
    """Robust mean difference between the skin's look under actions (T, A) and at rest."""
    pixels, _ = project(view.skin(actions), view.camera)
    difference = (sample_at(view.frames, pixels) - view.colour).abs().mean(-1)
    return (difference / (difference + 0.08)).mean()
