"""Where a person's splats start: on the completed surface, with the completed views' colours."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from fc4d_ray.avatar.binding import Attachment
from fc4d_ray.avatar.gaussians import Gaussians, concatenate
from fc4d_ray.avatar.initialise import folded_to_rest, initialise_on_surface
from fc4d_ray.avatar.stretch import triangle_shape
from fc4d_ray.avatar.surface_samples import (
    SurfaceSampleConfig,
    SurfaceSamples,
    colours_from_views,
    interpolate_vertices,
    sample_surface,
    spacing_per_face,
    visible_faces,
)
from fc4d_ray.cameras import Camera, orbit_azimuths, orbit_camera
from fc4d_ray.heads.rig import HeadRig, Region
from fc4d_ray.images import read_depth, read_png
from fc4d_ray.priors.shape.bust import presence
from fc4d_ray.priors.shape.views import REFERENCE, read_cameras
from fc4d_ray.rendering.mesh import face_areas, vertex_normals
from fc4d_ray.stages.person_files import PersonFiles

_REFERENCE_WEIGHT = 4.0
"""How much more the portrait's own pixels count when splats get their first colour."""

_SHUT_EYES = {"eyeBlinkLeft": 1.0, "eyeBlinkRight": 1.0}

SHOWING_POSES: tuple[dict[str, float], ...] = (
    {},
    {"jawOpen": 0.9, "mouthUpperUpLeft": 0.6, "mouthUpperUpRight": 0.6},
    {"mouthSmileLeft": 1.0, "mouthSmileRight": 1.0, "jawOpen": 0.25},
    {**_SHUT_EYES, "browInnerUp": 1.0},
)
"""Expressions that between them show lids, teeth and mouth."""

_LID_SHARE = 0.3
"""Skin that moves by more than this share of a blink's largest way belongs to the lids."""
_FOLDED = 1.4
"""Folding skin that grows to so many times its area shows a portrait too little of its colour."""
_UNFOLDS = 1.8
"""Skin that grows to so many times its area has its splats laid out where it is widest."""


def lay_out(
    rig: HeadRig, config: SurfaceSampleConfig, seed: int, attachment: Attachment
) -> SurfaceSamples:
    """Sample points on every part of the rig that can come into sight.

    Distances hold where a part is widest if its splats spread with it (``affine`` attachment).
    """
    around = [
        orbit_camera(azimuth, elevation, size=512)
        for elevation, count in ((0, 24), (35, 8), (-30, 8), (70, 3))
        for azimuth in orbit_azimuths(count)
    ]
    frontal = ((0, 0), (35, 0), (-35, 0), (0, -20), (0, 20))
    front = [orbit_camera(azimuth, elevation, size=512) for azimuth, elevation in frontal]
    poses = []
    for actions in SHOWING_POSES:
        vertices = rig.pose(rig.parameters_from_actions(actions))[0].numpy()
        poses.append((vertices, front if actions else around))
    chosen = visible_faces(poses, rig.faces)
    chosen &= presence(rig.neutral)[rig.faces].max(1) > 0.02
    landmarks = rig.landmarks(torch.from_numpy(rig.neutral)).numpy()
    spacing = spacing_per_face(rig.neutral, rig.faces, rig.region, landmarks, config)
    grown = None
    if attachment == "affine":
        _, grown = widest_poses(rig, SHOWING_POSES, _UNFOLDS)
    return sample_surface(rig.neutral, rig.faces, spacing, chosen, seed, grown)


def widest_poses(
    rig: HeadRig, poses: tuple[dict[str, float], ...], ratio: float
) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
    """Where faces unfold (lids, inner lips): the pose (F,) a face is largest in, and how large.

    Sizes (F,) are in areas at rest. Faces that stay below ``ratio`` have pose -1 and size 1.
    """
    rest = np.maximum(face_areas(rig.neutral.astype(np.float64), rig.faces), 1e-12)
    posed = (rig.pose(rig.parameters_from_actions(actions))[0] for actions in poses)
    grown = np.stack([face_areas(vertices.double().numpy(), rig.faces) for vertices in posed])
    grown /= rest
    unfolds = grown.max(0) > ratio
    return np.where(unfolds, grown.argmax(0), -1), np.where(unfolds, grown.max(0), 1.0)


def folding_faces(rig: HeadRig) -> NDArray[np.float64]:
    """How many times its area at rest a face (F,) reaches where skin folds, 1 elsewhere.

    Lids fold, and whatever else of the head grows to more than ``_UNFOLDS`` times its area.
    """
    _, grown = widest_poses(rig, SHOWING_POSES, 1.0)
    shut = rig.pose(rig.parameters_from_actions(_SHUT_EYES))[0].numpy()
    way = np.linalg.norm(shut - rig.neutral, axis=1) * (rig.region == Region.FACE)
    is_lid = (way > _LID_SHARE * way.max())[rig.faces].any(1)
    return np.where(is_lid | (grown > _UNFOLDS), grown, 1.0)


def splats_on_surface(
    person: PersonFiles,
    samples: SurfaceSamples,
    shape: Path,
    image: Path,
    attachment: Attachment,
) -> Gaussians:
    """Splats with the colours of the completed views, as opaque as the bust's fade allows."""
    rig = person.rig
    faces = torch.as_tensor(rig.faces).long()
    vertices = torch.from_numpy(rig.neutral)
    normals = vertex_normals(vertices, faces).numpy()
    points = samples.points(rig.neutral, rig.faces)
    completed = interpolate_vertices(samples, person.colour, rig.faces)
    colours = colours_from_views(
        points,
        interpolate_vertices(samples, normals, rig.faces),
        _pictures(shape, image),
        completed,
    )
    # Folded skin lies so close behind what hides it that depth cannot tell them apart.
    folded = (folding_faces(rig) > _FOLDED)[samples.face_index]
    colours[folded] = completed[folded]
    gaussians = _round_where_widest(rig, samples, colours, attachment)
    opacity = (0.95 * presence(points)).clip(0.005, 0.95)
    return replace(gaussians, opacity_logits=torch.logit(torch.from_numpy(opacity).float()))


def _round_where_widest(
    rig: HeadRig, samples: SurfaceSamples, colours: NDArray, attachment: Attachment
) -> Gaussians:
    """Splats that are round at rest or, on skin that unfolds and takes them along, unfolded."""
    faces = torch.as_tensor(rig.faces).long()
    rest = torch.from_numpy(rig.neutral)
    pose = np.full(len(samples.face_index), -1)
    if attachment == "affine":
        pose = widest_poses(rig, SHOWING_POSES, _UNFOLDS)[0][samples.face_index]
    parts, places = [], []
    for index in np.unique(pose):
        rows = np.flatnonzero(pose == index)
        vertices = rest
        if index >= 0:
            vertices = rig.pose(rig.parameters_from_actions(SHOWING_POSES[index]))[0]
        laid_out = initialise_on_surface(
            vertices, faces, torch.from_numpy(samples.face_index[rows]),
            torch.from_numpy(samples.barycentric[rows]), torch.from_numpy(colours[rows]),
            torch.from_numpy(samples.spacing[rows]),
        )  # fmt: skip
        if index >= 0:
            shapes = (triangle_shape(v, faces) for v in (vertices, rest))
            laid_out = folded_to_rest(laid_out, *shapes)
        parts.append(laid_out)
        places.append(rows)
    return concatenate(parts).select(torch.from_numpy(np.argsort(np.concatenate(places))))


def _pictures(shape, image) -> list[tuple[Camera, NDArray[np.uint8], NDArray[np.float32], float]]:
    pictures = []
    for named in read_cameras(shape):
        depth = read_depth(shape / "depth" / f"{named.name}.png", named.depth_unit_m)
        weight = _REFERENCE_WEIGHT if named.name == REFERENCE else 1.0
        picture = read_png(image / "views" / f"{named.name}.png")
        pictures.append((named.camera, picture, depth, weight))
    return pictures
