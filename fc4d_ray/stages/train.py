"""Sixth stage: splats on the tracked mesh, trained with COIN (paper section 3.4)."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import torch

from fc4d_ray.assets.registry import file_digest
from fc4d_ray.avatar.avatar import Avatar
from fc4d_ray.avatar.config import TrainConfig
from fc4d_ray.avatar.initialise import initialise
from fc4d_ray.avatar.structure import require_backbone
from fc4d_ray.avatar.surface_samples import SurfaceSampleConfig
from fc4d_ray.avatar.trainer import TrainResult, train_avatar
from fc4d_ray.stages.person_files import read_person
from fc4d_ray.stages.protocol import Facts, StageContext
from fc4d_ray.stages.surface_start import folding_faces, lay_out, splats_on_surface
from fc4d_ray.stages.track_flame import tracked_rig
from fc4d_ray.stages.training_frames import PersonFrames


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
    version = "3"

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
        tracked = tracked_rig(context.inputs["track"])
        if tracked is not None:
            person = person.on(tracked)
        rig = person.rig
        context.progress(0.0, "laying out splats")
        if config.start == "faces":
            gaussians = initialise(
                len(rig.faces),
                sh_degree=config.sh_degree,
                generator=torch.Generator().manual_seed(context.seed),
            )
        else:
            samples = lay_out(rig, config.surface, context.seed, config.attachment)
            gaussians = splats_on_surface(person, samples, shape, image, config.attachment)
        frames = PersonFrames(shape, image, context.inputs["video"], context.inputs["track"], rig)
        result = train_avatar(
            rig, frames, gaussians, config, context.seed,
            checkpoint_dir=context.checkpoint, progress=context.progress,
            output_dir=context.output,
            grown=folding_faces(rig) if config.attachment == "affine" else None,
        )  # fmt: skip
        metadata = {"avatar_id": context.row.get("avatar_id", ""), "seed": context.seed}
        Avatar(result.gaussians, rig, metadata, config.attachment).save(context.output)
        return _facts(context, result)


def _facts(context: StageContext, result: TrainResult) -> Facts:
    (context.output / "train.json").write_text(json.dumps(result.facts, indent=1, sort_keys=True))
    kept = ("n_splats", "steps", "structure_loss", "psnr_reference", "psnr_static")
    return {name: result.facts[name] for name in kept}
