"""Which keypoints a driving clip gives a source: the motion modes of LivePortrait.

The default is the paper's (section 3.3): the change of expression is taken from the clip, the pose
is the source's own, and every view gets the same change.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from fc4d_ray.errors import ConfigError
from fc4d_ray.priors.video.liveportrait.checkpoint import LivePortraitNetworks
from fc4d_ray.priors.video.liveportrait.keypoint_motion import KeypointMotion
from fc4d_ray.priors.video.liveportrait.keypoint_offsets import keypoint_delta, stitch
from fc4d_ray.priors.video.liveportrait.keypoints import place_keypoints, rotation_matrix
from fc4d_ray.priors.video.liveportrait.motion_extractor import FaceMotion

Region = Literal["exp", "all", "pose", "lip", "eyes"]

REGION_KEYPOINTS: dict[str, tuple[int, ...]] = {
    "lip": (6, 12, 14, 17, 19, 20),
    "eyes": (11, 13, 15, 16, 18),
}
"""Keypoints that belong to a part of the face."""

_ABSOLUTE_KEYPOINTS = (1, 2, 6, *range(11, 21))
_ABSOLUTE_AXES = {3: (1,), 4: (1,), 5: (2,), 8: (2,), 9: (1, 2)}
"""Absolute mode copies these keypoints, and of these only some axes; the rest is the source's."""

CLOSED_LIPS = 0.03
"""Below this openness lips count as closed and need no normalisation."""


@dataclass(frozen=True)
class MotionConfig:
    """What a driving clip changes in a source."""

    __pydantic_config__: ClassVar = {"extra": "forbid"}

    relative: bool = True
    """Drive by the change since the clip's first frame; off copies the driver's own face."""
    region: Region = "exp"
    """``exp``: expression, pose kept (the paper's choice); ``all``, ``pose``, ``lip``, ``eyes``."""
    stitching: bool = True
    """Hold shoulders and the crop's border still, so that the crop can be laid back."""
    eye_retargeting: bool = False
    """Give the eyes the driver's openness; in relative mode this replaces the driven motion."""
    lip_retargeting: bool = False
    """Give the lips the driver's openness; in relative mode this replaces the driven motion."""
    lip_normalisation: bool = False
    """Close a source's open lips first (relative mode without retargeting)."""
    multiplier: float = 1.0
    """Strength of the whole motion."""
    smoothing: float = 0.0
    """Observation variance of the motion smoother, such as 3e-7 or 1e-4; 0 leaves clips alone."""

    def __post_init__(self) -> None:
        if not 0 <= self.multiplier <= 5:
            raise ConfigError(f"motion.multiplier must lie in 0…5, got {self.multiplier}")
        if not 0 <= self.smoothing <= 1:
            raise ConfigError(f"motion.smoothing must lie in 0…1, got {self.smoothing}")

    @property
    def retargets(self) -> bool:
        return self.eye_retargeting or self.lip_retargeting


@dataclass(frozen=True)
class SourceFaces:
    """What is known of V views before anything moves. Ratios as ``openness`` measures them."""

    motion: FaceMotion
    rotation: Tensor  # [V, 3, 3]
    keypoints: Tensor  # [V, K, 3]
    eyes: Tensor | None = None  # [V, 2]
    lips: Tensor | None = None  # [V, 1]


def read_faces(
    motion: FaceMotion, eyes: Tensor | None = None, lips: Tensor | None = None
) -> SourceFaces:
    """Sources from what the extractor read off their pictures."""
    rotation = rotation_matrix(motion.pitch_deg, motion.yaw_deg, motion.roll_deg)
    keypoints = place_keypoints(
        motion.canonical, rotation, motion.expression, motion.scale, motion.translation
    )
    return SourceFaces(motion, rotation, keypoints, eyes, lips)


def driven_keypoints(
    source: SourceFaces,
    clip: KeypointMotion,
    config: MotionConfig,
    networks: LivePortraitNetworks,
) -> Tensor:
    """Keypoints (V, T, K, 3) of every source at every frame, in single precision.

    The clip's first frame is its reference: pose, scale and, unless the clip names another neutral
    face, expression are counted from it.

    Raises:
        ConfigError: retargeting or lip normalisation without the ratios it needs.
    """
    driven = _moved(source, clip, config)
    if config.retargets:
        if config.relative:
            driven = source.keypoints[:, None].expand_as(driven)
        driven = driven + _retargeting(source, clip, config, networks)
    if config.stitching:
        still = source.keypoints[:, None].expand_as(driven)
        stitched = stitch(networks.stitching, still.flatten(0, 1), driven.flatten(0, 1))
        driven = stitched.view_as(driven)
    if config.lip_normalisation and config.relative and not config.retargets:
        driven = driven + _lips_closed(source, networks)[:, None]
    still = source.keypoints[:, None]
    return still + (driven - still) * config.multiplier


def _moved(source: SourceFaces, clip: KeypointMotion, config: MotionConfig) -> Tensor:
    """Keypoints (V, T, K, 3) before retargeting and stitching."""
    own = source.motion
    like = source.keypoints
    rotation, expression, translation, scale = (
        torch.as_tensor(value).to(like)
        for value in (clip.rotation, clip.expression, clip.translation, clip.scale)
    )
    neutral = expression[0] if clip.neutral is None else torch.as_tensor(clip.neutral).to(like)
    n_frames = len(expression)
    moves_pose = config.region in ("all", "pose")
    new_rotation = source.rotation[:, None].expand(-1, n_frames, 3, 3)
    new_translation = own.translation[:, None].expand(-1, n_frames, 3)
    new_scale = own.scale[:, None].expand(-1, n_frames, 1)
    if moves_pose and config.relative:
        new_rotation = (rotation @ rotation[0].T) @ source.rotation[:, None]
        new_translation = new_translation + (translation - translation[0])
        if config.region == "all":
            new_scale = new_scale * (scale / scale[0])
    elif moves_pose:
        new_rotation = rotation.expand_as(new_rotation)
        new_translation = translation.expand_as(new_translation)
    return place_keypoints(
        own.canonical[:, None],
        new_rotation,
        _expression(own.expression, expression, config, neutral),
        new_scale,
        new_translation,
    )


def _expression(own: Tensor, driver: Tensor, config: MotionConfig, neutral: Tensor) -> Tensor:
    """Expression (V, T, K, 3) of sources (V, K, 3) under a driver (T, K, 3)."""
    own = own[:, None].expand(-1, len(driver), -1, -1)
    if config.region == "pose":
        return own
    wanted = driver.expand_as(own)
    if config.relative:
        wanted = own + (driver - neutral)
    return torch.where(_driven_axes(config, own), wanted, own)


def _driven_axes(config: MotionConfig, like: Tensor) -> Tensor:
    """(K, 3) which coordinates of which keypoints the driver's expression reaches."""
    chosen = torch.zeros(like.shape[-2:], dtype=torch.bool, device=like.device)
    if config.region in REGION_KEYPOINTS:
        chosen[list(REGION_KEYPOINTS[config.region])] = True
    elif config.relative:
        chosen[:] = True
    else:
        chosen[list(_ABSOLUTE_KEYPOINTS)] = True
        for keypoint, axes in _ABSOLUTE_AXES.items():
            chosen[keypoint, list(axes)] = True
    return chosen


def _retargeting(
    source: SourceFaces,
    clip: KeypointMotion,
    config: MotionConfig,
    networks: LivePortraitNetworks,
) -> Tensor:
    """Offsets (V, T, K, 3) that give eyes and lips the driver's openness."""
    n_views, n_frames = len(source.keypoints), clip.n_frames
    keypoints = source.keypoints[:, None].expand(-1, n_frames, -1, -1).flatten(0, 1)
    total = torch.zeros_like(keypoints)
    chosen = {
        "eye": (config.eye_retargeting, source.eyes, clip.eyes),
        "lip": (config.lip_retargeting, source.lips, clip.lips),
    }
    for part, (is_wanted, own, driver) in chosen.items():
        if not is_wanted:
            continue
        if own is None or driver is None:
            whose = "the source" if own is None else f"driving clip {clip.name}"
            raise ConfigError(f"motion.{part}_retargeting: openness of {whose} is not known")
        # The eye network was trained on the driver's left eye alone.
        wanted = torch.as_tensor(driver[:, :1]).to(own).expand(n_views, -1, -1)
        ratios = torch.cat([own[:, None].expand(-1, n_frames, -1), wanted], -1)
        total = total + keypoint_delta(getattr(networks, part), keypoints, ratios.flatten(0, 1))
    return total.view(n_views, n_frames, -1, 3)


def _lips_closed(source: SourceFaces, networks: LivePortraitNetworks) -> Tensor:
    """Offsets (V, K, 3) that close the lips of the sources that have them open."""
    if source.lips is None:
        raise ConfigError("motion.lip_normalisation: openness of the source's lips is not known")
    ratios = torch.cat([source.lips, torch.zeros_like(source.lips)], -1)
    delta = keypoint_delta(networks.lip, source.keypoints, ratios)
    return delta * (source.lips >= CLOSED_LIPS).to(delta)[..., None]
