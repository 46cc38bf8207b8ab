"""Third stage, variant ``diffusion``: coarse views made sharp and consistent by a text-to-image
model that is held to the portrait (paper section 3.2)."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import torch

from fc4d_ray.images import write_png
from fc4d_ray.portraits.dlib_models import FaceModels
from fc4d_ray.priors.image.classical import CompletedView, reference_view
from fc4d_ray.priors.image.diffusion.backbone import DiffusionBackbone
from fc4d_ray.priors.image.diffusion.config import DiffusionImageConfig
from fc4d_ray.priors.image.diffusion.gates import dlib_face_score
from fc4d_ray.priors.image.diffusion.loading import weights_digest
from fc4d_ray.priors.image.diffusion.prior import EnhancedView, MultiviewPrior
from fc4d_ray.priors.image.diffusion.prompts import portrait_sentence
from fc4d_ray.priors.image.diffusion.views import Source, make_portrait, straight_rgba
from fc4d_ray.priors.shape.views import REFERENCE, ShapeView, read_views
from fc4d_ray.stages.portrait_files import PortraitFiles, read_portrait
from fc4d_ray.stages.protocol import Facts, StageContext


class DiffusionImageStage:
    """Image prior ``diffusion``: ``views/`` and ``provenance/`` for all cameras, ``image.json``."""

    name = "image"
    requires: tuple[str, ...] = ("ingest", "shape")
    version = "diffusion-1"

    def __init__(self) -> None:
        self._backbone: DiffusionBackbone | None = None
        self._prior: MultiviewPrior | None = None

    def weights_digest(self, config: DiffusionImageConfig) -> str:
        return weights_digest(config.model)

    def setup(self, config: DiffusionImageConfig) -> None:
        """Load the pipeline and measure how many rows fit into a batch."""
        self._backbone = DiffusionBackbone.load(config)
        self._prior = MultiviewPrior(self._backbone, config, dlib_face_score(FaceModels()))

    def process(self, context: StageContext) -> Facts:
        config: DiffusionImageConfig = context.config
        if self._prior is None or self._backbone is None:
            self.setup(config)
        sentence = portrait_sentence(context.row, config.prompt)
        files = read_portrait(context.inputs["ingest"])
        views = read_views(context.inputs["shape"])
        reference = _reference(files, views)
        portrait = make_portrait(
            str(context.row.get("avatar_id", "portrait")), views, reference.rgba, sentence,
            context.seed, size=config.size, background=config.background,
            device=self._backbone.device,
        )  # fmt: skip
        before = self._prior.sampler.count.rows
        try:
            enhanced = self._prior.enhance([portrait], context.progress)[0]
        finally:
            self._backbone.forget_texts()
        record = _write(context, enhanced, {view.name: view for view in views}, reference)
        facts = {
            "share_warped": round(float(np.mean([v.verdict.coverage for v in enhanced])), 4),
            "views_retried": sum(view.attempts > 1 for view in enhanced),
            "views_failed": sum(not view.verdict.passed for view in enhanced),
            "unet_rows": self._prior.sampler.count.rows - before,
            "batch_rows": self._prior.budget.rows,
        }
        (context.output / "image.json").write_text(json.dumps({**facts, "views": record}, indent=1))
        return facts


def _reference(files: PortraitFiles, views: list[ShapeView]) -> CompletedView:
    """The portrait's own pixels; where the source image ended, the coarse surface."""
    view = next(view for view in views if view.name == REFERENCE)
    coarse = np.where(view.depth > 0, int(Source.GENERATED), int(Source.NOTHING)).astype(np.uint8)
    beyond = CompletedView(view.name, view.rgba, coarse)
    return reference_view(view, files.portrait, files.matte, files.inside, beyond)


def _write(
    context: StageContext,
    enhanced: list[EnhancedView],
    coarse: dict[str, ShapeView],
    reference: CompletedView,
) -> dict[str, Any]:
    """The views' files; returns the record of each."""
    record: dict[str, Any] = {}
    for view in enhanced:
        alpha = coarse[view.view.name].rgba[..., 3]
        rgba = straight_rgba(view.view.image, alpha, context.config.background)
        labels = _resized_labels(view.source, alpha.shape[0])
        write_png(context.output / "views" / f"{view.view.name}.png", rgba)
        write_png(context.output / "provenance" / f"{view.view.name}.png", labels)
        record[view.view.name] = view.to_json() | {"shares": _shares(labels)}
    write_png(context.output / "views" / f"{REFERENCE}.png", reference.rgba)
    write_png(context.output / "provenance" / f"{REFERENCE}.png", reference.provenance)
    record[REFERENCE] = {"shares": _shares(reference.provenance)}
    return record


def _resized_labels(labels: torch.Tensor, side: int) -> np.ndarray:
    if labels.shape[0] == side:
        return labels.cpu().numpy()
    resized = torch.nn.functional.interpolate(labels[None, None].float(), (side, side))
    return resized[0, 0].to(torch.uint8).cpu().numpy()


def _shares(labels: np.ndarray) -> dict[str, float]:
    """Share of the covered pixels that each source gave."""
    covered = max(int((labels != Source.NOTHING).sum()), 1)
    return {
        source.name.lower(): round(float((labels == source).sum()) / covered, 4)
        for source in Source
        if source != Source.NOTHING
    }
