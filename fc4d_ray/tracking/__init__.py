"""Head parameters of every frame from images with known cameras."""

from __future__ import annotations

from fc4d_ray.tracking.tracker import TrackingConfig, TrackResult, track_clips

__all__ = ["TrackResult", "TrackingConfig", "track_clips"]
