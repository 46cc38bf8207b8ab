"""Driving views whose pictures hold the surface's own coordinates: every pixel has one answer."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch

from fc4d_ray.cameras import Camera, orbit_camera
from fc4d_ray.errors import ConfigError
from fc4d_ray.heads.rig import HeadRig, Region
from fc4d_ray.priors.shape.views import REFERENCE
from fc4d_ray.priors.video.actions import ActionsVideoConfig, ViewAnimator, telling_frames
from fc4d_ray.priors.video.motion import MotionClip, action_vector, load_clip
from fc4d_ray.rendering.mesh import interpolate, rasterize_mesh

SIZE = 256
LOW, SPAN = np.array([-0.3, -0.35, -0.3]), 0.7
"""World positions are painted as colours: metres over 0.7 m."""

TALK = {"jawOpen": 0.6, "mouthSmileLeft": 0.5, "mouthSmileRight": 0.4, "browInnerUp": 0.8}


def _colour_of(points: np.ndarray) -> np.ndarray:
    return (points - LOW) / SPAN


def _picture(rig: HeadRig, camera: Camera) -> np.ndarray:
    """RGBA picture of the rest whose colour is the surface's position."""
    fragments = rasterize_mesh(rig.neutral, rig.faces, camera)
    colour = torch.from_numpy(_colour_of(rig.neutral.astype(np.float64)))
    image = interpolate(colour, rig.faces, fragments).numpy()
    rgba = np.dstack([image, fragments.covered.astype(float)])
    return (rgba * 255 + 0.5).astype(np.uint8)


@pytest.fixture(scope="module")
def rig(fitted) -> HeadRig:
    return fitted.rig


@pytest.fixture(scope="module")
def animate(fitted, rig):
    """Makes the animator of a view whose picture is painted with positions."""

    def make(camera: Camera, frame_size: int = SIZE) -> ViewAnimator:
        colour = _colour_of(rig.neutral).astype(np.float32)
        picture = _picture(rig, camera)
        return ViewAnimator(rig, colour, fitted.colour.material, camera, picture, frame_size)

    return make


def _close_up(azimuth: float) -> Camera:
    """The orbit's camera with the head filling the picture."""
    return orbit_camera(azimuth, size=SIZE, fov_deg=9.0)


def _frame(animator: ViewAnimator, weights: dict[str, float]) -> np.ndarray:
    return next(animator.frames(action_vector(weights)[None]))


@pytest.mark.parametrize("azimuth", [0, -45, 75])
def test_the_neutral_frame_is_the_rest_picture(rig, animate, azimuth) -> None:
    animator = animate(_close_up(azimuth))
    frame, picture = _frame(animator, {}), _picture(rig, _close_up(azimuth))
    np.testing.assert_array_equal(frame[..., 3], picture[..., 3])
    difference = np.abs(frame[..., :3].astype(int) - picture[..., :3])[picture[..., 3] > 0]
    assert difference.mean() < 0.5 and np.percentile(difference, 99) <= 4, "of 255"


def test_frames_are_resized_pictures_outside_the_window(fitted, rig, animate) -> None:
    camera = _close_up(10)
    animator = animate(camera, frame_size=128)
    frame = _frame(animator, TALK)
    resized = cv2.resize(_picture(rig, camera), (128, 128), interpolation=cv2.INTER_AREA)
    left, top, width, height = animator.window
    outside = np.ones((128, 128), bool)
    outside[top : top + height, left : left + width] = False
    assert frame.shape == (128, 128, 4) and outside.sum() > 4000
    np.testing.assert_array_equal(frame[outside], resized[outside])


def _tracked_points(rig: HeadRig, camera: Camera, weights: dict[str, float]):
    """Vertices seen squarely at rest and when posed: rest positions and posed pixels."""
    posed = rig.pose(rig.parameters_from_actions(weights))[0].numpy().astype(np.float64)
    moved = np.linalg.norm(posed - rig.neutral, axis=1)
    kept = (rig.region == Region.FACE) & (moved > 0.002)
    for vertices in (rig.neutral.astype(np.float64), posed):
        fragments = rasterize_mesh(vertices, rig.faces, camera)
        pixels, depth = camera.project(vertices)
        columns, rows = np.clip(pixels.astype(int), 0, SIZE - 1).T
        surface = fragments.z_depth
        nearest = cv2.erode(np.where(surface > 0, surface, 9).astype(np.float32), np.ones((5, 5)))
        kept &= np.abs(depth - nearest[rows, columns]) < 0.004
    return rig.neutral[kept].astype(np.float64), pixels[kept]


@pytest.mark.parametrize("azimuth", [0, 30, -60])
def test_the_skin_moves_as_the_rig_does(rig, animate, azimuth) -> None:
    camera = _close_up(azimuth)
    rest, pixels = _tracked_points(rig, camera, TALK)
    assert len(rest) > 100
    frame = _frame(animate(camera), TALK)[..., :3].astype(np.float32) / 255
    found = cv2.remap(
        frame, *(pixels.T.astype(np.float32)[:, None] - 0.5), cv2.INTER_LINEAR
    )[0]  # fmt: skip
    distance = np.linalg.norm((found * SPAN + LOW) - rest, axis=1)
    assert np.median(distance) < 0.0025, "the painted positions have steps of 2.7 mm"
    assert np.percentile(distance, 90) < 0.006


def test_two_views_driven_alike_show_the_same_expression(rig, animate) -> None:
    """Where both cameras see a moved skin point, both frames show the same paint there."""
    paints = []
    cameras = [_close_up(-15), _close_up(15)]
    for camera in cameras:
        rest, pixels = _tracked_points(rig, camera, TALK)
        frame = _frame(animate(camera), TALK)[..., :3].astype(np.float32)
        seen = cv2.remap(frame, *(pixels.T.astype(np.float32)[:, None] - 0.5), cv2.INTER_LINEAR)[0]
        paints.append({tuple(p): c for p, c in zip(rest.tolist(), seen, strict=True)})
    common = paints[0].keys() & paints[1].keys()
    assert len(common) > 80
    difference = np.array([paints[0][k] - paints[1][k] for k in common])
    assert np.median(np.abs(difference).max(1)) < 3, "of 255"


@pytest.mark.parametrize("azimuth", [0, 60])
def test_the_window_covers_everything_that_shipped_clips_move(rig, animate, azimuth) -> None:
    camera = _close_up(azimuth)
    left, top, width, height = animate(camera).window
    at_rest, _ = camera.project(rig.neutral.astype(np.float64))
    for name in ("speech", "mixed", "surprise", "frown"):
        clip = load_clip(name)
        rows = telling_frames(clip, 4)
        neck = torch.zeros(len(rows), 3)
        posed = rig.pose({"actions": torch.from_numpy(clip.actions[rows]), "neck": neck}).numpy()
        for vertices in posed:
            pixels, _ = camera.project(vertices.astype(np.float64))
            moving = np.linalg.norm(vertices - rig.neutral, axis=1) > 0.0007
            moving &= ((at_rest > 0) & (at_rest < SIZE)).all(1)
            inside = (pixels[moving] >= [left, top]) & (
                pixels[moving] <= [left + width, top + height]
            )
            assert inside.all(), name


def test_only_what_the_action_moves_changes(rig, animate) -> None:
    camera = _close_up(0)
    animator = animate(camera)
    still, spoken = _frame(animator, {}), _frame(animator, {"jawOpen": 0.7})
    marks = camera.project(rig.landmarks(torch.from_numpy(rig.neutral)).numpy().astype(float))[0]
    above_eyes = np.arange(SIZE) < marks[19:25, 1].min()
    np.testing.assert_array_equal(spoken[above_eyes], still[above_eyes])
    jaw = np.s_[int(marks[57, 1]) : int(marks[8, 1]), int(marks[48, 0]) : int(marks[54, 0])]
    assert (spoken[jaw] != still[jaw]).any(-1).mean() > 0.5


def test_a_wink_closes_one_eye_with_lid_skin(fitted, animate, rig) -> None:
    """Eyeballs are painted by the picture; a closed lid must not carry their paint."""
    camera = _close_up(0)
    paint = np.tile(np.float32([0.8, 0.5, 0.4]), (len(rig.neutral), 1))
    paint[rig.region == Region.EYE] = [0, 0, 1]
    fragments = rasterize_mesh(rig.neutral, rig.faces, camera)
    picture = interpolate(torch.from_numpy(paint), rig.faces, fragments).numpy()
    picture = np.dstack([picture, fragments.covered])
    animator = ViewAnimator(
        rig, paint, fitted.colour.material, camera, (picture * 255).astype(np.uint8), SIZE
    )
    marks = camera.project(rig.landmarks(torch.from_numpy(rig.neutral)).numpy().astype(float))[0]

    def blue(frame: np.ndarray, eye: slice) -> int:
        low, high = marks[eye].min(0).astype(int) - 2, marks[eye].max(0).astype(int) + 3
        window = frame[low[1] : high[1], low[0] : high[0]].astype(int)
        return int((window[..., 2] > window[..., 0]).sum())

    opened, winked = _frame(animator, {}), _frame(animator, {"eyeBlinkLeft": 1.0})
    left, right = slice(42, 48), slice(36, 42)
    assert blue(opened, left) > 20
    assert blue(winked, left) < 0.15 * blue(opened, left)
    assert abs(blue(winked, right) - blue(opened, right)) < 0.1 * blue(opened, right)


def test_an_opening_mouth_shows_what_the_surface_knows_not_stretched_lips(
    fitted, rig, animate
) -> None:
    camera = _close_up(0)
    animator = animate(camera)
    frame = _frame(animator, {"jawOpen": 0.9})
    posed = rig.pose(rig.parameters_from_actions({"jawOpen": 0.9}))[0].numpy()
    fragments = rasterize_mesh(posed, rig.faces, camera)
    teeth = fragments.covered & (rig.region[rig.faces[fragments.face, 0]] == Region.TEETH)
    teeth = cv2.erode(teeth.astype(np.uint8), np.ones((3, 3), np.uint8)) > 0
    assert teeth.sum() > 10
    own = interpolate(
        torch.from_numpy(_colour_of(rig.neutral.astype(np.float64))), rig.faces, fragments
    ).numpy()
    assert np.abs(frame[..., :3] / 255 - own)[teeth].max() < 0.03


def test_equal_actions_give_equal_bytes(animate) -> None:
    camera = _close_up(20)
    one, two = (_frame(animate(camera), TALK) for _ in range(2))
    assert one.tobytes() == two.tobytes()


def _clip(actions: np.ndarray) -> MotionClip:
    full = np.zeros((len(actions), 52), np.float32)
    full[:, : actions.shape[1]] = actions
    return MotionClip("x", 30, full, np.zeros((len(actions), 3), np.float32))


def test_telling_frames_are_the_extremes() -> None:
    ramp = np.zeros((50, 2), np.float32)
    ramp[:25, 0] = np.linspace(0, 1, 25)
    ramp[25:, 1] = np.linspace(0, 0.9, 25)
    assert telling_frames(_clip(ramp), 1).tolist() == [24]
    three = telling_frames(_clip(ramp), 3)
    assert three.tolist()[1:] == [24, 49] or {24, 49} < set(three.tolist())
    actions = _clip(ramp).actions[three]
    assert np.linalg.norm(actions, axis=1).min() < 0.5, "neutral is far from both extremes"


def test_telling_frames_rise_are_distinct_and_cover_the_clip() -> None:
    clip = load_clip("mixed")
    for count in (1, 2, 6, 20):
        chosen = telling_frames(clip, count)
        assert len(chosen) == count and (np.diff(chosen) > 0).all()
        np.testing.assert_array_equal(chosen, telling_frames(clip, count))
    assert telling_frames(clip, 10_000).tolist() == list(range(clip.n_frames))

    chosen = clip.actions[telling_frames(clip, 8)]
    to_chosen = np.linalg.norm(clip.actions[:, None] - chosen[None], axis=-1).min(1)
    apart = np.linalg.norm(chosen[:, None] - chosen[None], axis=-1) + 9 * np.eye(8)
    assert to_chosen.max() <= apart.min() + 1e-6, "nothing left is farther than they are apart"
    assert len(set(telling_frames(_clip(np.zeros((5, 1))), 4).tolist())) == 4, "no motion at all"


def test_the_configuration_names_its_options() -> None:
    for options, name in (
        ({"clips": ()}, "video.clips"),
        ({"clips": ("yodelling",)}, "yodelling"),
        ({"frames_per_clip": 0}, "video.frames_per_clip"),
        ({"frame_size": 8}, "video.frame_size"),
    ):
        with pytest.raises(ConfigError, match=name):
            ActionsVideoConfig(**options)
    assert REFERENCE not in ActionsVideoConfig().clips
