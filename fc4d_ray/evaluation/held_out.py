"""An avatar against the synthetic person its portrait shows, at views nobody ever saw.

The pipeline finds its own pose and scale for a head, so the truth's cameras are first carried
into the avatar's frame by the similarity that lays its face on the true one. What is left is
error in shape, completion and colour.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fc4d_ray.avatar.avatar import Avatar
from fc4d_ray.avatar.splatting import render_splats
from fc4d_ray.cameras import Camera, orbit_camera, pixel_centres
from fc4d_ray.evaluation.pictures import picture_figures
from fc4d_ray.evaluation.synthetic import SyntheticPerson, similarity
from fc4d_ray.evaluation.wholeness import SILHOUETTE_ALPHA, above_fade, surface_image
from fc4d_ray.heads.rig import Region
from fc4d_ray.publishing.quality import CHIN

HELD_OUT_AZIMUTHS_DEG = (0.0, 30.0, -30.0, 60.0, -60.0, 90.0, 180.0)
_FACE_FRONT_Z_M = 0.02
"""Vertices of the true head in front of this plane lay the two faces on one another."""


@dataclass(frozen=True)
class HeldOutView:
    """One view of the avatar and of the truth, on white, and where they are compared."""

    azimuth_deg: float
    picture: NDArray[np.float32]  # [H, W, 3]
    truth: NDArray[np.float32]  # [H, W, 3]
    bust: NDArray[np.bool_]  # [H, W] where either shows something, above the bust's fade
    head: NDArray[np.bool_]  # [H, W] of it, what lies above the chin in the picture
    shared: NDArray[np.bool_]  # [H, W] of the head, what both show


def view_figures(view: HeldOutView) -> dict[str, dict[str, float]]:
    """``picture_figures`` of the ``head``, of what both ``shared`` of it, and of the ``bust``.

    Where only one of the two shows something, dark hair is compared with a white background.
    """
    return {
        name: picture_figures(view.picture, view.truth, getattr(view, name))
        for name in ("head", "shared", "bust")
    }


def held_out_views(
    avatar: Avatar,
    person: SyntheticPerson,
    azimuths_deg: Sequence[float] = HELD_OUT_AZIMUTHS_DEG,
    size: int = 512,
) -> list[HeldOutView]:
    """The avatar at rest beside the photographed person, from the orbit in the person's frame."""
    splats = avatar.splats({})
    white = splats.means.new_ones(3)
    estimated, true_face = _face_points(avatar.rig.neutral, person)
    chin = person.landmark_points()[CHIN]
    views = []
    for azimuth in azimuths_deg:
        camera = orbit_camera(azimuth, size=size)
        rgba, depth = person.render(camera)
        in_avatar = carried_camera(camera, estimated, true_face)
        drawn = render_splats(splats, in_avatar, white)
        alpha, points = surface_image(splats, in_avatar)
        true, drawn_in = rgba[..., 3] > 127, alpha > SILHOUETTE_ALPHA
        upper = above_fade(points) & above_fade(_true_points(camera, depth))
        bust = (true | drawn_in) & upper
        head = bust.copy()
        head[int(camera.project(chin)[0][1]) :] = False
        picture = drawn.image.clamp(0, 1).cpu().numpy()
        shared = head & true & drawn_in
        views.append(HeldOutView(azimuth, picture, _on_white(rgba), bust, head, shared))
    return views


def carried_camera(
    camera: Camera,
    points: NDArray[np.floating],  # [N, 3] in the new frame
    targets: NDArray[np.floating],  # [N, 3] the same points in the camera's own frame
) -> Camera:
    """The camera in the frame of ``points``: the similarity that lays them on ``targets`` undone.

    Distances are then in the new frame's unit, pixels stay the same.
    """
    linear, shift = _similarity_map(points, targets)
    scale = np.cbrt(np.linalg.det(linear))
    rotation, translation = camera.world_to_camera[:3, :3], camera.world_to_camera[:3, 3]
    matrix = np.eye(4)
    matrix[:3, :3] = rotation @ linear / scale
    matrix[:3, 3] = (rotation @ shift + translation) / scale
    return Camera(camera.K, matrix, camera.width, camera.height)


def _similarity_map(
    points: NDArray[np.floating], targets: NDArray[np.floating]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """``linear`` (3, 3) and ``shift`` (3,) of ``similarity``, read off from what it did."""
    points = np.asarray(points, np.float64)
    moved = similarity(points, np.asarray(targets, np.float64))
    centre, moved_centre = points.mean(0), moved.mean(0)
    solution, *_ = np.linalg.lstsq(points - centre, moved - moved_centre, rcond=None)
    linear = solution.T
    return linear, moved_centre - linear @ centre


def _face_points(
    vertices: NDArray[np.floating], person: SyntheticPerson
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Corresponding points on the front of the estimated and of the true bare face."""
    model = person.head_rig
    true = model.neutral.astype(np.float64)
    front = (model.region == Region.FACE) & (true[:, 2] > _FACE_FRONT_Z_M)
    return np.asarray(vertices, np.float64)[: len(true)][front], true[front]


def _true_points(camera: Camera, depth: NDArray[np.floating]) -> NDArray[np.float64]:
    points = camera.unproject(pixel_centres(camera.width, camera.height), depth.astype(np.float64))
    points[depth == 0] = np.nan
    return points


def _on_white(rgba: NDArray[np.uint8]) -> NDArray[np.float32]:
    values = rgba.astype(np.float32) / 255
    return values[..., :3] * values[..., 3:] + 1 - values[..., 3:]
