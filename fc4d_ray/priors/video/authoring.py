"""Writes the shipped motion clips: ``python -m fc4d_ray.priors.video.authoring [DIRECTORY]``.

Motion is composed of gestures (a pose that comes, stays and goes along minimum-jerk curves) and,
for speech, of visemes blended by dominance functions (Cohen and Massaro's coarticulation model):
every sound pulls the mouth towards its shape for as long as it dominates its neighbours. All clips
start from the neutral face, as relative drivers expect, and the right side follows the left a
little weaker and later, as faces do.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fc4d_ray.priors.video.motion import ACTION_NAMES, MotionClip, action_vector, write_live_link

FPS = 30.0
Pose = Mapping[str, float]
"""Action weights; a name ending in ``Both`` stands for its Left and Right."""

RIGHT_SIDE_GAIN = 0.94
RIGHT_SIDE_DELAY_S = 0.012


@dataclass(frozen=True)
class Gesture:
    """A pose and a neck turn (pitch, yaw, roll in degrees) that come, stay and go."""

    pose: Pose
    start_s: float
    rise_s: float
    hold_s: float
    fall_s: float
    neck_deg: tuple[float, float, float] = (0.0, 0.0, 0.0)

    def envelope(self, times_s: NDArray) -> NDArray:
        peak_s = self.start_s + self.rise_s
        rise = _minimum_jerk((times_s - self.start_s) / self.rise_s)
        fall = _minimum_jerk((times_s - peak_s - self.hold_s) / self.fall_s)
        return rise * (1 - fall)


@dataclass(frozen=True)
class Viseme:
    """Mouth shape of a sound, how strongly it insists on it and how far it reaches, seconds."""

    pose: Pose
    dominance: float = 1.0
    reach_s: float = 0.055


VISEMES: dict[str, Viseme] = {
    "sil": Viseme({}, 0.6, 0.09),
    "P": Viseme({"mouthPressBoth": 0.45, "mouthRollLower": 0.3, "mouthRollUpper": 0.25}, 3.0, 0.03),
    "F": Viseme(
        {"jawOpen": 0.06, "mouthRollLower": 0.5, "mouthUpperUpBoth": 0.28, "mouthShrugUpper": 0.1},
        2.2,
        0.035,
    ),
    "T": Viseme({"jawOpen": 0.09, "mouthLowerDownBoth": 0.22, "mouthUpperUpBoth": 0.1}, 0.9, 0.035),
    "S": Viseme({"jawOpen": 0.05, "mouthStretchBoth": 0.22, "mouthLowerDownBoth": 0.3}, 1.3, 0.04),
    "K": Viseme({"jawOpen": 0.17, "mouthLowerDownBoth": 0.15}, 0.7, 0.04),
    "SH": Viseme({"jawOpen": 0.1, "mouthFunnel": 0.5, "mouthPucker": 0.2}, 1.5),
    "R": Viseme({"jawOpen": 0.12, "mouthFunnel": 0.3, "mouthPucker": 0.12}, 0.9),
    "A": Viseme({"jawOpen": 0.48, "mouthLowerDownBoth": 0.3, "mouthUpperUpBoth": 0.1}, 1.2, 0.08),
    "E": Viseme({"jawOpen": 0.26, "mouthSmileBoth": 0.18, "mouthLowerDownBoth": 0.26}, 1.1, 0.07),
    "I": Viseme(
        {
            "jawOpen": 0.12,
            "mouthSmileBoth": 0.26,
            "mouthStretchBoth": 0.16,
            "mouthLowerDownBoth": 0.2,
            "mouthDimpleBoth": 0.1,
        },
        1.1,
        0.07,
    ),
    "O": Viseme({"jawOpen": 0.34, "mouthFunnel": 0.46, "mouthPucker": 0.14}, 1.3, 0.08),
    "U": Viseme({"jawOpen": 0.1, "mouthPucker": 0.62, "mouthFunnel": 0.24}, 1.5, 0.08),
}

GREETING: tuple[tuple[str, float], ...] = (
    # "Hello, nice to meet you. How are you?" as (viseme, centre in seconds).
    ("sil", 0.0), ("E", 0.22), ("T", 0.31), ("O", 0.42), ("sil", 0.56),
    ("T", 0.66), ("A", 0.77), ("I", 0.86), ("S", 0.95), ("T", 1.03), ("U", 1.11),
    ("P", 1.21), ("I", 1.32), ("T", 1.42), ("SH", 1.49), ("U", 1.58), ("sil", 1.76),
    ("K", 1.92), ("A", 2.02), ("U", 2.13), ("A", 2.26), ("R", 2.36), ("I", 2.44), ("U", 2.54),
    ("sil", 2.72), ("sil", 2.97),
)  # fmt: skip

SMILE: Pose = {
    "mouthSmileBoth": 0.8,
    "cheekSquintBoth": 0.5,
    "eyeSquintBoth": 0.32,
    "mouthDimpleBoth": 0.25,
    "mouthUpperUpBoth": 0.22,
}
SMILE_OPENING: Pose = {"jawOpen": 0.16, "mouthLowerDownBoth": 0.28, "mouthUpperUpBoth": 0.12}
SURPRISE: Pose = {
    "browInnerUp": 0.85,
    "browOuterUpBoth": 0.75,
    "eyeWideBoth": 0.75,
    "jawOpen": 0.52,
    "mouthFunnel": 0.22,
    "mouthStretchBoth": 0.08,
}
FROWN: Pose = {
    "mouthFrownBoth": 0.75,
    "browInnerUp": 0.5,
    "browDownBoth": 0.35,
    "mouthShrugLower": 0.45,
    "mouthPressBoth": 0.2,
    "mouthStretchBoth": 0.15,
    "eyeSquintBoth": 0.15,
}
ANGER: Pose = {
    "browDownBoth": 0.85,
    "eyeSquintBoth": 0.4,
    "noseSneerBoth": 0.3,
    "mouthPressBoth": 0.25,
}
BROW_RAISE: Pose = {"browInnerUp": 0.8, "browOuterUpBoth": 0.85, "eyeWideBoth": 0.25}


def authored_clips() -> list[MotionClip]:
    """All shipped clips, computed."""
    return [
        _compose("neutral", 1.5, _gaze(0.3, 0.0, 0.06, 0.7), sway_deg=0.8),
        _compose("blink", 1.8, (*_blink(0.3), *_blink(0.95), *_blink(1.35)), sway_deg=0.6),
        _compose(
            "brow",
            2.2,
            (
                Gesture(BROW_RAISE, 0.1, 0.25, 0.3, 0.3, (-2.0, 0.0, 0.0)),
                Gesture(ANGER, 1.0, 0.3, 0.35, 0.4, (2.5, 0.0, 0.0)),
            ),
        ),
        _compose(
            "smile",
            2.4,
            (
                Gesture(SMILE, 0.12, 0.55, 0.75, 0.75, (-1.5, 1.5, 2.5)),
                Gesture(SMILE_OPENING, 0.45, 0.45, 0.45, 0.5),
                *_blink(0.2),
            ),
        ),
        _compose(
            "surprise",
            2.0,
            (*_blink(0.02), Gesture(SURPRISE, 0.18, 0.22, 0.5, 0.75, (-3.5, 0.0, 0.0))),
        ),
        _compose(
            "frown",
            2.2,
            (Gesture(FROWN, 0.12, 0.6, 0.6, 0.7, (3.0, -1.0, -1.5)), *_blink(0.9)),
        ),
        _compose("mixed", 3.0, _mixed_gestures(), sway_deg=1.2),
        _compose("speech", 3.0, _speech_gestures(), sway_deg=1.6, visemes=GREETING),
    ]


def pose_weights(pose: Pose) -> dict[str, float]:
    """Weights by action name, with every ``Both`` written out."""
    sides: dict[str, float] = {}
    for name, weight in pose.items():
        if name.endswith("Both"):
            stem = name.removesuffix("Both")
            sides |= {f"{stem}Left": weight, f"{stem}Right": weight}
        else:
            sides[name] = weight
    return sides


def main(directory: Path) -> None:
    """Write every clip as Live Link Face CSV into ``directory``."""
    directory.mkdir(parents=True, exist_ok=True)
    for clip in authored_clips():
        write_live_link(clip, directory / f"{clip.name}.csv")


def _blink(start_s: float, depth: float = 1.0) -> tuple[Gesture, ...]:
    """A blink of 180 ms: lids close in 70, rest 20 and open in 90."""
    lids = {"eyeBlinkBoth": depth}
    around = {"eyeSquintBoth": 0.15 * depth, "cheekSquintBoth": 0.08, "browDownBoth": 0.06}
    return (
        Gesture(lids, start_s, 0.07, 0.02, 0.09),
        Gesture(around, start_s, 0.09, 0.02, 0.14),
    )


def _gaze(start_s: float, left: float, down: float, hold_s: float) -> tuple[Gesture, ...]:
    """A saccade to the subject's left (negative: right) and down (negative: up) and back."""
    horizontal = {"eyeLookOutLeft": left, "eyeLookInRight": left}
    if left < 0:
        horizontal = {"eyeLookInLeft": -left, "eyeLookOutRight": -left}
    vertical = {"eyeLookDownBoth": down} if down >= 0 else {"eyeLookUpBoth": -down}
    return (Gesture({**horizontal, **vertical}, start_s, 0.05, hold_s, 0.07),)


def _mixed_gestures() -> tuple[Gesture, ...]:
    """Asymmetric and rare actions, one after another."""
    pucker: Pose = {"mouthPucker": 0.8, "mouthFunnel": 0.15, "jawOpen": 0.04}
    to_left: Pose = {"mouthLeft": 0.5, "jawLeft": 0.35, "mouthSmileLeft": 0.35}
    to_right: Pose = {"mouthRight": 0.5, "jawRight": 0.35, "noseSneerBoth": 0.35}
    wide_open: Pose = {"jawOpen": 0.7, "mouthStretchBoth": 0.2}
    lips_in: Pose = {"mouthRollLower": 0.6, "mouthRollUpper": 0.5}
    wink: Pose = {
        "eyeBlinkLeft": 0.95,
        "cheekSquintLeft": 0.6,
        "mouthSmileLeft": 0.5,
        "browDownLeft": 0.3,
    }
    pout: Pose = {"jawForward": 0.4, "mouthShrugUpper": 0.35, "mouthShrugLower": 0.4}
    return (
        *_gaze(0.1, 0.45, 0.1, 0.35),
        Gesture(pucker, 0.1, 0.25, 0.12, 0.25),
        Gesture(to_left, 0.6, 0.22, 0.12, 0.25),
        *_gaze(0.75, -0.45, -0.1, 0.3),
        Gesture(to_right, 1.05, 0.22, 0.1, 0.25),
        *_blink(1.15),
        Gesture(wide_open, 1.45, 0.25, 0.12, 0.25, (-2.0, 0.0, 0.0)),
        Gesture(lips_in, 1.95, 0.18, 0.08, 0.2),
        Gesture(wink, 2.2, 0.13, 0.12, 0.2, (0.0, 2.0, 2.0)),
        Gesture(pout, 2.45, 0.16, 0.06, 0.2),
    )


def _speech_gestures() -> tuple[Gesture, ...]:
    """What the rest of the face does while the mouth speaks: stress, blinks, gaze."""
    stress: Pose = {"browInnerUp": 0.3, "browOuterUpBoth": 0.28, "eyeWideBoth": 0.1}
    return (
        Gesture(stress, 0.25, 0.16, 0.08, 0.3, (2.0, 0.0, 0.0)),
        Gesture(stress, 1.18, 0.16, 0.08, 0.3, (2.5, -1.0, 0.0)),
        Gesture({"browDownBoth": 0.18}, 1.85, 0.2, 0.1, 0.25),
        Gesture(stress, 2.15, 0.2, 0.25, 0.35, (-1.5, 1.5, 1.5)),
        Gesture({"mouthSmileBoth": 0.3, "cheekSquintBoth": 0.15}, 2.5, 0.25, 0.02, 0.2),
        *_blink(0.58),
        *_blink(1.7),
        *_gaze(1.72, 0.12, 0.05, 0.25),
    )


def _compose(
    name: str,
    duration_s: float,
    gestures: Sequence[Gesture],
    *,
    sway_deg: float = 1.0,
    visemes: Sequence[tuple[str, float]] = (),
) -> MotionClip:
    times_s = np.arange(round(duration_s * FPS)) / FPS
    is_right = np.array([action.endswith("Right") for action in ACTION_NAMES])
    actions = np.zeros((len(times_s), len(ACTION_NAMES)))
    neck_deg = _sway(times_s, duration_s, sway_deg)
    for gesture in gestures:
        left = gesture.envelope(times_s)[:, None]
        right = gesture.envelope(times_s - RIGHT_SIDE_DELAY_S)[:, None]
        weights = np.where(is_right, RIGHT_SIDE_GAIN * right, left) * action_vector(
            pose_weights(gesture.pose)
        )
        actions = 1 - (1 - actions) * (1 - weights)
        neck_deg += left * np.array(gesture.neck_deg)
    if visemes:
        mouth = _coarticulate(visemes, times_s)
        actions = 1 - (1 - actions) * (1 - mouth)
    fade = 1 - _minimum_jerk((times_s - duration_s + 0.25) / 0.2)
    return MotionClip(
        name,
        FPS,
        (actions * fade[:, None]).clip(0, 1).astype(np.float32),
        np.deg2rad(neck_deg * fade[:, None]).astype(np.float32),
    )


def _coarticulate(visemes: Sequence[tuple[str, float]], times_s: NDArray) -> NDArray:
    """(T, 52) dominance-weighted mean of the mouth shapes, zero at the first frame."""
    total = np.zeros((len(times_s), 1))
    blended = np.zeros((len(times_s), len(ACTION_NAMES)))
    for name, centre_s in visemes:
        viseme = VISEMES[name]
        distance = np.abs(times_s - centre_s)[:, None] / viseme.reach_s
        dominance = viseme.dominance * np.exp(-(distance**1.5))
        total += dominance
        blended += dominance * action_vector(pose_weights(viseme.pose))
    onset = _minimum_jerk(times_s / 0.15)[:, None]
    return blended / (total + 1e-3) * onset


def _sway(times_s: NDArray, duration_s: float, amplitude_deg: float) -> NDArray:
    """(T, 3) slow drift of pitch, yaw and roll in degrees, zero at both ends."""
    phase = 2 * np.pi * times_s / duration_s
    onset = np.sin(phase / 2)
    drift = np.stack([0.4 * np.sin(2 * phase + 0.7), np.sin(phase), 0.5 * np.sin(phase + 0.4)], -1)
    return amplitude_deg * onset[:, None] * drift


def _minimum_jerk(x: NDArray) -> NDArray:
    """0 to 1 over x in [0, 1] with zero speed and acceleration at both ends."""
    x = np.clip(x, 0.0, 1.0)
    return x**3 * (10 - 15 * x + 6 * x**2)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent / "clips")
