"""Tracking synthetic people: their true head, known cameras, and frames rendered from actions."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from fc4d_ray.cameras import Camera, orbit_camera
from fc4d_ray.errors import ConfigError, StageFailed
from fc4d_ray.evaluation.synthetic import SyntheticPerson, make_person
from fc4d_ray.heads.rig import HeadRig, Region
from fc4d_ray.priors.video.motion import action_vector
from fc4d_ray.tracking import TrackingConfig, TrackResult, track_clips
from fc4d_ray.tracking.objective import LinearPoints, sample_at, visible_skin
from fc4d_ray.tracking.tracker import ViewClip
from fc4d_ray.warping import project

SIZE = 192
CONFIG = TrackingConfig(steps=80)
EXPRESSIONS = (
    {},
    {"jawOpen": 0.6, "mouthLowerDownLeft": 0.3, "mouthLowerDownRight": 0.3},
    {"mouthSmileLeft": 0.8, "mouthSmileRight": 0.75, "cheekSquintLeft": 0.4},
    {"browInnerUp": 0.8, "browOuterUpLeft": 0.7, "browOuterUpRight": 0.7, "mouthPucker": 0.6},
)
ACTIONS = np.stack([action_vector(e) for e in EXPRESSIONS])


@pytest.fixture(scope="module")
def person() -> SyntheticPerson:
    return make_person(5)


@pytest.fixture(scope="module")
def rig(person: SyntheticPerson) -> HeadRig:
    return person.head_rig


def _camera(azimuth: float) -> Camera:
    return orbit_camera(azimuth, size=SIZE, fov_deg=9.0)


def _over_white(rgba: np.ndarray) -> np.ndarray:
    alpha = rgba[..., 3:] / 255
    return (rgba[..., :3] * alpha + 255 * (1 - alpha) + 0.5).astype(np.uint8)


class PerfectDetector:
    """Knows the landmarks of every picture it is shown, and errs as it is told."""

    def __init__(self, noise_px: float = 0.0, bias_px: float = 0.0) -> None:
        self._known: dict[bytes, np.ndarray] = {}
        self._random = np.random.default_rng(0)
        self._noise_px = noise_px
        self._bias = bias_px * self._random.standard_normal((68, 2))
        self.boxes: list[np.ndarray] = []

    def learn(self, picture: np.ndarray, landmarks: np.ndarray) -> np.ndarray:
        self._known[picture.tobytes()] = landmarks
        return picture

    def __call__(self, picture: np.ndarray, box: np.ndarray) -> np.ndarray:
        self.boxes.append(box)
        noise = self._noise_px * self._random.standard_normal((68, 2))
        return self._known[picture.tobytes()] + self._bias + noise


@pytest.fixture(scope="module")
def pictures(person: SyntheticPerson) -> dict[float, np.ndarray]:
    """Rest and expressions (1 + 4, H, W, 3) from three azimuths."""
    actions = [np.zeros(52), *ACTIONS]
    return {
        azimuth: np.stack(
            [_over_white(person.render(_camera(azimuth), actions=a)[0]) for a in actions]
        )
        for azimuth in (0.0, 30.0, -30.0)
    }


@pytest.fixture(scope="module")
def track(person: SyntheticPerson, rig: HeadRig, colour: np.ndarray, pictures):
    """Tracks the expressions in some views; ``shift_deg`` misplaces the cameras told."""

    def run(
        detector: PerfectDetector, azimuths: tuple[float, ...], shift_deg: float = 0.0, **options
    ) -> TrackResult:
        clips = []
        for azimuth in azimuths:
            for picture, actions in zip(pictures[azimuth], [None, *ACTIONS], strict=True):
                points = person.landmark_points(actions)
                detector.learn(picture, _camera(azimuth).project(points)[0])
            told = _camera(azimuth + shift_deg)
            clips.append(ViewClip(told, pictures[azimuth][0], pictures[azimuth][1:]))
        return track_clips(rig, colour, clips, detector, replace(CONFIG, **options))

    return run


@pytest.fixture(scope="module")
def exact(track) -> TrackResult:
    """From exact cameras and landmarks, three views."""
    return track(PerfectDetector(), (0, 30, -30))


@pytest.fixture(scope="module")
def colour(person: SyntheticPerson, rig: HeadRig) -> np.ndarray:
    """The bare head's colour per vertex, seen from the front."""
    picture, _ = person.render(_camera(0), 512)
    pixels, _ = _camera(0).resized(512, 512).project(rig.neutral.astype(np.float64))
    columns, rows = np.clip(pixels.astype(int), 0, 511).T
    return (picture[rows, columns, :3] / 255).astype(np.float32)


def _motion_error_mm(rig: HeadRig, found: np.ndarray, truth: np.ndarray = ACTIONS) -> float:
    """Mean distance between tracked and true positions of the vertices that truly move."""
    neck = torch.zeros(len(truth), 3)
    one = rig.pose({"actions": torch.from_numpy(found), "neck": neck})
    other = rig.pose({"actions": torch.from_numpy(truth), "neck": neck})
    skin = torch.from_numpy(rig.region == Region.FACE)
    moving = ((other - torch.from_numpy(rig.neutral)).norm(dim=-1) > 1e-3) & skin
    return float((one - other).norm(dim=-1)[moving].mean() * 1000)


def test_motion_is_recovered_from_exact_cameras_and_landmarks(rig, exact) -> None:
    assert exact.actions.shape == (4, 52) and exact.actions.dtype == np.float32
    assert ((exact.actions >= 0) & (exact.actions <= 1)).all()
    error = _motion_error_mm(rig, exact.actions)
    nothing = _motion_error_mm(rig, np.zeros_like(ACTIONS))
    assert error < 1.5 and error < 0.35 * nothing, f"{error} of {nothing} mm"
    assert exact.landmark_error_px < 0.6
    assert exact.photometric_error < 0.05
    still = rig.pose({"actions": torch.from_numpy(exact.actions[:1]), "neck": torch.zeros(1, 3)})
    drift = (still[0] - torch.from_numpy(rig.neutral)).norm(dim=-1)[rig.region == Region.FACE]
    assert drift.mean() * 1000 < 0.5, "the neutral frame stays neutral"


def test_named_actions_are_told_apart(rig, exact) -> None:
    found, column = exact.actions, rig.action_names.index
    assert found[1, column("jawOpen")] == found[:, column("jawOpen")].max() > 0.3
    assert found[2, column("mouthSmileLeft")] > 0.4
    assert found[3, column("browInnerUp")] > 0.3
    assert found[2, column("jawOpen")] < 0.2


def test_a_constant_bias_of_the_detector_cancels(person, rig, track) -> None:
    """Detectors disagree with the model by the same amount on every frame."""
    detector, biased = PerfectDetector(), PerfectDetector(bias_px=1.5)
    one, two = (track(d, (0,)) for d in (detector, biased))
    assert abs(_motion_error_mm(rig, one.actions) - _motion_error_mm(rig, two.actions)) < 0.5
    left, top, right, bottom = detector.boxes[0]
    marks = _camera(0).project(person.landmark_points())[0]
    assert right - left == pytest.approx(bottom - top), "the detector is shown a square box"
    assert left <= marks[:, 0].min() + 1e-3 and right >= marks[:, 0].max() - 1e-3
    assert top <= marks[:, 1].min() + 1e-3 and bottom >= marks[:, 1].max() - 1e-3
    again = track(PerfectDetector(), (0,))
    assert again.actions.tobytes() == one.actions.tobytes(), "equal frames give equal bytes"


def test_disturbed_cameras_and_landmarks_cost_accuracy_but_not_sense(rig, track, exact) -> None:
    rough = track(PerfectDetector(noise_px=1.2), (0, 30), shift_deg=2)
    clean_mm, rough_mm = (_motion_error_mm(rig, r.actions) for r in (exact, rough))
    assert clean_mm < rough_mm < 3.0
    assert rough.landmark_error_px > exact.landmark_error_px


def test_blinks_are_seen_though_landmarks_do_not_tell(person, rig, colour) -> None:
    detector = PerfectDetector()
    camera = _camera(0)

    def shoot(weights: dict[str, float]) -> np.ndarray:
        actions = action_vector(weights)
        picture = _over_white(person.render(camera, actions=actions)[0])
        return detector.learn(picture, camera.project(person.landmark_points())[0])

    frames = np.stack([shoot(w) for w in ({}, {"eyeBlinkLeft": 1.0}, {"eyeBlinkRight": 0.95})])
    found = track_clips(
        rig, colour, [ViewClip(camera, shoot({}), frames)], detector, replace(CONFIG, steps=30)
    ).actions
    left, right = (found[:, rig.action_names.index(f"eyeBlink{s}")] for s in ("Left", "Right"))
    assert left[1] > 0.6 and right[2] > 0.6
    assert max(left[0], left[2], right[0], right[1]) < 0.35


def test_nothing_to_track_fails_typed(person, rig, colour) -> None:
    detector = PerfectDetector()
    with pytest.raises(StageFailed, match="no frames"):
        track_clips(rig, colour, [], detector, CONFIG)
    empty = ViewClip(_camera(0), np.zeros((8, 8, 3), np.uint8), np.zeros((0, 8, 8, 3), np.uint8))
    with pytest.raises(StageFailed, match="no frames"):
        track_clips(rig, colour, [empty], detector, CONFIG)


def test_the_configuration_names_its_options() -> None:
    with pytest.raises(ConfigError, match="track.steps"):
        TrackingConfig(steps=0)
    with pytest.raises(ConfigError, match="track.view_azimuths_deg"):
        TrackingConfig(view_azimuths_deg=())


def test_linear_points_agree_with_the_rig(rig) -> None:
    actions = torch.from_numpy(ACTIONS)
    posed = rig.pose({"actions": actions, "neck": torch.zeros(len(actions), 3)})
    chosen = np.arange(0, len(rig.neutral), 97)
    torch.testing.assert_close(
        LinearPoints.of_vertices(rig, chosen)(actions), posed[:, chosen], atol=1e-6, rtol=0
    )
    torch.testing.assert_close(
        LinearPoints.of_landmarks(rig)(actions), rig.landmarks(posed), atol=1e-6, rtol=0
    )


def test_skin_seen_from_one_side_lies_on_that_side(rig) -> None:
    seen = visible_skin(rig, _camera(60), step=1)
    assert (rig.region[seen] == Region.FACE).all()
    assert rig.neutral[seen, 0].mean() > 0.005
    assert len(visible_skin(rig, _camera(180))) < 0.1 * len(seen)
    assert len(visible_skin(rig, _camera(60), step=3)) == pytest.approx(len(seen) / 3, abs=1)


def test_sampling_reads_pixel_centres_and_carries_gradients() -> None:
    images = torch.arange(24.0).reshape(2, 1, 3, 4)
    pixels = torch.tensor([[[0.5, 0.5], [3.5, 2.5]], [[1.0, 0.5], [0.5, 1.0]]], requires_grad=True)
    values = sample_at(images, pixels)
    torch.testing.assert_close(values[..., 0], torch.tensor([[0.0, 11.0], [12.5, 14.0]]))
    values[1, 0].sum().backward()
    assert pixels.grad[1, 0].tolist() == pytest.approx([1.0, 4.0], abs=1e-4)


def test_projection_is_differentiable_through_depth() -> None:
    points = torch.tensor([[0.01, 0.02, 0.05]], dtype=torch.float64, requires_grad=True)
    camera = _camera(20)
    assert torch.autograd.gradcheck(lambda p: project(p, camera)[0], points)
