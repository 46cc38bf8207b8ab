"""Second stage: a posable head, cameras and coarse views with depth."""

from __future__ import annotations

import json

from fc4d_ray.heads.anny import FORMAT, AnnyHead, anny_version, load_anny_head
from fc4d_ray.priors.shape.anny import AnnyShapeConfig, fit_person, render_views
from fc4d_ray.priors.shape.views import write_views
from fc4d_ray.stages.person_files import write_person
from fc4d_ray.stages.portrait_files import read_portrait
from fc4d_ray.stages.protocol import Facts, StageContext


class ShapeStage:
    """Shape prior ``anny``: ``head.npz``, ``cameras.json``, views, depth, materials."""

    name = "shape"
    requires: tuple[str, ...] = ("ingest",)
    version = "8"

    def __init__(self) -> None:
        self._head: AnnyHead | None = None

    def weights_digest(self, config: AnnyShapeConfig) -> str:
        return f"anny-{anny_version()}-{FORMAT}"

    def setup(self, config: AnnyShapeConfig) -> None:
        """Load the compact head model; the first call on a machine builds it (a minute)."""
        self._head = load_anny_head()

    def process(self, context: StageContext) -> Facts:
        if self._head is None:
            self.setup(context.config)
        files = read_portrait(context.inputs["ingest"])
        context.progress(0.1, "fitting the head")
        person = fit_person(
            self._head,
            files.portrait,
            files.matte,
            files.labels,
            files.landmarks,
            context.config,
            inside=files.inside,
        )
        context.progress(0.6, "rendering the orbit")
        write_person(context.output, person)
        write_views(context.output, render_views(person, context.config))
        facts = {
            "landmark_error": round(person.fit.error, 5),
            "azimuth_deg": round(person.fit.azimuth_deg, 2),
            "elevation_deg": round(person.fit.elevation_deg, 2),
            "hair_thickness_m": round(person.hair_thickness_m, 4),
            "n_vertices": len(person.rig.neutral),
        }
        (context.output / "shape.json").write_text(json.dumps(facts, indent=1))
        return facts
