from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch

from fc4d_ray.avatar.avatar import Avatar
from fc4d_ray.avatar.initialise import initialise_on_surface
from fc4d_ray.avatar.surface_samples import (
    colours_from_views,
    interpolate_vertices,
    sample_surface,
    visible_faces,
)
from fc4d_ray.cameras import Camera, orbit_camera
from fc4d_ray.evaluation.synthetic import SyntheticPerson, make_person
from fc4d_ray.heads.rig import HeadRig, Region
from fc4d_ray.rendering.mesh import vertex_normals

SHOWN = ({}, {"jawOpen": 1.0}, {"eyeBlinkLeft": 1.0, "eyeBlinkRight": 1.0})


@pytest.fixture(scope="session")
def person() -> SyntheticPerson:
    return make_person(2)


@pytest.fixture(scope="session")
def avatar_of() -> Callable[..., Avatar]:
    """``avatar_of(person, spacing_m, size)``: splats on the true surface with true colours."""
    return _avatar_of


@pytest.fixture(scope="session")
def faithful_avatar(person: SyntheticPerson) -> Avatar:
    """As good an avatar as can be had, untrained."""
    return _avatar_of(person, spacing_m=0.0016, size=320)


def _avatar_of(person: SyntheticPerson, spacing_m: float, size: int) -> Avatar:
    rig = _surface_rig(person)
    cameras = [orbit_camera(azimuth, size=size) for azimuth in (0, 40, -40, 110, -110, 180)]
    seen = [(camera, *person.render(camera), 1.0) for camera in cameras]
    poses = [(rig.pose(rig.parameters_from_actions(a))[0].numpy(), _around()) for a in SHOWN]
    chosen = visible_faces(poses, rig.faces)
    spacing = np.full(len(rig.faces), spacing_m)
    samples = sample_surface(rig.neutral, rig.faces, spacing, chosen, seed=0)
    vertices, faces = torch.from_numpy(rig.neutral), torch.as_tensor(rig.faces).long()
    normals = interpolate_vertices(samples, vertex_normals(vertices, faces).numpy(), rig.faces)
    points = samples.points(rig.neutral, rig.faces)
    hidden = _hidden_colours(rig.region[rig.faces[samples.face_index, 0]])
    gaussians = initialise_on_surface(
        vertices, faces, torch.from_numpy(samples.face_index),
        torch.from_numpy(samples.barycentric),
        torch.from_numpy(colours_from_views(points, normals, seen, hidden)),
        torch.from_numpy(samples.spacing), opacity=0.98,
    )  # fmt: skip
    return Avatar(gaussians, rig)


def _hidden_colours(region: np.ndarray) -> np.ndarray:
    """What no view at rest shows (N, 3): teeth, the mouth round them, grey elsewhere."""
    colours = np.full((len(region), 3), 0.4)
    colours[np.isin(region, (Region.MOUTH, Region.TONGUE))] = [0.16, 0.03, 0.03]
    colours[region == Region.TEETH] = [0.78, 0.74, 0.64]
    return colours


def _around() -> list[Camera]:
    return [
        orbit_camera(azimuth, elevation, size=384)
        for azimuth in range(-180, 180, 30)
        for elevation in (-20, 20)
    ]


def _surface_rig(person: SyntheticPerson) -> HeadRig:
    """Hair and clothing in the head model's topology."""
    model = person.head_rig
    count = len(model.neutral)
    basis = np.stack([(person.resampling @ action)[:count] for action in model.action_basis])
    neutral = person.rest[:count].astype(np.float32)
    return replace(model, neutral=neutral, action_basis=basis.astype(np.float32))
