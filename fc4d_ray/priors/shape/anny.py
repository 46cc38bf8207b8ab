"""Shape prior ``anny``: the embedded head fitted to one portrait.

The fitted expression becomes the rig's rest: the person as photographed. Driving is relative to it
(paper section 3.3: relative expression): action ``a`` in 0…1 moves from the rest's value of that
action to 1.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from fc4d_ray.cameras import Camera, orbit_azimuths, orbit_camera, view_name
from fc4d_ray.errors import ConfigError
from fc4d_ray.heads.anny import AnnyHead
from fc4d_ray.heads.rig import HeadRig, Region
from fc4d_ray.priors.shape.bust import presence
from fc4d_ray.priors.shape.feature_alignment import align_features
from fc4d_ray.priors.shape.fitting import FitConfig, HeadFit, fit_head
from fc4d_ray.priors.shape.gaze import look_together
from fc4d_ray.priors.shape.head_outline import follow_outline
from fc4d_ray.priors.shape.lid_colour import lid_vertices, paint_lids
from fc4d_ray.priors.shape.mouth_clearance import clear_mouth
from fc4d_ray.priors.shape.outer_shell import OuterShell, ShellConfig, grow_outer_shell
from fc4d_ray.priors.shape.surface_colour import SurfaceColour, complete_surface_colour
from fc4d_ray.priors.shape.views import REFERENCE, ShapeView
from fc4d_ray.rendering.mesh import interpolate, rasterize_mesh


@dataclass(frozen=True)
class AnnyShapeConfig:
    """Shape stage of the embedded profile."""

    __pydantic_config__: ClassVar = {"extra": "forbid"}

    view_size: int = 512
    """Side of the 24 orbit views in pixels."""
    fit: FitConfig = field(default_factory=FitConfig)
    """Landmark fit."""
    shell: ShellConfig = field(default_factory=ShellConfig)
    """Hair and clothing around the fitted head."""

    def __post_init__(self) -> None:
        if not 64 <= self.view_size <= 2048:
            raise ConfigError(f"shape.view_size must lie in 64…2048, got {self.view_size}")


@dataclass(frozen=True)
class FittedPerson:
    """What the shape prior knows of one person."""

    rig: HeadRig
    """Head, teeth and outer shell at rest, in the head frame."""
    camera: Camera
    """The portrait's own camera, in the crop's pixels."""
    colour: SurfaceColour
    fit: HeadFit
    hair_thickness_m: float


def fit_person(
    head: AnnyHead,
    portrait: NDArray[np.uint8],  # [S, S, 3]
    matte: NDArray[np.uint8],  # [S, S]
    labels: NDArray[np.uint8],  # [S, S]
    landmarks: NDArray[np.floating],  # [68, 2] px
    config: AnnyShapeConfig,
    *,
    inside: NDArray[np.bool_] | None = None,  # [S, S], False beyond the source image's border
) -> FittedPerson:
    """Camera, identity, expression, outer shell and coarse colour of the portrayed person.

    Raises ``FitFailed`` where the landmarks are not those of a face.
    """
    inside = np.ones(matte.shape, bool) if inside is None else inside
    fit = fit_head(head, landmarks, portrait.shape[0], config.fit)
    bare = align_features(_rest_rig(head, fit), fit.camera, landmarks)
    bare = look_together(bare, fit.camera, portrait, landmarks)
    bare = follow_outline(bare, fit.camera, matte, labels, inside)
    shell = grow_outer_shell(bare, bare.neutral, fit.camera, matte, labels, config.shell)
    shell = clear_mouth(shell, bare)
    rig = _with_shell(bare, shell)
    mirror = _mirror_with_shell(head, shell)
    colour = complete_surface_colour(
        rig.neutral, rig.faces, rig.region, mirror, fit.camera, portrait, matte, labels,
        _colour_reliability(rig),
    )  # fmt: skip
    colour = paint_lids(rig, colour)
    return FittedPerson(rig, fit.camera, colour, fit, shell.hair_thickness_m)


def _mirror_with_shell(head: AnnyHead, shell: OuterShell) -> NDArray[np.int32]:
    """Mirror partners (V,); a shell vertex without one within a centimetre gets -1."""
    if not len(shell.vertices):
        return head.mirror
    distance, nearest = cKDTree(shell.vertices).query(shell.vertices * [-1.0, 1.0, 1.0])
    partner = np.where(distance < 0.01, nearest + len(head.mirror), -1)
    return np.concatenate([head.mirror, partner]).astype(np.int32)


def _colour_reliability(rig: HeadRig) -> NDArray[np.float32]:
    """How far each vertex's pixel tells the skin's own colour (V,).

    Lids mix with lashes and eyes; brows are no skin, and would darken what is filled from them.
    """
    brows = rig.landmarks(torch.from_numpy(rig.neutral)).numpy()[17:27]
    distance, _ = cKDTree(brows).query(rig.neutral)
    reliability = np.where(distance < 0.008, 0.03, 1.0)
    return np.where(lid_vertices(rig), 0.0, reliability).astype(np.float32)


def _rest_rig(head: AnnyHead, fit: HeadFit) -> HeadRig:
    """The bare rig whose neutral is the photographed expression."""
    rig = head.rig(fit.identity)
    parameters = rig.neutral_parameters()
    parameters["actions"] = torch.from_numpy(fit.actions)[None]
    rest = rig.pose(parameters)[0].numpy()
    return HeadRig(
        neutral=rest,
        faces=rig.faces,
        action_basis=_relative_basis(rig, fit.actions),
        action_names=rig.action_names,
        neck_pivot=rig.neck_pivot,
        neck_weight=rig.neck_weight,
        region=rig.region,
        landmark_faces=rig.landmark_faces,
        landmark_barycentric=rig.landmark_barycentric,
    )


_RELEASED = ("mouthSmile", "jawOpen", "mouthDimple", "mouthStretch", "mouthUpperUp")
_RELEASE = {"mouthPucker": 0.8, "mouthFunnel": 0.6, "mouthFrownLeft": 0.4, "mouthFrownRight": 0.4}
"""Share of a photographed smile that an opposite shape of the mouth takes back at full strength:
nobody purses lips while grinning."""


def _relative_basis(rig: HeadRig, rest: NDArray[np.float32]) -> NDArray[np.float32]:
    """Action offsets (A, V, 3) from the photographed expression."""
    basis = rig.action_basis * (1.0 - rest)[:, None, None]
    shown = np.array(
        [a if n.startswith(_RELEASED) else 0 for n, a in zip(rig.action_names, rest, strict=True)],
        np.float32,
    )
    smile = np.einsum("a,avc->vc", shown, rig.action_basis)
    for name, share in _RELEASE.items():
        basis[rig.action_names.index(name)] -= share * smile
    return basis.astype(np.float32)


def _with_shell(rig: HeadRig, shell: OuterShell) -> HeadRig:
    """Append the shell: hair turns with the head, clothing stays with the torso."""
    count = len(shell.vertices)
    height = shell.vertices[:, 1]
    hair_weight = np.clip((height + 0.17) / 0.11, 0, 1)
    weight = np.where(shell.region == Region.HAIR, hair_weight, 0.0)
    still = np.zeros((len(rig.action_basis), count, 3), np.float32)
    return HeadRig(
        neutral=np.concatenate([rig.neutral, shell.vertices]),
        faces=np.concatenate([rig.faces, shell.faces + len(rig.neutral)]).astype(np.int32),
        action_basis=np.concatenate([rig.action_basis, still], 1),
        action_names=rig.action_names,
        neck_pivot=rig.neck_pivot,
        neck_weight=np.concatenate([rig.neck_weight, weight]).astype(np.float32),
        region=np.concatenate([rig.region, shell.region]),
        landmark_faces=rig.landmark_faces,
        landmark_barycentric=rig.landmark_barycentric,
    )


def render_views(person: FittedPerson, config: AnnyShapeConfig) -> list[ShapeView]:
    """The 24 orbit views and, last, the portrait's own view."""
    cameras = [
        (view_name(azimuth), azimuth, orbit_camera(azimuth, size=config.view_size))
        for azimuth in orbit_azimuths()
    ]
    cameras.append((REFERENCE, person.fit.azimuth_deg, person.camera))
    return [_render_view(person, *named) for named in cameras]


def _render_view(person: FittedPerson, name: str, azimuth: float, camera: Camera) -> ShapeView:
    rig = person.rig
    faces = torch.as_tensor(rig.faces).long()
    fragments = rasterize_mesh(rig.neutral, rig.faces, camera)
    attributes = np.concatenate([person.colour.colour, presence(rig.neutral)[:, None]], 1)
    image = interpolate(torch.from_numpy(attributes), faces, fragments).numpy()
    covered = fragments.face >= 0
    image[~covered] = 0
    corner = fragments.barycentric.argmax(-1)
    vertex = rig.faces[np.maximum(fragments.face, 0), corner]
    material = np.where(covered, person.colour.material[vertex], 0).astype(np.uint8)
    rgba = (image.clip(0, 1) * 255 + 0.5).astype(np.uint8)
    return ShapeView(name, azimuth, camera, rgba, fragments.z_depth, material)
