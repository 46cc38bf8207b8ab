"""Gaussians bound to a mesh: binding, density control, COIN, trainer, playback, file formats."""

from __future__ import annotations

from fc4d_ray.avatar.avatar import Avatar
from fc4d_ray.avatar.config import TrainConfig
from fc4d_ray.avatar.frames import FrameSource, Sample
from fc4d_ray.avatar.gaussians import Gaussians
from fc4d_ray.avatar.initialise import initialise, initialise_on_surface
from fc4d_ray.avatar.trainer import TrainResult, train_avatar

__all__ = [
    "Avatar",
    "FrameSource",
    "Gaussians",
    "Sample",
    "TrainConfig",
    "TrainResult",
    "initialise",
    "initialise_on_surface",
    "train_avatar",
]
