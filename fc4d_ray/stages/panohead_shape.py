"""Second stage, the paper's way: the portrait inverted in PanoHead, beside the fitted head."""

from __future__ import annotations

import json
from pathlib import Path

import torch

from fc4d_ray.assets.registry import file_digest, require_asset
from fc4d_ray.errors import WeightsMissing
from fc4d_ray.heads.anny import FORMAT, AnnyHead, anny_version, load_anny_head
from fc4d_ray.priors.shape.panohead.checkpoint import SETTINGS_FILE, load_generator
from fc4d_ray.priors.shape.panohead.config import PanoHeadShapeConfig
from fc4d_ray.priors.shape.panohead.generator import PanoHeadGenerator
from fc4d_ray.priors.shape.panohead.inversion import LatentStatistics, latent_statistics
from fc4d_ray.priors.shape.panohead.orbit_views import orbit_views
from fc4d_ray.priors.shape.panohead.perceptual import (
    PerceptualDistance,
    make_perceptual,
    perceptual_file,
)
from fc4d_ray.priors.shape.panohead.portrait_inversion import (
    Portrait,
    fit_with_panohead_lens,
    invert_person,
)
from fc4d_ray.priors.shape.views import write_views
from fc4d_ray.stages.person_files import write_person
from fc4d_ray.stages.portrait_files import read_portrait
from fc4d_ray.stages.protocol import Facts, StageContext


class PanoHeadShapeStage:
    """Shape prior ``panohead``: the files of ``anny`` and the inverted person's own.

    ``head.npz`` is the embedded head fitted to the same landmarks, so that tracking and training
    work as with any shape prior; views, depth and cameras are PanoHead's.
    """

    name = "shape"
    requires: tuple[str, ...] = ("ingest",)
    version = "panohead-1"

    def __init__(self) -> None:
        self._head: AnnyHead | None = None
        self._generator: PanoHeadGenerator | None = None
        self._statistics: LatentStatistics | None = None
        self._perceptual: PerceptualDistance | None = None

    def weights_digest(self, config: PanoHeadShapeConfig) -> str:
        """Digest of the generator, of the perceptual backbone and of the head model."""
        weights = weights_file(config)
        parts = [file_digest(weights), file_digest(weights.with_name(SETTINGS_FILE))]
        backbone = perceptual_file(config.inversion.perceptual, config.inversion.lpips_backbone)
        parts.append("none" if backbone is None else file_digest(backbone))
        return "-".join([f"anny-{anny_version()}-{FORMAT}", *(part[:16] for part in parts)])

    def setup(self, config: PanoHeadShapeConfig) -> None:
        """Load generator, head model and perceptual network."""
        device = device_of(config)
        self._generator = load_generator(weights_file(config), device)
        options = config.inversion
        self._perceptual = make_perceptual(options.perceptual, options.lpips_backbone, device)
        self._statistics = latent_statistics(self._generator, options.statistics_samples)
        self._head = load_anny_head()

    def process(self, context: StageContext) -> Facts:
        config: PanoHeadShapeConfig = context.config
        if self._generator is None:
            self.setup(config)
        files = read_portrait(context.inputs["ingest"])
        portrait = Portrait(
            files.portrait, files.matte, files.labels, files.landmarks, files.inside
        )
        context.progress(0.01, "fitting the head")
        fitted = fit_with_panohead_lens(self._head, portrait, config)
        inverted = invert_person(
            self._generator, self._statistics, self._perceptual, fitted, portrait, config,
            context.seed, lambda done, text: context.progress(0.05 + 0.75 * done, text),
        )  # fmt: skip
        context.progress(0.8, "rendering the orbit")
        write_views(context.output, orbit_views(inverted, self._statistics, config))
        write_person(context.output, fitted)
        delta = inverted.delta if config.keep_tuning else None
        inverted.person.save(context.output, delta, inverted.notes)
        facts = {
            "landmark_error": round(fitted.fit.error, 5),
            "azimuth_deg": round(fitted.fit.azimuth_deg, 2),
            "elevation_deg": round(fitted.fit.elevation_deg, 2),
            "hair_thickness_m": round(fitted.hair_thickness_m, 4),
            "n_vertices": len(fitted.rig.neutral),
            **inverted.notes,
            "components": self._components(),
        }
        (context.output / "shape.json").write_text(json.dumps(facts, indent=1))
        return facts

    def _components(self) -> list[str]:
        """Catalogue keys of the models that took part."""
        perceptual = {"lpips_vgg": "lpips-vgg", "lpips_alex": "lpips-alex"}
        used = perceptual.get(self._perceptual.name)
        return ["anny", "dlib-landmarks", "panohead", *([used] if used else [])]


def weights_file(config: PanoHeadShapeConfig) -> Path:
    """The imported generator. ``WeightsMissing`` where there is none, with the way to get it."""
    if config.checkpoint is None:
        return require_asset("panohead")[0]
    path = Path(config.checkpoint)
    if not path.is_file() or path.suffix != ".safetensors":
        raise WeightsMissing(
            f"shape.checkpoint must name an imported generator.safetensors, found {path}; convert "
            "a released file with: fc4d assets import panohead PATH"
        )
    return path


def device_of(config: PanoHeadShapeConfig) -> torch.device:
    """Where the networks run."""
    if config.device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return torch.device(config.device)
