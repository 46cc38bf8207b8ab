"""Where a person's splats start: on the completed surface, with the completed views' colours."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from fc4d_ray.avatar.gaussians import Gaussians
from fc4d_ray.avatar.initialise import initialise_on_surface
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
from fc4d_ray.heads.rig import HeadRig
from fc4d_ray.images import read_depth, read_png
from fc4d_ray.priors.shape.bust import presence
from fc4d_ray.priors.shape.views import REFERENCE, read_cameras
from fc4d_ray.rendering.mesh import face_areas, vertex_normals
from fc4d_ray.stages.person_files import PersonFiles

_REFERENCE_WEIGHT = 4.0
"""How much more the portrait's own pixels count when splats get their first colour."""

SHOWING_POSES: tuple[dict[str, float], ...] = (
    {},
    {"jawOpen": 0.9, "mouthUpperUpLeft": 0.6, "mouthUpperUpRight": 0.6},
    {"mouthSmileLeft": 1.0, "mouthSmileRight": 1.0, "jawOpen": 0.25},
    {"eyeBlinkLeft": 1.0, "eyeBlinkRight": 1.0, "browInnerUp": 1.0},
)
"""Expressions that between them show lids, teeth and mouth."""


def lay_out(rig: HeadRig, config: SurfaceSampleConfig, seed: int) -> SurfaceSamples:
    """Sample points on every part of the rig that can come into sight."""
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
    return sample_surface(rig.neutral, rig.faces, spacing, chosen, seed)


def unfolding_faces(
    rig: HeadRig, poses: tuple[dict[str, float], ...], ratio: float = 3.0
) -> NDArray[np.bool_]:
    """Faces (F,) that grow to ``ratio`` times their area in some pose: lids, inner lips."""
    rest = face_areas(rig.neutral, rig.faces)
    unfolds = np.zeros(len(rig.faces), bool)
    for actions in poses:
        vertices = rig.pose(rig.parameters_from_actions(actions))[0].numpy()
        unfolds |= face_areas(vertices, rig.faces) > ratio * rest
    return unfolds


def splats_on_surface(
    person: PersonFiles, samples: SurfaceSamples, shape: Path, image: Path
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
    folded = unfolding_faces(rig, SHOWING_POSES)[samples.face_index]
    colours[folded] = completed[folded]
    gaussians = initialise_on_surface(
        vertices, faces, torch.from_numpy(samples.face_index),
        torch.from_numpy(samples.barycentric), torch.from_numpy(colours),
        torch.from_numpy(samples.spacing),
    )  # fmt: skip
    opacity = (0.95 * presence(points)).clip(0.005, 0.95)
    return replace(gaussians, opacity_logits=torch.logit(torch.from_numpy(opacity).float()))


def _pictures(shape, image) -> list[tuple[Camera, NDArray[np.uint8], NDArray[np.float32], float]]:
    pictures = []
    for named in read_cameras(shape):
        depth = read_depth(shape / "depth" / f"{named.name}.png", named.depth_unit_m)
        weight = _REFERENCE_WEIGHT if named.name == REFERENCE else 1.0
        picture = read_png(image / "views" / f"{named.name}.png")
        pictures.append((named.camera, picture, depth, weight))
    return pictures
