"""The expressions a contact sheet shows, as ARKit action weights."""

from __future__ import annotations

from fc4d_ray.priors.video.authoring import (
    FROWN,
    SMILE,
    SMILE_OPENING,
    SURPRISE,
    VISEMES,
    Pose,
    pose_weights,
)

_EYES_CLOSED: Pose = {"eyeBlinkBoth": 1.0, "eyeSquintBoth": 0.15}

SHOWN_EXPRESSIONS: dict[str, dict[str, float]] = {
    "smile": pose_weights({**SMILE, **SMILE_OPENING, "mouthUpperUpBoth": 0.3}),
    "surprise": pose_weights(SURPRISE),
    "frown": pose_weights(FROWN),
    "eyes closed": pose_weights(_EYES_CLOSED),
    "pucker": pose_weights({**VISEMES["U"].pose, "mouthPucker": 0.85}),
}
"""Five, in the order of the sheet."""
