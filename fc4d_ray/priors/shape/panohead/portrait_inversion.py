"""A portrait into PanoHead: crop, inversion, and its place in the head frame."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fc4d_ray.errors import ImageTooSmall
from fc4d_ray.heads.anny import AnnyHead
from fc4d_ray.heads.rig import Region
from fc4d_ray.priors.shape.anny import AnnyShapeConfig, FittedPerson, fit_person
from fc4d_ray.priors.shape.fitting import fit_head
from fc4d_ray.priors.shape.panohead.alignment import (
    Alignment,
    align,
    focal_for_panohead,
)
from fc4d_ray.priors.shape.panohead.config import PanoHeadShapeConfig
from fc4d_ray.priors.shape.panohead.framing import framed_matte, framed_picture
from fc4d_ray.priors.shape.panohead.generator import PanoHeadGenerator, Precision
from fc4d_ray.priors.shape.panohead.inversion import (
    Compute,
    InvertedPortrait,
    LatentStatistics,
    Targets,
    invert,
    with_near_plane,
    with_offset,
)
from fc4d_ray.priors.shape.panohead.perceptual import PerceptualDistance
from fc4d_ray.priors.shape.panohead.person import PanoHeadPerson
from fc4d_ray.priors.shape.panohead.tuning_delta import apply_delta, tuning_delta
from fc4d_ray.rendering.mesh import rasterize_mesh

_FACE_PIXELS = 50
"""Fewer pixels of the face with depth than these cannot place the head."""

Progress = Callable[[float, str], None]


@dataclass(frozen=True)
class Portrait:
    """The ingest stage's crop."""

    pixels: NDArray[np.uint8]  # [S, S, 3]
    matte: NDArray[np.uint8]  # [S, S]
    labels: NDArray[np.uint8]  # [S, S], portraits/regions.py
    landmarks: NDArray[np.floating]  # [68, 2] px
    inside: NDArray[np.bool_]  # [S, S], False beyond the source image's border


@dataclass(frozen=True)
class InvertedPerson:
    """A portrait in PanoHead, in the head frame, beside the head fitted to it."""

    fitted: FittedPerson
    alignment: Alignment
    person: PanoHeadPerson
    delta: dict[str, Tensor]
    """The tuning, as it is stored and as the views show it."""
    notes: dict[str, Any]
    """What the record says of the inversion."""


def fit_with_panohead_lens(
    head: AnnyHead, portrait: Portrait, config: PanoHeadShapeConfig
) -> FittedPerson:
    """The embedded head, fitted through the lens PanoHead sees the portrait through.

    A first fit tells the head's size; the focal length then follows from PanoHead's distance.
    """
    size = portrait.pixels.shape[0]
    first = fit_head(head, portrait.landmarks, size, config.fit)
    fov_deg = float(np.rad2deg(2 * np.arctan(size / 2 / focal_for_panohead(first.camera))))
    fit = dataclasses.replace(config.fit, fov_deg=fov_deg)
    return fit_person(
        head, portrait.pixels, portrait.matte, portrait.labels, portrait.landmarks,
        AnnyShapeConfig(fit=fit, shell=config.shell), inside=portrait.inside,
    )  # fmt: skip


def invert_person(
    generator: PanoHeadGenerator,
    statistics: LatentStatistics,
    perceptual: PerceptualDistance,
    fitted: FittedPerson,
    portrait: Portrait,
    config: PanoHeadShapeConfig,
    seed: int,
    progress: Progress,
) -> InvertedPerson:
    """Crop, invert, place.

    Raises ``FitFailed`` and ``ImageTooSmall`` for portraits PanoHead cannot take.
    """
    alignment = align(fitted.camera, portrait.landmarks)
    side = 2 * alignment.square.half_side
    if side < config.min_square_px:
        raise ImageTooSmall(
            f"the face square has {side:.0f} pixels, shape.min_square_px asks for "
            f"{config.min_square_px}: raise ingest.crop_size"
        )
    device = next(generator.parameters()).device
    working = with_near_plane(generator, config.inversion.near)
    labels = torch.from_numpy(alignment.label)[None].to(device)
    with torch.no_grad():
        labels = with_offset(working, statistics, labels)
    targets = make_targets(portrait, alignment, working, labels, config)
    precision = precision_of(config)
    found = next(
        invert(
            working, targets, config.inversion, perceptual, statistics=statistics, seed=seed,
            compute=Compute(precision, config.compiled), progress=progress,
        )
    )  # fmt: skip
    delta = tuning_delta(working, found.generator)
    # Through the stored form, so that later cameras show the same head as these views.
    tuned = apply_delta(working, delta)
    label = labels[0].cpu().numpy()
    person = PanoHeadPerson(tuned, found.ws, alignment.placement(label), precision)
    person, placed_by = _placed_by_face(person, fitted, alignment, label, config)
    notes = _notes(found, person, alignment, perceptual, placed_by)
    return InvertedPerson(fitted, alignment, person, delta, notes)


def make_targets(
    portrait: Portrait,
    alignment: Alignment,
    generator: PanoHeadGenerator,
    labels: Tensor,
    config: PanoHeadShapeConfig,
) -> Targets:
    """The portrait in PanoHead's frame at the generator's size."""
    size = generator.settings.output_size

    def shrunk(image: NDArray[np.uint8]) -> Tensor:
        resized = cv2.resize(image, (size, size), interpolation=cv2.INTER_AREA)
        return torch.from_numpy(resized).to(labels.device).float()

    picture = framed_picture(portrait.pixels, alignment.square)
    images = shrunk(picture).permute(2, 0, 1)[None] / 127.5 - 1
    share = config.inversion.background_weight
    if share == 1:
        return Targets(images, labels)
    matte = shrunk(framed_matte(portrait.matte, alignment.square))[None, None] / 255
    return Targets(images, labels, share + (1 - share) * matte)


def precision_of(config: PanoHeadShapeConfig) -> Precision:
    """The types the configuration asks for."""
    full = torch.float32
    return {
        "float32": Precision(full, full),
        "float16": Precision(full, torch.float16),
        "bfloat16": Precision(torch.bfloat16, torch.bfloat16),
    }[config.precision]


def _placed_by_face(
    person: PanoHeadPerson,
    fitted: FittedPerson,
    alignment: Alignment,
    label: NDArray[np.float32],
    config: PanoHeadShapeConfig,
) -> tuple[PanoHeadPerson, dict[str, Any]]:
    """Scale about the portrait's camera until the face is as far away as the fitted head's.

    Nothing moves in the picture. Where too little of the face has depth the head stays where the
    crop puts it, and the notes say so.
    """
    camera = alignment.reference.resized(config.depth_size, config.depth_size)
    seen = person.render_raw(camera, config.depth_size)
    rig = fitted.rig
    mesh = rasterize_mesh(rig.neutral, rig.faces, camera)
    region = rig.region[rig.faces[np.maximum(mesh.face, 0), 0]]
    is_face = (mesh.face >= 0) & (region == Region.FACE) & (seen.depth > 0)
    if is_face.sum() < _FACE_PIXELS:
        return person, {"placed_by": "crop", "face_pixels": int(is_face.sum())}
    ratio = mesh.z_depth[is_face] / seen.depth[is_face]
    factor = float(np.median(ratio))
    placement = person.placement.about(label, person.placement.scale_m * factor)
    residual = np.abs(seen.depth[is_face] * factor - mesh.z_depth[is_face])
    notes = {
        "placed_by": "face depth",
        "face_pixels": int(is_face.sum()),
        "scale_factor": round(factor, 5),
        "face_depth_residual_m": round(float(np.median(residual)), 5),
    }
    return person.moved(placement), notes


def _notes(
    found: InvertedPortrait,
    person: PanoHeadPerson,
    alignment: Alignment,
    perceptual: PerceptualDistance,
    placed_by: dict[str, Any],
) -> dict[str, Any]:
    tuned = found.tuning_errors or found.latent_errors
    return {
        "perceptual": perceptual.name,
        "latent_steps": len(found.latent_errors),
        "tuning_steps": len(found.tuning_errors),
        "mse_start": round(found.latent_errors[0], 6),
        "mse_latent": round(found.latent_errors[-1], 6),
        "mse_tuned": round(tuned[-1], 6),
        "angles_deg": [round(float(angle), 2) for angle in alignment.angles_deg],
        "square_px": round(2 * alignment.square.half_side, 1),
        "scale_m_per_unit": round(person.placement.scale_m, 5),
        **placed_by,
    }
