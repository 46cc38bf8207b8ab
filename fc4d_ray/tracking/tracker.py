"""Multi-view tracking with known cameras: actions per frame, all frames at once.

Landmarks come from the detector on each frame. Its constant disagreement with the model is
measured on the rest picture and taken off, so only motion counts. A photometric term then aligns
the skin itself: a vertex keeps the colour it had at rest.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fc4d_ray.cameras import Camera
from fc4d_ray.errors import ConfigError, StageFailed
from fc4d_ray.heads.rig import HeadRig
from fc4d_ray.tracking.eyelids import refine_blinks
from fc4d_ray.tracking.objective import (
    LinearPoints,
    TrackedView,
    landmark_loss,
    photometric_loss,
    sample_at,
    visible_skin,
)
from fc4d_ray.warping import project

LandmarkDetector = Callable[[NDArray[np.uint8], NDArray[np.float64]], NDArray[np.float64]]
"""(H, W, 3) picture and face box [l, t, r, b] to (68, 2) landmarks, px."""


@dataclass(frozen=True)
class TrackingConfig:
    """How clips are tracked."""

    __pydantic_config__: ClassVar = {"extra": "forbid"}

    view_azimuths_deg: tuple[float, ...] = (0.0, 30.0, -30.0)
    """Orbit views used beside the reference; the nearest animated ones are taken."""
    steps: int = 120
    """Optimiser steps over all frames together."""
    learning_rate: float = 0.04
    """Adam's step on actions."""
    landmark_weight: float = 1.0
    """Weight of the landmark term."""
    photometric_weight: float = 1.5
    """Weight of the skin term."""
    sparsity: float = 0.006
    """Weight of the sum of actions: unneeded actions stay at zero."""

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise ConfigError(f"track.steps must be at least 1, got {self.steps}")
        if not self.view_azimuths_deg:
            raise ConfigError("track.view_azimuths_deg must name at least one view")


@dataclass(frozen=True)
class ViewClip:
    """The frames of one camera, all clips one after another."""

    camera: Camera
    rest: NDArray[np.uint8]  # [H, W, 3] picture at rest
    frames: NDArray[np.uint8]  # [T, H, W, 3]


@dataclass(frozen=True)
class TrackResult:
    """Tracked parameters and how well they explain the frames."""

    actions: NDArray[np.float32]  # [T, 52]
    landmark_error_px: float
    """Mean distance of tracked from detected landmarks, px."""
    photometric_error: float
    """Mean absolute colour difference of the skin, 0…1."""


def track_clips(
    rig: HeadRig,
    colour: NDArray[np.floating],  # [V, 3] surface colour 0…1
    views: list[ViewClip],
    detect: LandmarkDetector,
    config: TrackingConfig,
) -> TrackResult:
    """Actions of every frame; the neck stays at rest (the source pose is kept).

    Raises ``StageFailed`` where there is nothing to track.
    """
    if not views or len(views[0].frames) == 0:
        raise StageFailed("tracking got no frames")
    evidence = [_gather(rig, view, detect) for view in views]
    n_frames = len(views[0].frames)
    actions = torch.full((n_frames, len(rig.action_names)), 0.02, requires_grad=True)
    optimiser = torch.optim.Adam([actions], lr=config.learning_rate, betas=(0.9, 0.95))
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, config.steps, 1e-3)
    landmarks = LinearPoints.of_landmarks(rig)
    for step in range(config.steps):
        points = landmarks(actions)
        loss = config.sparsity * actions.sum(1).mean()
        for view in evidence:
            loss = loss + config.landmark_weight * landmark_loss(points, view)
            if step > config.steps // 4:
                loss = loss + config.photometric_weight * photometric_loss(actions, view)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
        with torch.no_grad():
            actions.clamp_(0, 1)
    refined = refine_blinks(
        rig, colour, actions.detach().numpy(), [v.camera for v in views],
        [v.rest for v in views], [v.frames for v in views],
    )  # fmt: skip
    return _result(rig, torch.from_numpy(refined), evidence)


def _gather(rig: HeadRig, view: ViewClip, detect: LandmarkDetector) -> TrackedView:
    """Landmarks and skin colours of one camera."""
    rest_points = rig.landmarks(torch.from_numpy(rig.neutral))
    modelled = view.camera.project(rest_points.numpy().astype(np.float64))[0]
    box = _face_box(modelled)
    bias = modelled - detect(view.rest, box)
    # Where detector and model disagree at rest, motion is told less well, too.
    trust = np.exp(-np.square(np.linalg.norm(bias, axis=1) / (0.02 * view.camera.width)))
    marks = np.stack([detect(frame, box) + bias for frame in view.frames])
    skin = LinearPoints.of_vertices(rig, visible_skin(rig, view.camera))
    pixels, _ = project(skin.neutral, view.camera)
    rest = _blurred(view.rest)[None]
    return TrackedView(
        view.camera,
        torch.from_numpy(marks).float(),
        torch.from_numpy(trust).float().expand(len(marks), -1),
        torch.stack([_blurred(frame) for frame in view.frames]),
        skin,
        sample_at(rest, pixels[None])[0],
    )


def _face_box(landmarks: NDArray[np.float64]) -> NDArray[np.float64]:
    """The box a frontal face detector would draw: brows to chin, nearly square."""
    low, high = landmarks.min(0), landmarks.max(0)
    side = max(high[0] - low[0], 1.02 * (high[1] - low[1]))
    centre = 0.5 * (low + high)
    return np.concatenate([centre - side / 2, centre + side / 2])


def _blurred(image: NDArray[np.uint8]) -> Tensor:
    smooth = cv2.GaussianBlur(image.astype(np.float32) / 255, (0, 0), image.shape[0] / 250)
    return torch.from_numpy(smooth).permute(2, 0, 1)


@torch.no_grad()
def _result(rig: HeadRig, actions: Tensor, evidence: list[TrackedView]) -> TrackResult:
    points = LinearPoints.of_landmarks(rig)(actions)
    distances, differences = [], []
    for view in evidence:
        pixels, _ = project(points, view.camera)
        distances.append((pixels - view.landmarks).norm(dim=-1).mean())
        skin, _ = project(view.skin(actions), view.camera)
        differences.append((sample_at(view.frames, skin) - view.colour).abs().mean())
    return TrackResult(
        actions.numpy().astype(np.float32),
        float(torch.stack(distances).mean()),
        float(torch.stack(differences).mean()),
    )
