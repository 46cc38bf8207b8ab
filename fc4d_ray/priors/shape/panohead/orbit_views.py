"""Coarse views of an inverted portrait, with masks, depth and materials."""

from __future__ import annotations

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from fc4d_ray.cameras import Camera, orbit_azimuths, view_name
from fc4d_ray.heads.rig import Region
from fc4d_ray.priors.shape.anny import FittedPerson
from fc4d_ray.priors.shape.bust import presence
from fc4d_ray.priors.shape.panohead.alignment import Alignment
from fc4d_ray.priors.shape.panohead.config import PanoHeadShapeConfig
from fc4d_ray.priors.shape.panohead.inversion import LatentStatistics, with_offset
from fc4d_ray.priors.shape.panohead.labels import move_camera, orbit_label
from fc4d_ray.priors.shape.panohead.person import RenderedView
from fc4d_ray.priors.shape.panohead.portrait_inversion import InvertedPerson
from fc4d_ray.priors.shape.views import REFERENCE, ShapeView

_INNER = (Region.TEETH, Region.TONGUE, Region.MOUTH)


def orbit_views(
    inverted: InvertedPerson, statistics: LatentStatistics, config: PanoHeadShapeConfig
) -> list[ShapeView]:
    """The 24 orbit views in PanoHead's own framing and, last, the portrait's own view."""
    person = inverted.person
    device = next(person.generator.parameters()).device
    with torch.no_grad():
        front = torch.from_numpy(orbit_label(0))[None].to(device)
        offset = with_offset(person.generator, statistics, front) - front
    azimuths = orbit_azimuths()
    cameras = []
    for azimuth in azimuths:
        label = torch.from_numpy(orbit_label(azimuth)).to(device)
        moved = move_camera(label, offset[0, [3, 7, 11]]).cpu().numpy()
        cameras.append(person.placement.camera(moved, config.view_size))
    rendered = person.render(cameras, config.depth_size, config.view_batch)
    materials = _Materials(inverted.fitted)
    views = [
        _shape_view(view_name(azimuth), azimuth, camera, view, materials)
        for azimuth, camera, view in zip(azimuths, cameras, rendered, strict=True)
    ]
    views.append(_reference_view(inverted, config, materials))
    return views


class _Materials:
    """What a point of the head is made of: the nearest outer vertex of the fitted head tells."""

    def __init__(self, fitted: FittedPerson) -> None:
        outer = ~np.isin(fitted.rig.region, _INNER)
        self._tree = cKDTree(fitted.rig.neutral[outer])
        self._material = fitted.colour.material[outer]

    def of(self, view_depth: NDArray[np.float32], camera: Camera) -> NDArray[np.uint8]:
        """Labels (H, W), 0 where there is nothing."""
        labels = np.zeros(view_depth.shape, np.uint8)
        rows, columns = np.nonzero(view_depth)
        pixels = np.stack([columns, rows], -1) + 0.5
        points = camera.unproject(pixels, view_depth[rows, columns].astype(np.float64))
        labels[rows, columns] = self._material[self._tree.query(points)[1]]
        return labels


def _reference_view(
    inverted: InvertedPerson, config: PanoHeadShapeConfig, materials: _Materials
) -> ShapeView:
    """The portrait's own camera: super-resolved within PanoHead's frame, raw around it."""
    camera = inverted.alignment.reference
    person = inverted.person
    whole = person.render_raw(camera, config.depth_size)
    size = person.generator.settings.output_size
    frame_camera = _frame_camera(inverted.alignment, size)
    (frame,) = person.render([frame_camera], config.depth_size)
    # Both cameras share their centre: pixels correspond through directions alone.
    turn = frame_camera.K @ frame_camera.world_to_camera[:3, :3]
    turn = turn @ np.linalg.inv(camera.K @ camera.world_to_camera[:3, :3])
    half = np.array([[1, 0, 0.5], [0, 1, 0.5], [0, 0, 1]])
    turn = np.linalg.inv(half) @ turn @ half
    target = (camera.width, camera.height)
    flags = cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP
    drawn = cv2.warpPerspective(
        frame.rgb, turn, target, flags=flags, borderMode=cv2.BORDER_REPLICATE
    )
    inside = cv2.warpPerspective(
        np.ones((size, size), np.float32),
        turn,
        target,
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
    )[..., None]
    rgb = (drawn * inside + whole.rgb * (1 - inside) + 0.5).astype(np.uint8)
    azimuth = float(np.rad2deg(np.arctan2(camera.position[0], camera.position[2])))
    return _shape_view(
        REFERENCE, azimuth, camera, RenderedView(rgb, whole.mask, whole.depth), materials
    )


def _frame_camera(alignment: Alignment, size: int) -> Camera:
    """PanoHead's frame as a camera of the head frame: at the reference's centre."""
    placement = alignment.placement(alignment.label)
    return placement.camera(alignment.label, size)


def _shape_view(
    name: str, azimuth: float, camera: Camera, view: RenderedView, materials: _Materials
) -> ShapeView:
    alpha = view.mask
    rows, columns = np.nonzero(view.depth)
    pixels = np.stack([columns, rows], -1) + 0.5
    points = camera.unproject(pixels, view.depth[rows, columns].astype(np.float64))
    fade = np.ones_like(alpha)
    fade[rows, columns] = presence(points)
    alpha = (alpha * fade * 255 + 0.5).astype(np.uint8)
    rgba = np.dstack([view.rgb, alpha])
    return ShapeView(name, azimuth, camera, rgba, view.depth, materials.of(view.depth, camera))
