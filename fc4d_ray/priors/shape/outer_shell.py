"""Hair, headwear and clothing: a closed shell around the fitted head, inflated from the matte.

A parametric head is bald and bare. What the portrait shows beyond it is given a plausible depth:
the matte's outline is inflated like a balloon (each point is as thick as the largest disc of the
silhouette that covers it), the skull's own depth and the hair's measured thickness set how far the
back reaches, and whatever would hide skin that the portrait shows is carved away.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from fc4d_ray.cameras import Camera
from fc4d_ray.errors import ConfigError
from fc4d_ray.heads.rig import HeadRig, Region
from fc4d_ray.images import smoothstep
from fc4d_ray.portraits.regions import CLOTHING, HAIR, SKIN
from fc4d_ray.priors.shape.hair_profile import fill_dents
from fc4d_ray.priors.shape.shell_surface import (
    pieces,
    surface_of,
    without_crumbs,
    without_hidden,
    without_scraps,
    without_unseen_pieces,
)
from fc4d_ray.rendering.mesh import rasterize_mesh


@dataclass(frozen=True)
class ShellConfig:
    """How the outer shell is made."""

    __pydantic_config__: ClassVar = {"extra": "forbid"}

    voxel_m: float = 0.0065
    """Edge of a voxel; also the size of the shell's triangles."""
    fringe_m: float = 0.006
    """Thickness of hair lying on the face or forehead."""
    max_hair_m: float = 0.05
    """Greatest thickness of hair assumed where it cannot be measured (crown, nape)."""
    forward: float = 0.55
    """How far hair beside the face comes forward, as a share of its inflated thickness."""
    forward_on_top: float = 0.9
    """The same above the forehead: a profile slopes up from a fringe like a dome, not a cone."""

    def __post_init__(self) -> None:
        if not 0.002 <= self.voxel_m <= 0.02:
            raise ConfigError(f"shape.shell.voxel_m must lie in 0.002…0.02, got {self.voxel_m}")


@dataclass(frozen=True)
class OuterShell:
    """The shell in the head frame."""

    vertices: NDArray[np.float32]  # [V, 3] metres
    faces: NDArray[np.int32]  # [F, 3]
    region: NDArray[np.uint8]  # [V] HAIR or CLOTHING (or NECK where skin bulges out of the model)
    hair_thickness_m: float
    """Median gap between skull and matte above the ears: 0 for a shaved head."""


_LOW = np.array([-0.25, -0.27, -0.24])
_HIGH = np.array([0.25, 0.26, 0.20])
_SHOULDER_Y = -0.115
_NAPE_Y = -0.052
_NAPE_SAG_M = 0.02
_NAPE_HALF_WIDTH_M = 0.06
_TAPER_M = 0.06
"""Height over which hair on the nape swells to the thickness of the back of the head."""
_SEEN_M = 0.025
"""Depth about the bare head within which the hair that a pixel shows must lie."""
_LEAST_HAIR_SHARE = 0.003
"""Share of the crop below which hair, hats included, is noise: nothing stands on this head."""
_ABOVE_EARS_Y = 0.03
"""Height in the head frame from which on hair is the head's own and not what hangs beside it."""
_TOP_Y = (0.05, 0.11)
"""Heights between which hair beside the face gives way to hair on top."""
_BARE_CROWN = 0.04
"""Share of hair on the head above the ears below which hair elsewhere is none of this head's."""
_HANGING_SHARE = 0.03
"""Share of the hair below the nape from which on hair is not short."""
_LEAST_WIDTH = 0.8
"""Half width, in voxels, of the thinnest thing that is kept."""
_TURNED_DEG = 12.0
_SMOOTHING_VOXELS = 1.1
"""Standard deviation of the blur before meshing: takes the voxels' steps out."""
_ONE_KIND = 0.7
"""Share of hair from which on a piece of the shell is hair altogether."""
_OUTER_SKIN = (Region.FACE, Region.SCALP, Region.EAR, Region.NECK, Region.BUST)


def grow_outer_shell(
    rig: HeadRig,
    rest: NDArray[np.floating],  # [V, 3] vertices as the portrait shows them
    camera: Camera,
    matte: NDArray[np.uint8],  # [S, S] 0…255
    labels: NDArray[np.uint8],  # [S, S] portraits/regions.py
    config: ShellConfig,
) -> OuterShell:
    """Shell of everything in the matte that the bare head does not explain."""
    view = _SilhouetteView(rig, rest, camera, matte, labels)
    grid, points = _grid(config.voxel_m)
    thickness = view.hair_thickness(config.max_hair_m)
    field, thin = _occupancy(points, view, thickness, config)
    field = without_scraps(field.reshape(grid))
    # The blur would take away what is hardly wider than a voxel: locks, ribbons, a scarf's end.
    smooth = ndimage.gaussian_filter(field, _SMOOTHING_VOXELS)
    field = np.maximum(smooth, field * thin.reshape(grid))
    vertices, faces = surface_of(field, config.voxel_m, _LOW)
    skin = np.isin(rig.region, _OUTER_SKIN)
    vertices, faces = without_hidden(vertices, faces, rest, rig.faces[skin[rig.faces].all(1)])
    vertices, faces = without_crumbs(vertices, faces)
    vertices, faces = without_unseen_pieces(vertices, faces, rest, rig.faces)
    region = _shell_regions(vertices, faces, view)
    return OuterShell(vertices.astype(np.float32), faces.astype(np.int32), region, thickness)


class _SilhouetteView:
    """What the portrait tells at a pixel: distance to the outline, disc radius, label, depth."""

    def __init__(self, rig, rest, camera: Camera, matte, labels) -> None:
        side = 256
        self.camera = camera.resized(side, side)
        self.metres_per_px = float(np.linalg.norm(camera.position)) / self.camera.K[0, 0]
        self.rest, self.region = rest, rig.region
        x, _, z = camera.position
        self.is_turned = abs(np.rad2deg(np.arctan2(x, z))) > _TURNED_DEG
        inside = cv2.resize(matte, (side, side), interpolation=cv2.INTER_AREA) > 127
        self.inside = inside
        # The crop's lower and side borders cut the body; that is no outline.
        pad = 80
        grown = np.pad(inside, ((pad, pad), (pad, pad)), mode="edge")
        grown[:pad] = False
        distance = cv2.distanceTransform(grown.astype(np.uint8), cv2.DIST_L2, 5)
        outside = cv2.distanceTransform((~grown).astype(np.uint8), cv2.DIST_L2, 5)
        window = (slice(pad, -pad), slice(pad, -pad))
        self.distance = ((distance - outside) * self.metres_per_px)[window]
        radius = _disc_radius(distance) * self.metres_per_px
        self.radius = cv2.GaussianBlur(radius, (0, 0), 4.0)[window]
        nearest = ndimage.distance_transform_edt(
            ~grown, return_distances=False, return_indices=True
        )
        self.own_radius = radius[tuple(nearest)][window]
        self.labels = cv2.resize(labels, (side, side), interpolation=cv2.INTER_NEAREST)
        self.bare_neck = _bare_neck(self.labels, self.inside)
        below_nape = self.camera.project(np.array([[0.0, _NAPE_Y, 0.0]]))[0][0, 1]
        hair = _main_part(self.labels == HAIR)
        hanging = hair[round(float(np.clip(below_nape, 0, side - 1))) :]
        self.is_short = bool(hanging.sum() < _HANGING_SHARE * hair.sum())
        self.head_depth = rasterize_mesh(rest, rig.faces, self.camera).z_depth
        skull = np.isin(rig.region, (Region.SCALP, Region.FACE, Region.EAR))
        bare = rasterize_mesh(rest, rig.faces[skull[rig.faces].all(1)], self.camera)
        self.skull_inside = bare.face >= 0
        self.ear_level = self.camera.project(np.array([[0.0, _ABOVE_EARS_Y, 0.0]]))[0][0, 1]
        crown = self.skull_inside & self.inside & (np.arange(side)[:, None] < self.ear_level)
        bare_crown = crown.any() and (self.labels[crown] == HAIR).mean() < _BARE_CROWN
        self.is_bald = bool(hair.mean() < _LEAST_HAIR_SHARE or bare_crown)

    def hair_thickness(self, limit: float) -> float:
        """Median gap between the skull's outline and the matte's, above the ears, metres."""
        rim = self.skull_inside & ~ndimage.binary_erosion(self.skull_inside)
        rows, columns = np.nonzero(rim)
        upper = rows < self.ear_level
        gap = self.distance[rows[upper], columns[upper]]
        hair = self.labels[rows[upper], columns[upper]] == HAIR
        if not hair.any():
            return 0.0
        return float(np.clip(np.median(gap[hair]), 0.0, limit) * min(1.0, 2 * hair.mean()))

    def sample(self, image: NDArray, pixels: NDArray, order: int = 1) -> NDArray:
        coordinates = (pixels[:, 1] - 0.5, pixels[:, 0] - 0.5)
        return ndimage.map_coordinates(image, coordinates, order=order, mode="nearest")


def _main_part(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The largest connected part of a mask."""
    parts, count = ndimage.label(mask)
    if count < 2:
        return mask
    return parts == 1 + int(np.argmax(np.bincount(parts.ravel())[1:]))


def _bare_neck(labels: NDArray[np.uint8], inside: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Skin pixels with no hair on both sides of them: nothing hangs down behind this neck."""
    hair = (labels == HAIR) & inside
    columns = np.arange(labels.shape[1])
    first = np.where(hair.any(1), hair.argmax(1), labels.shape[1])
    last = np.where(hair.any(1), labels.shape[1] - 1 - hair[:, ::-1].argmax(1), -1)
    flanked = (columns > first[:, None]) & (columns < last[:, None])
    return (labels == SKIN) & ~flanked


def _disc_radius(distance: NDArray[np.float32]) -> NDArray[np.float32]:
    """Radius of the largest inscribed disc that covers each pixel (granulometry by openings)."""
    radius = np.zeros_like(distance)
    for level in np.geomspace(2.0, max(distance.max(), 4.0), 14):
        eroded = (distance <= level).astype(np.uint8)
        if eroded.all():
            break
        opened = cv2.distanceTransform(eroded, cv2.DIST_L2, 5) <= level
        radius[opened] = level
    return np.maximum(radius, distance)


def _grid(voxel: float) -> tuple[tuple[int, int, int], NDArray[np.float32]]:
    axes = [np.arange(lo, hi, voxel) for lo, hi in zip(_LOW, _HIGH, strict=True)]
    points = np.stack(np.meshgrid(*axes, indexing="ij"), -1).astype(np.float32)
    return points.shape[:3], points.reshape(-1, 3)


def _occupancy(
    points: NDArray[np.float32], view: _SilhouetteView, thickness: float, config: ShellConfig
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Soft occupancy (N,) in 0…1, 0.5 on the surface, and (N,) how thin the silhouette is there."""
    pixels, depth = view.camera.project(points)
    outline = view.sample(view.distance, pixels)
    width = view.sample(view.own_radius, pixels)
    thin = 1 - smoothstep(width, 1.2 * config.voxel_m, 2.2 * config.voxel_m)
    radius = np.maximum(view.sample(view.radius, pixels), thin * width) + 1e-4
    # No farther in than the disc reaches: else the balloon's middle comes to a point.
    distance = np.clip(outline, 0, radius)
    label = view.sample(view.labels, pixels, order=0)
    head = view.sample(view.head_depth, pixels, order=0)

    middle, back_reach = _middle_plane(points, view, thickness)
    toward = middle - depth  # metres in front of the middle plane, along the viewing axis
    bulge = np.sqrt((distance * (2 * radius - distance)).clip(0, None))
    least = _LEAST_WIDTH * config.voxel_m
    bulge = np.maximum(bulge, thin * least)
    is_body = points[:, 1] < _SHOULDER_Y
    large = np.clip((radius - 0.035) / 0.035, 0, 1)
    behind = np.where(is_body, np.minimum(bulge, 0.11), bulge * (1 + (back_reach - 1) * large))
    if view.is_short:
        behind = behind * _nape_taper(points)
    is_top = smoothstep(points[:, 1], *_TOP_Y)
    forward = config.forward + (config.forward_on_top - config.forward) * is_top
    ahead = np.where(is_body, np.minimum(bulge, 0.10), bulge * (1 + (forward - 1) * large))
    # Hair lying on the head hugs it; clothing and long hair may stand off.
    on_head = (head > 0) & ~is_body
    front_of_head = middle - head
    ahead = np.where(on_head & (label == HAIR), front_of_head + config.fringe_m, ahead)
    margin = np.where(toward >= 0, ahead - toward, behind + toward)
    # At least as wide as the grid can hold; where nothing but the head's own edge is thin.
    widened = np.where(head > 0, 0, (least - width).clip(0, None))
    margin = np.minimum(margin, outline) + widened
    carved = _before_skin(points, view)
    if view.is_turned:
        # What the far side looks like nobody saw; it is as bare and as wide as its mirror image,
        # but for hair on the near surface, and what stands out beside the head for all to see.
        on_surface = (label == HAIR) & (head > 0) & (np.abs(depth - head) < _SEEN_M)
        beside = (outline > 0) & (head == 0) & np.isin(label, (HAIR, CLOTHING))
        mirrored = points * np.float32([-1, 1, 1])
        guessed = ~on_surface & ~beside
        carved |= _before_skin(mirrored, view) & guessed
        is_far = points[:, 0] * view.camera.position[0] < 0
        other = view.sample(view.distance, view.camera.project(mirrored)[0])
        margin = np.where(guessed & is_far & ~is_body, np.minimum(margin, other), margin)
    if view.is_bald:
        carved |= points[:, 1] > _nape_height(points[:, 0])
    margin = np.where(carved, -config.voxel_m, margin)
    occupancy = np.clip(0.5 + margin / (2 * config.voxel_m), 0, 1).astype(np.float32)
    may_fill = (label == HAIR) & (outline > 0) & ~carved
    occupancy = fill_dents(occupancy, points, may_fill, config.voxel_m)
    return occupancy, thin.astype(np.float32)


def _nape_taper(points: NDArray[np.float32]) -> NDArray[np.float64]:
    """Share (N,) of its full reach that short hair has behind: it closes in on the nape."""
    x, y = points[:, 0].astype(np.float64), points[:, 1].astype(np.float64)
    lowest = _nape_height(x)
    tapered = 0.5 + 0.5 * smoothstep(y, lowest, lowest + _TAPER_M)
    return np.where(y < _SHOULDER_Y, 1.0, tapered)


def _nape_height(x: NDArray[np.floating]) -> NDArray[np.float64]:
    """Height at which short hair ends behind: lower in the middle than behind the ears."""
    return _NAPE_Y - _NAPE_SAG_M * np.clip(1 - np.square(x / _NAPE_HALF_WIDTH_M), 0, 1)


def _before_skin(points: NDArray[np.float32], view: _SilhouetteView) -> NDArray[np.bool_]:
    """Where nothing may stand: before skin that the portrait shows, and behind a bare neck."""
    pixels, depth = view.camera.project(points)
    label = view.sample(view.labels, pixels, order=0)
    head = view.sample(view.head_depth, pixels, order=0)
    carved = (label == SKIN) & (head > 0) & (depth < head + 0.035)
    below_nape = points[:, 1] < _nape_height(points[:, 0])
    bare = view.sample(view.bare_neck.astype(np.uint8), pixels, order=0) > 0
    return carved | (below_nape & bare)


def _middle_plane(
    points: NDArray, view: _SilhouetteView, thickness: float
) -> tuple[NDArray, float]:
    """z-depth of the plane the outline lies in, per point, and the reach of the back over it."""
    rest, region = view.rest, view.region
    axis = view.camera.world_to_camera[2]
    skull = rest[np.isin(region, (Region.SCALP, Region.EAR, Region.FACE))]
    skull_depth = skull @ axis[:3] + axis[3]
    torso = rest[region == Region.BUST]
    middle_head = float(np.array([0.0, 0.0, -0.012]) @ axis[:3] + axis[3])
    middle_body = float(np.median(torso @ axis[:3] + axis[3]))
    blend = np.clip((points[:, 1] - _SHOULDER_Y) / 0.07, 0, 1)
    middle = middle_body + (middle_head - middle_body) * blend
    reach = skull_depth.max() + thickness - middle_head
    # In units of the disc radius that the silhouette really has there.
    radius = max(np.percentile(view.radius[view.skull_inside], 95), 0.5 * reach)
    return middle, float(reach / radius)


def _shell_regions(vertices: NDArray, faces: NDArray, view: _SilhouetteView) -> NDArray[np.uint8]:
    """Hair or clothing, by the label of the pixel a vertex projects to, hidden or not.

    A piece of its own, such as short hair above a bare neck, is one thing throughout.
    """
    if not len(vertices):
        return np.zeros(0, np.uint8)
    if view.is_bald:
        return np.full(len(vertices), Region.CLOTHING, np.uint8)
    pixels, _ = view.camera.project(vertices)
    # Nearest labelled pixel of the two: skin and background say nothing about the shell.
    known = (view.labels == HAIR) | (view.labels == CLOTHING)
    label = view.labels
    if known.any():
        _, (rows, columns) = ndimage.distance_transform_edt(~known, return_indices=True)
        label = view.labels[rows, columns]
    at_pixel = view.sample(label, pixels, order=0)
    hair = (at_pixel == HAIR) & (vertices[:, 1] > -0.24)
    own = view.sample(view.labels, pixels, order=0)
    hair |= (vertices[:, 1] > _NAPE_Y) & (own != CLOTHING)
    piece = pieces(len(vertices), faces)
    share = np.bincount(piece, hair) / np.bincount(piece)
    hair |= share[piece] > _ONE_KIND
    return np.where(hair, Region.HAIR, Region.CLOTHING).astype(np.uint8)
