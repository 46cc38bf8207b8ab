"""Coarse colour for every vertex of a head of which one side was photographed.

Vertices the portrait shows clearly take its (blurred) colour; their mirror images lend theirs to
the other side; everything else is filled by smooth diffusion over the surface, separately for
skin, hair and clothing, so that hair never turns into forehead at the crown.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_matrix, diags
from scipy.sparse.linalg import spsolve
from scipy.spatial import cKDTree

from fc4d_ray.cameras import Camera
from fc4d_ray.heads.rig import Region
from fc4d_ray.heads.teeth import tooth_row_shade
from fc4d_ray.images import smoothstep
from fc4d_ray.portraits.regions import CLOTHING, HAIR, SKIN
from fc4d_ray.priors.shape.crevices import crevice_light
from fc4d_ray.priors.shape.key_light import key_light
from fc4d_ray.rendering.mesh import rasterize_mesh

_FLESH = (
    (Region.TONGUE, (0.42, 0.18, 0.17), 0.75),
    (Region.MOUTH, (0.28, 0.10, 0.09), 0.8),
)
"""Colours inside the mouth, and how much darker each is at its back: a tongue with an edge of
its own there looks like a lip."""
_NECKLINE_M, _NECKLINE_NEIGHBOURS, _NECKLINE_ROUNDS = 0.012, 48, 6
_NECK_FOOT_Y, _NECK_HALF_WIDTH_M = -0.14, 0.075
"""The neck proper: the model's neck region reaches to the shoulders."""
_FEWEST_ON_NECK = 20
_FORGETS, _HAIR_FORGETS = 1e-5, 0.05
"""How strongly, against a link of the membrane, unseen colour goes back to the usual one: within a
few centimetres for hair, hardly at all for skin and clothing."""
_TYPICAL_SAMPLE = 400
"""Colours among which the most typical one is looked for."""
_ALIKE = 0.08
"""Standard deviation, of full scale 1, within which colours are shades of one."""
JAW_Y = -0.09
"""Height of the jaw's edge in the head frame: only above it are a head's sides alike. A shadow or a
jewel on one side of the neck is none on the other."""
_RING = np.array([0.25, 1.0, 0.25])
"""What a step sideways counts on a neck against one up or down."""


class Material(IntEnum):
    """What a surface is made of, as far as completing its colour goes."""

    SKIN = 1
    HAIR = 2
    CLOTHING = 3
    EYE = 4
    TEETH = 5
    MOUTH = 6


_LIT = {Material.SKIN: 0.8, Material.HAIR: 0.5}
"""How much of the light found on what is seen falls on the rest: hair has darker and lighter locks
of its own."""


@dataclass(frozen=True)
class SurfaceColour:
    """Per-vertex result."""

    colour: NDArray[np.float32]  # [V, 3] sRGB 0…1
    material: NDArray[np.uint8]  # [V] Material
    seen: NDArray[np.float32]  # [V] 0…1, how well the portrait shows the vertex


def complete_surface_colour(
    vertices: NDArray[np.floating],  # [V, 3] at rest
    faces: NDArray[np.integer],
    region: NDArray[np.uint8],
    mirror: NDArray[np.integer],  # [V] partner, -1 = none
    camera: Camera,
    portrait: NDArray[np.uint8],  # [S, S, 3]
    matte: NDArray[np.uint8],
    labels: NDArray[np.uint8],
    reliable: NDArray[np.floating],  # [V] 0…1: how far a vertex's pixel tells its own colour
) -> SurfaceColour:
    """Colour every vertex; see the module text."""
    sight = _look(vertices, faces, camera, matte)
    material = _materials(vertices, region, sight, labels)
    colour = _blurred(portrait, matte, labels)[:, sight.rows, sight.columns].T
    # Along a boundary between materials a small misfit takes the neighbour's colour.
    wanted = without_borders(labels, 0.006 * camera.width)[sight.rows, sight.columns]
    # A vertex only takes the colour of a pixel of its own kind: skin under a fringe stays skin.
    agrees = wanted == np.select(
        [material == Material.SKIN, material == Material.HAIR, material == Material.CLOTHING],
        [SKIN, HAIR, CLOTHING],
        -1,
    )
    agrees |= np.isin(material, (Material.EYE, Material.TEETH, Material.MOUTH))
    seen = sight.weight * agrees * reliable
    known = np.maximum(seen, np.where(mirror >= 0, seen[mirror], 0))
    # What the portrait shows has its light already.
    light = 1 + (_light(vertices, sight.normals, material) - 1) * (1 - known)
    result = np.zeros((len(vertices), 3))
    for kind in (Material.SKIN, Material.HAIR, Material.CLOTHING):
        rows = np.flatnonzero(material == kind)
        if len(rows):
            lit = light
            if kind in _LIT:
                own = seen * (material == kind)
                lit = light * key_light(sight.normals, colour, own, _LIT[kind])
            filled = _diffuse(vertices, material, colour / lit[:, None], seen, mirror, kind)
            result[rows] = (filled * lit[rows, None]).clip(0, 1)
    _paint_inner(result, vertices, region, colour, seen, material)
    return SurfaceColour(result.astype(np.float32), material, seen.astype(np.float32))


def without_borders(labels: NDArray[np.uint8], width_px: float) -> NDArray[np.uint8]:
    """Labels (S, S) with 0 within ``width_px`` of another foreground label."""
    inner = labels.copy()
    for label in (SKIN, HAIR, CLOTHING):
        others = ((labels != label) & (labels != 0)).astype(np.uint8)
        if others.any():
            distance = cv2.distanceTransform(1 - others, cv2.DIST_L2, 5)
            inner[(labels == label) & (distance < width_px)] = 0
    return inner


@dataclass(frozen=True)
class _Sight:
    rows: NDArray[np.intp]
    columns: NDArray[np.intp]
    visible: NDArray[np.bool_]
    weight: NDArray[np.float64]
    normals: NDArray[np.float64]


def _look(vertices, faces, camera: Camera, matte) -> _Sight:
    """Where each vertex lies in the portrait and how well it is seen there."""
    import torch

    from fc4d_ray.rendering.mesh import vertex_normals

    pixels, depth = camera.project(vertices)
    columns = np.clip(pixels[:, 0].astype(int), 0, camera.width - 1)
    rows = np.clip(pixels[:, 1].astype(int), 0, camera.height - 1)
    inside = ((pixels >= 0) & (pixels < camera.width)).all(1)
    surface = rasterize_mesh(vertices, faces, camera).z_depth
    # A vertex lies between pixels: the farthest of its neighbourhood decides.
    farthest = cv2.dilate(surface, np.ones((3, 3), np.uint8))[rows, columns]
    visible = inside & (depth < farthest + 0.004)
    normals = vertex_normals(
        torch.as_tensor(vertices).double(), torch.as_tensor(np.asarray(faces)).long()
    ).numpy()
    ray = camera.position - vertices
    cosine = (normals * ray).sum(1) / np.linalg.norm(ray, axis=1)
    margin = cv2.distanceTransform((matte > 200).astype(np.uint8), cv2.DIST_L2, 5)
    inner = np.clip(margin[rows, columns] / (0.012 * camera.width), 0, 1)
    weight = visible * np.clip((cosine - 0.25) / 0.35, 0, 1) * inner
    return _Sight(rows, columns, visible & (cosine > 0.2), weight, normals)


def _materials(vertices, region, sight: _Sight, labels) -> NDArray[np.uint8]:
    fixed = {
        Region.FACE: Material.SKIN, Region.EAR: Material.SKIN, Region.HAIR: Material.HAIR,
        Region.CLOTHING: Material.CLOTHING, Region.EYE: Material.EYE,
        Region.TEETH: Material.TEETH, Region.TONGUE: Material.MOUTH, Region.MOUTH: Material.MOUTH,
    }  # fmt: skip
    material = np.full(len(vertices), Material.SKIN, np.uint8)
    for key, value in fixed.items():
        material[region == key] = value
    at_pixel = labels[sight.rows, sight.columns]
    scalp = region == Region.SCALP
    shown = scalp & sight.visible
    hairy = (region == Region.HAIR).any() or (
        shown.any() and (at_pixel[shown] == HAIR).mean() > 0.3
    )
    material[scalp] = Material.HAIR if hairy else Material.SKIN
    # Neck and bust: what the portrait shows there, carried round to the back.
    torso = np.isin(region, (Region.NECK, Region.BUST))
    known = torso & sight.visible & np.isin(at_pixel, (SKIN, CLOTHING))
    if not known.any():
        material[region == Region.BUST] = Material.CLOTHING
        return material
    front = torso & (vertices[:, 2] > vertices[torso, 2].mean())
    column = (region == Region.NECK) & (vertices[:, 1] > _NECK_FOOT_Y)
    column &= np.abs(vertices[:, 0]) < _NECK_HALF_WIDTH_M
    # What lies on the shoulders beside a neck is not round it; a collar is at one height.
    for part, scale in ((column, _RING), (~column, 1.0)):
        here, shown = front & part, known & part
        shown = shown if shown.sum() > _FEWEST_ON_NECK else known
        _, nearest = cKDTree(vertices[shown] * scale).query(vertices[here] * scale)
        is_cloth = at_pixel[shown][nearest] == CLOTHING
        material[here] = np.where(is_cloth, Material.CLOTHING, Material.SKIN)
    # Behind, a garment ends at one height: where it does at the sides of the neck.
    cloth = known & (at_pixel == CLOTHING)
    collar = np.percentile(vertices[cloth, 1], 97) if cloth.any() else -np.inf
    back = torso & ~front
    covered = (vertices[:, 1] < collar) | (cloth.any() & (np.abs(vertices[:, 0]) > 0.07))
    material[back] = np.where(covered[back], Material.CLOTHING, Material.SKIN)
    material[torso] = _rounded(vertices[torso], material[torso], known[torso])
    return material


def _rounded(points, material, known) -> NDArray[np.uint8]:
    """Skin or clothing as most of the neighbourhood is: a neckline has no steps and no corners."""
    distance, index = cKDTree(points).query(points, min(_NECKLINE_NEIGHBOURS, len(points)))
    weight = np.exp(-np.square(distance / _NECKLINE_M))
    weight /= weight.sum(1, keepdims=True)
    cloth = (material == Material.CLOTHING).astype(float)
    for _ in range(_NECKLINE_ROUNDS):
        cloth = np.where(known, cloth, (weight * cloth[index]).sum(1))
    return np.where(cloth > 0.5, Material.CLOTHING, Material.SKIN).astype(np.uint8)


def _blurred(portrait, matte, labels) -> NDArray[np.float32]:
    """The portrait (3, S, S) in 0…1, each label blurred within itself and inside the matte."""
    sigma = max(1.0, portrait.shape[0] / 200)
    image = portrait.astype(np.float32) / 255
    result = image.copy()
    solid = cv2.erode((matte > 200).astype(np.uint8), np.ones((5, 5), np.uint8))
    for label in (SKIN, HAIR, CLOTHING):
        mask = ((labels == label) & (solid > 0)).astype(np.float32)
        weight = cv2.GaussianBlur(mask, (0, 0), sigma)
        blurred = cv2.GaussianBlur(image * mask[..., None], (0, 0), sigma)
        own = labels == label
        result[own] = (blurred / np.maximum(weight, 1e-4)[..., None])[own]
        faint = own & (weight < 0.05)
        result[faint] = image[faint]
    return result.transpose(2, 0, 1)


def _light(vertices, normals, material) -> NDArray[np.float64]:
    """How much of even light reaches skin (V,); hair and clothing are coloured as they are."""
    light = np.ones(len(vertices))
    skin = np.flatnonzero(material == Material.SKIN)
    if len(skin):
        hair = vertices[material == Material.HAIR]
        light[skin] = crevice_light(vertices[skin], normals[skin], hair)
    return light


def _diffuse(vertices, material, colour, seen, mirror, kind) -> NDArray[np.float64]:
    """Membrane interpolation over the kind's own vertices, data where they were seen."""
    rows = np.flatnonzero(material == kind)
    points = vertices[rows]
    weight = seen[rows].copy()
    value = colour[rows].astype(float).copy()
    if kind in (Material.SKIN, Material.HAIR):
        partner = mirror[rows]
        alike = (partner >= 0) & (material[partner] == kind) & (points[:, 1] > JAW_Y)
        lent = np.where(alike, seen[partner], 0.0) * 0.3
        use = lent > weight
        value[use], weight[use] = colour[partner[use]], lent[use]
    if weight.sum() < 1e-3:
        return np.full((len(rows), 3), 0.45)
    usual = (value * weight[:, None]).sum(0) / weight.sum()
    pull = _FORGETS
    if kind == Material.HAIR:
        # Unseen hair begins at the rim, and the rim is mixed with what lies behind it.
        usual, pull = _most_typical(value[weight > 0.5 * weight.max()]), _HAIR_FORGETS
    neighbours = min(10, len(rows))
    distance, index = cKDTree(points).query(points, neighbours)
    scale = np.median(distance[:, 1]) + 1e-9
    link = np.exp(-((distance / (3 * scale)) ** 2))
    source = np.repeat(np.arange(len(rows)), neighbours)
    graph = coo_matrix((link.ravel(), (source, index.ravel())), shape=(len(rows),) * 2).tocsr()
    graph = 0.5 * (graph + graph.T)
    laplacian = diags(np.asarray(graph.sum(1)).ravel()) - graph
    system = (laplacian + diags(2.0 * weight + pull)).tocsc()
    right = 2.0 * weight[:, None] * value + pull * usual
    return np.stack([spsolve(system, right[:, c]) for c in range(3)], 1)


def _most_typical(colours: NDArray[np.floating]) -> NDArray[np.float64]:
    """The colour (3,) of (N, 3) that most others are near: never a mixture of two that occur."""
    some = colours[:: max(1, len(colours) // _TYPICAL_SAMPLE)]
    squares = np.square(some[:, None] - some).sum(-1)
    crowd = np.exp(-squares / (2 * _ALIKE**2)).sum(1)
    weight = np.exp(-squares[crowd.argmax()] / (2 * _ALIKE**2))
    return (weight[:, None] * some).sum(0) / weight.sum()


def _paint_inner(result, vertices, region, colour, seen, material) -> None:
    """Eyes, teeth and mouth: the portrait where it shows them, plausible paint elsewhere."""
    skin = result[material == Material.SKIN]
    brightness = float(np.percentile(skin.mean(1), 75)) if len(skin) else 0.6
    light = np.percentile(skin, 75, axis=0) if len(skin) else np.full(3, 0.6)
    # The picture's own light tints enamel as it tints skin, which is warmer by itself.
    cast = (light / np.array([1.0, 0.80, 0.70])) / (light / np.array([1.0, 0.80, 0.70])).max()
    teeth = region == Region.TEETH
    paint = np.array([0.95, 0.92, 0.86]) * np.sqrt(cast) * min(1.0, 0.30 + 0.85 * brightness)
    result[teeth] = paint * tooth_row_shade()[:, None]
    # Light hardly reaches the back of a mouth.
    depth = vertices[teeth, 2].max() - vertices[:, 2] if teeth.any() else np.zeros(len(vertices))
    deep = smoothstep(depth, 0.014, 0.045)
    for part, flesh, darkness in _FLESH:
        rows = region == part
        light_in = (0.3 + 0.6 * brightness) * (1 - darkness * deep[rows])
        result[rows] = np.array(flesh) * light_in[:, None]
    eye = region == Region.EYE
    result[eye] = np.array([0.85, 0.83, 0.80]) * (0.35 + 0.7 * brightness)
    inner = (teeth | eye) & (seen > 0.3)
    result[inner] = colour[inner]
