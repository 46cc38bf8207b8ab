"""Image prior ``classical``: consistent views by depth-guided warping, without a generator.

The order is the paper's (section 3.2): the view of the back is completed first; it and the
reference are the anchors; every other view is what the anchors show of it, warped by depth and
weighted by how squarely the anchor saw the surface. Where neither did, the reference's mirror
image lends its detail, and hair and skin get texture synthesised from the portrait's own.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import ClassVar

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fc4d_ray.cameras import Camera
from fc4d_ray.errors import ConfigError
from fc4d_ray.images import smoothstep
from fc4d_ray.portraits.regions import HAIR, SKIN
from fc4d_ray.priors.image.surface_detail import (
    even_skin,
    is_headwear,
    strand_sheet,
    texture_sheet,
    wrap_sheet,
)
from fc4d_ray.priors.shape.surface_colour import JAW_Y, Material, without_borders
from fc4d_ray.priors.shape.views import REFERENCE, ShapeView
from fc4d_ray.warping import (
    DEPTH_TOLERANCE,
    HEAD_HEIGHT_M,
    closest_depth,
    facing,
    lift,
    project,
    sample,
    warp_to_view,
)

_TURNED_DEG = 12.0
"""From this azimuth on a portrait shows one side of the hair only."""

_SQUARE_COSINE = 0.55
"""From this cosine of view and surface on a misfit stays as small as it is."""


_WEAVE_M, _PORES_M = 0.002, 0.003
"""Coarsest structure of synthesised headwear (folds cannot be continued) and of skin."""


class Provenance(IntEnum):
    """Where most of a pixel comes from; stored as a label image beside each view."""

    NOTHING = 0
    REFERENCE = 1
    BACK = 2
    MIRROR = 3
    COMPLETED = 4


@dataclass(frozen=True)
class ClassicalImageConfig:
    """Image stage of the embedded profile."""

    __pydantic_config__: ClassVar = {"extra": "forbid"}

    depth_tolerance: float = DEPTH_TOLERANCE
    """Depth difference, in head heights, up to which two depths mean one surface."""
    grazing_cosine: tuple[float, float] = (0.14, 0.42)
    """An anchor counts for nothing below the first cosine of view and surface, fully above the
    second."""
    hair_strength: float = 0.75
    """Contrast of synthesised hair strands against the portrait's."""
    skin_strength: float = 0.7
    """Contrast of synthesised skin against the portrait's."""

    def __post_init__(self) -> None:
        low, high = self.grazing_cosine
        if not 0 <= low < high <= 1:
            raise ConfigError(f"image.grazing_cosine must rise within 0…1, got {low}, {high}")


@dataclass(frozen=True)
class CompletedView:
    """One of the image stage's views."""

    name: str
    rgba: NDArray[np.uint8]  # [H, W, 4]
    provenance: NDArray[np.uint8]  # [H, W]


@dataclass(frozen=True)
class _Anchor:
    """A source of pixels: colour, how much to trust each, and its geometry."""

    image: Tensor  # [3, H, W]
    detail: Tensor  # [3, H, W] image minus what the coarse surface says
    trust: Tensor  # [H, W] 0…1
    depth: Tensor
    camera: Camera
    material: NDArray[np.uint8] | None  # [H, W] Material, eyes and mouth as skin


def complete_views(
    views: list[ShapeView],
    portrait: NDArray[np.uint8],  # [S, S, 3]
    matte: NDArray[np.uint8],
    labels: NDArray[np.uint8],
    config: ClassicalImageConfig,
    seed: int,
    *,
    inside: NDArray[np.bool_] | None = None,  # [S, S], False beyond the source image's border
) -> list[CompletedView]:
    """All views completed, in the order given; the reference keeps the portrait's pixels.

    Where the source image ends inside the crop, the reference is completed like any other view.
    """
    if inside is None:
        inside = np.ones(matte.shape, bool)
    by_name = {view.name: view for view in views}
    reference = by_name[REFERENCE]
    anchor = _reference_anchor(reference, portrait, matte, labels, config)
    metres_per_px = float(np.linalg.norm(reference.camera.position)) / reference.camera.K[0, 0]
    sure_hair = (labels == HAIR) & (cv2.erode(matte, np.ones((7, 7), np.uint8)) > 220)
    picture = portrait.astype(np.float32) / 255
    has_cloth = is_headwear(picture, sure_hair)
    calm_skin = even_skin(picture, labels == SKIN, metres_per_px)
    sheets = {
        Material.HAIR: (
            texture_sheet(picture, sure_hair, metres_per_px, seed, coarsest_m=_WEAVE_M)
            if has_cloth
            else strand_sheet(picture, sure_hair, metres_per_px, seed)
        ),
        Material.SKIN: texture_sheet(picture, calm_skin, metres_per_px, seed, coarsest_m=_PORES_M),
    }
    back_view = max(
        (v for v in views if v.name != REFERENCE), key=lambda v: _turn_from(v, reference)
    )
    back_completed = _compose(back_view, [anchor], sheets, config)
    back = _back_anchor(back_view, back_completed, config)
    completed = []
    for view in views:
        if view.name == REFERENCE:
            beyond = _compose(view, [anchor, back], sheets, config)
            completed.append(reference_view(view, portrait, matte, inside, beyond))
        elif view.name == back_view.name:
            completed.append(back_completed)
        else:
            completed.append(_compose(view, [anchor, back], sheets, config))
    return completed


def _turn_from(view: ShapeView, reference: ShapeView) -> float:
    return abs((view.azimuth_deg - reference.azimuth_deg + 180) % 360 - 180)


def _to_tensor(image: NDArray[np.uint8]) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(image[..., :3])).permute(2, 0, 1).float() / 255


def _reference_anchor(view: ShapeView, portrait, matte, labels, config) -> _Anchor:
    image = _to_tensor(portrait)
    depth = torch.from_numpy(view.depth)
    cosine = facing(depth, view.camera).numpy()
    side = portrait.shape[0]
    # The outermost pixels mix with the background: stay inside the matte by a little.
    margin = cv2.distanceTransform((matte > 190).astype(np.uint8), cv2.DIST_L2, 5)
    trust = smoothstep(cosine, *config.grazing_cosine) * smoothstep(
        margin, 0.004 * side, 0.014 * side
    )
    # A pixel only speaks for a surface of its own kind (no collar on the neck behind it).
    inner_parts = (Material.EYE, Material.TEETH, Material.MOUTH)
    kind = np.where(np.isin(view.material, inner_parts), Material.SKIN, view.material)
    # Where the surface is grazed, the misfit of a boundary smears over it: keep off the border.
    inner = without_borders(labels, 0.006 * side) == kind
    near = cv2.dilate((labels == kind).astype(np.uint8), np.ones((5, 5), np.uint8)) > 0
    trust = trust * np.where(cosine > _SQUARE_COSINE, near, inner)
    coarse = _to_tensor(view.rgba)
    return _Anchor(image, image - coarse, torch.from_numpy(trust).float(), depth, view.camera, kind)


def _back_anchor(view: ShapeView, completed: CompletedView, config) -> _Anchor:
    image = _to_tensor(completed.rgba)
    depth = torch.from_numpy(view.depth)
    cosine = facing(depth, view.camera).numpy()
    trust = torch.from_numpy(smoothstep(cosine, *config.grazing_cosine)).float()
    return _Anchor(image, image - _to_tensor(view.rgba), trust, depth, view.camera, None)


def _compose(
    view: ShapeView,
    anchors: list[_Anchor],
    sheets: dict[Material, NDArray[np.float32] | None],
    config: ClassicalImageConfig,
) -> CompletedView:
    """What the anchors show of a view, over its completed coarse colour."""
    depth = torch.from_numpy(view.depth)
    tolerance = config.depth_tolerance * HEAD_HEIGHT_M
    coarse = _to_tensor(view.rgba)
    reference = anchors[0]
    layers: list[tuple[Provenance, Tensor, Tensor]] = []
    for kind, anchor in zip((Provenance.REFERENCE, Provenance.BACK), anchors, strict=False):
        warped = warp_to_view(
            torch.cat([anchor.image, anchor.trust[None]]), anchor.depth, anchor.camera,
            depth, view.camera, depth_tolerance_m=tolerance, mode="bilinear",
        )  # fmt: skip
        sharp = sample(anchor.image, warped.source_pixels, mode="bicubic").clamp(0, 1)
        layers.append((kind, sharp, _feathered(warped.image[3] * warped.visible)))
    layers.append((Provenance.MIRROR, *_mirrored_detail(view, reference, coarse, tolerance)))
    result = coarse.clone()
    strengths = {Material.HAIR: config.hair_strength, Material.SKIN: config.skin_strength}
    for material, sheet in sheets.items():
        if sheet is not None:
            result = result + _detail(view, sheet, material) * strengths[material]
    label = torch.full(depth.shape, int(Provenance.COMPLETED))
    remaining = torch.ones_like(depth)
    total = torch.zeros_like(result)
    for kind, image, weight in layers:
        share = weight * remaining
        total = total + image * share
        label = torch.where(share > 0.5, int(kind), label)
        remaining = remaining - share
    result = (total + result * remaining).clamp(0, 1)
    label = torch.where(depth > 0, label, int(Provenance.NOTHING))
    rgba = np.concatenate(
        [(result.permute(1, 2, 0).numpy() * 255 + 0.5).astype(np.uint8), view.rgba[..., 3:]], -1
    )
    return CompletedView(view.name, rgba, label.numpy().astype(np.uint8))


def _feathered(weight: Tensor) -> Tensor:
    """Pull a weight map in from its own edges, so that layers meet without a seam."""
    array = weight.numpy()
    pulled = cv2.erode(array, np.ones((3, 3), np.uint8))
    return torch.from_numpy(np.minimum(cv2.GaussianBlur(pulled, (0, 0), 2.0), array + 0.0))


def _mirrored_detail(
    view: ShapeView, reference: _Anchor, coarse: Tensor, tolerance: float
) -> tuple[Tensor, Tensor]:
    """The other side of the face: its detail on this side's own colour, and the weight.

    Heads are nearly symmetric about x = 0. A frontal portrait shows both sides of the hair, whose
    parting is no mirror image; from a turned one the far side can only be guessed so.
    """
    depth = torch.from_numpy(view.depth)
    points = lift(depth, view.camera) * torch.tensor([-1.0, 1.0, 1.0])
    pixels, distance = project(points, reference.camera)
    seen = closest_depth(reference.depth, pixels, distance)
    visible = (depth > 0) & (seen > 0) & ((seen - distance).abs() < 1.5 * tolerance)
    visible &= points[..., 1] > JAW_Y
    trust = reference.trust
    is_hair = torch.zeros_like(trust)
    if reference.material is not None:
        is_hair = torch.from_numpy(reference.material == Material.HAIR).to(trust)
    layers = torch.stack([trust * (1 - is_hair), trust * is_hair])
    warped = sample(torch.cat([reference.detail, layers]), pixels)
    # A fringe or a headscarf's edge lends nothing to the bare forehead across.
    weight = warped[3]
    if view.material is not None:
        x, _, z = reference.camera.position
        turned = abs(np.rad2deg(np.arctan2(x, z))) > _TURNED_DEG
        from_skin = torch.from_numpy(np.isin(view.material, (Material.SKIN, Material.EYE)))
        from_hair = torch.from_numpy((view.material == Material.HAIR) & turned)
        weight = warped[3] * from_skin + warped[4] * from_hair
    return (coarse + warped[:3]).clamp(0, 1), _feathered(weight * visible)


def _detail(view: ShapeView, sheet: NDArray[np.float32], material: Material) -> Tensor:
    """Synthesised detail (3, H, W) on the view's pixels of a material."""
    detail = np.zeros((*view.depth.shape, 3), np.float32)
    if view.material is not None:
        points = lift(torch.from_numpy(view.depth), view.camera).numpy()
        detail = wrap_sheet(sheet, points) * (view.material == material)[..., None]
    return torch.from_numpy(detail).permute(2, 0, 1)


def reference_view(
    view: ShapeView, portrait, matte, inside: NDArray[np.bool_], beyond: CompletedView
) -> CompletedView:
    """The portrait's own pixels; the bust's fade comes from the surface nearest to each pixel."""
    covered = view.depth > 0
    fade = cv2.inpaint(view.rgba[..., 3], (~covered).astype(np.uint8), 3, cv2.INPAINT_TELEA)
    alpha = (matte.astype(np.float32) * fade / 255 + 0.5).astype(np.uint8)
    provenance = np.where(alpha > 0, Provenance.REFERENCE, Provenance.NOTHING).astype(np.uint8)
    # The source's last rows mix with the crop's padding.
    own = cv2.erode(inside.astype(np.uint8), np.ones((5, 5), np.uint8), borderValue=1) > 0
    rgba = np.where(own[..., None], np.dstack([portrait, alpha]), beyond.rgba)
    return CompletedView(view.name, rgba, np.where(own, provenance, beyond.provenance))
