"""Third stage: 24 consistent views and the reference with its own pixels."""

from __future__ import annotations

import json

import numpy as np

from fc4d_ray.images import write_png
from fc4d_ray.priors.image.classical import ClassicalImageConfig, Provenance, complete_views
from fc4d_ray.priors.shape.views import read_views
from fc4d_ray.stages.portrait_files import read_portrait
from fc4d_ray.stages.protocol import Facts, StageContext


class ImageStage:
    """Image prior ``classical``: ``views/`` and ``provenance/`` for all 25 cameras."""

    name = "image"
    requires: tuple[str, ...] = ("ingest", "shape")
    version = "5"

    def weights_digest(self, config: ClassicalImageConfig) -> str:
        return "none"

    def setup(self, config: ClassicalImageConfig) -> None:
        """No model to load."""

    def process(self, context: StageContext) -> Facts:
        files = read_portrait(context.inputs["ingest"])
        views = read_views(context.inputs["shape"])
        completed = complete_views(
            views,
            files.portrait,
            files.matte,
            files.labels,
            context.config,
            context.seed,
            inside=files.inside,
        )
        shares = {}
        for view in completed:
            write_png(context.output / "views" / f"{view.name}.png", view.rgba)
            write_png(context.output / "provenance" / f"{view.name}.png", view.provenance)
            shares[view.name] = _shares(view.provenance)
        (context.output / "image.json").write_text(json.dumps(shares, indent=1))
        orbit = [s for name, s in shares.items() if name.startswith("az")]
        return {
            "share_reference": round(float(np.mean([s["reference"] for s in orbit])), 4),
            "share_completed": round(float(np.mean([s["completed"] for s in orbit])), 4),
        }


def _shares(provenance: np.ndarray) -> dict[str, float]:
    """Share of the covered pixels that each source gave."""
    covered = max(int((provenance > 0).sum()), 1)
    return {
        source.name.lower(): round(float((provenance == source).sum()) / covered, 4)
        for source in Provenance
        if source != Provenance.NOTHING
    }
