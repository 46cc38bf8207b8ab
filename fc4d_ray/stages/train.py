"""Sixth stage: splats on the tracked mesh, trained with COIN (paper section 3.4)."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from fc4d_ray.assets.registry import file_digest
from fc4d_ray.avatar.avatar import Avatar
from fc4d_ray.avatar.config import TrainConfig
from fc4d_ray.avatar.gaussians import Gaussians
from fc4d_ray.avatar.initialise import initialise, initialise_on_surface
from fc4d_ray.avatar.structure import require_backbone
from fc4d_ray.avatar.surface_samples import (
    SurfaceSampleConfig,
    SurfaceSamples,
    colours_from_views,
    interpolate_vertices,
    sample_surface,
    spacing_per_face,
    visible_faces,
)
from fc4d_ray.avatar.trainer import TrainResult, train_avatar
from fc4d_ray.cameras import Camera, orbit_azimuths, orbit_camera
from fc4d_ray.heads.rig import HeadRig
from fc4d_ray.images import read_depth, read_png
from fc4d_ray.priors.shape.bust import presence
from fc4d_ray.priors.shape.views import REFERENCE, read_cameras
from fc4d_ray.rendering.mesh import vertex_normals
from fc4d_ray.stages.person_files import PersonFiles, read_person
from fc4d_ray.stages.protocol import Facts, StageContext
from fc4d_ray.stages.training_frames import PersonFrames

_REFERENCE_WEIGHT = 4.0
"""How much more the portrait's own pixels count when splats get their first colour."""

_SHOWING_POSES: tuple[dict[str, float], ...] = (
    {},
    {"jawOpen": 0.9, "mouthUpperUpLeft": 0.6, "mouthUpperUpRight": 0.6},
    {"mouthSmileLeft": 1.0, "mouthSmileRight": 1.0, "jawOpen": 0.25},
    {"eyeBlinkLeft": 1.0, "eyeBlinkRight": 1.0, "browInnerUp": 1.0},
)
"""Expressions that between them show lids, teeth and mouth."""


@dataclass(frozen=True)
class TrainStageConfig(TrainConfig):
    """The train stage: the trainer's options and how splats are laid out at the start."""

    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid"}

    start: Literal["surface", "faces"] = "surface"
    """``surface``: splats lie on the completed surface and have its colours. ``faces``: one grey
    splat in the middle of every triangle, as in GaussianAvatars."""
    surface: SurfaceSampleConfig = field(default_factory=SurfaceSampleConfig)
    """Distances between splats on the surface they start from (``start: surface``)."""


class TrainStage:
    """``rig.npz`` (the avatar), ``curves.csv`` and previews."""

    name = "train"
    requires: tuple[str, ...] = ("shape", "image", "video", "track")
    version = "1"

    def weights_digest(self, config: TrainStageConfig) -> str:
        """Of the structural loss' backbone; its bytes count, not where it lies."""
        coin = config.coin
        is_used = coin.enabled and config.coin_steps > 0 and coin.structure_weight > 0
        needs_backbone = coin.structure in ("auto", "lpips_alex", "lpips_vgg")
        if coin.lpips_backbone is None or not (is_used and needs_backbone):
            return "none"
        return file_digest(require_backbone(coin.structure, coin.lpips_backbone))

    def setup(self, config: TrainStageConfig) -> None:
        """Nothing to load."""

    def process(self, context: StageContext) -> Facts:
        config: TrainStageConfig = context.config
        shape, image = context.inputs["shape"], context.inputs["image"]
        person = read_person(shape)
        context.progress(0.0, "laying out splats")
        if config.start == "faces":
            gaussians = initialise(
                len(person.rig.faces),
                sh_degree=config.sh_degree,
                generator=torch.Generator().manual_seed(context.seed),
            )
        else:
            samples = lay_out(person.rig, config.surface, context.seed)
            gaussians = _initial_gaussians(person, samples, shape, image)
        frames = PersonFrames(
            shape, image, context.inputs["video"], context.inputs["track"], person.rig
        )
        result = train_avatar(
            person.rig, frames, gaussians, config, context.seed,
            checkpoint_dir=context.checkpoint, progress=context.progress,
            output_dir=context.output,
        )  # fmt: skip
        metadata = {"avatar_id": context.row.get("avatar_id", ""), "seed": context.seed}
        Avatar(result.gaussians, person.rig, metadata).save(context.output)
        return _facts(context, result)


def _facts(context: StageContext, result: TrainResult) -> Facts:
    (context.output / "train.json").write_text(json.dumps(result.facts, indent=1, sort_keys=True))
    kept = ("n_splats", "steps", "structure_loss", "psnr_reference", "psnr_static")
    return {name: result.facts[name] for name in kept}


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
    for actions in _SHOWING_POSES:
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
    rest = _areas(rig.neutral, rig.faces)
    unfolds = np.zeros(len(rig.faces), bool)
    for actions in poses:
        vertices = rig.pose(rig.parameters_from_actions(actions))[0].numpy()
        unfolds |= _areas(vertices, rig.faces) > ratio * rest
    return unfolds


def _areas(vertices: NDArray[np.floating], faces: NDArray[np.integer]) -> NDArray[np.floating]:
    a, b, c = (vertices[faces[:, i]] for i in range(3))
    return np.linalg.norm(np.cross(b - a, c - a), axis=1) + 1e-9


def _initial_gaussians(person: PersonFiles, samples: SurfaceSamples, shape, image) -> Gaussians:
    """Splats with the colours of the completed views."""
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
    folded = unfolding_faces(rig, _SHOWING_POSES)[samples.face_index]
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
