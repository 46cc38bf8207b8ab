"""Where to put the splats of an avatar that starts from a known surface.

Points are spread over every triangle some camera can see, denser where people look. Triangles no
camera ever sees (a scalp under hair, the inside of the neck) get none, so nothing shows through.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from fc4d_ray.cameras import Camera
from fc4d_ray.errors import ConfigError
from fc4d_ray.heads.rig import Region
from fc4d_ray.rendering.mesh import face_areas, rasterize_mesh


@dataclass(frozen=True)
class SurfaceSampleConfig:
    """Distances between neighbouring splats."""

    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid"}

    face_mm: float = 1.35
    """On the face and its eyes and teeth."""
    hair_mm: float = 2.8
    """On hair and headwear, ears and neck."""
    body_mm: float = 4.0
    """On clothing and shoulders."""
    feature_share: float = 0.62
    """Factor on the face's distance around eyes, nose and mouth."""

    def __post_init__(self) -> None:
        for name in ("face_mm", "hair_mm", "body_mm"):
            if not 0.2 <= getattr(self, name) <= 20:
                raise ConfigError(
                    f"train.surface.{name} must lie in 0.2…20, got {getattr(self, name)}"
                )


@dataclass(frozen=True)
class SurfaceSamples:
    """Points on a mesh."""

    face_index: NDArray[np.int64]  # [N]
    barycentric: NDArray[np.float32]  # [N, 3]
    spacing: NDArray[np.float32]  # [N] metres to the neighbours

    def points(self, vertices: NDArray[np.floating], faces: NDArray[np.integer]) -> NDArray:
        """Positions (N, 3) on ``vertices`` (V, 3)."""
        return interpolate_vertices(self, vertices, faces)


def interpolate_vertices(
    samples: SurfaceSamples, attributes: NDArray[np.floating], faces: NDArray[np.integer]
) -> NDArray:
    """Per-vertex attributes (V, C) at the samples, (N, C)."""
    corners = attributes[faces[samples.face_index]]
    return (corners * samples.barycentric[..., None]).sum(1)


def visible_faces(
    poses: Iterable[tuple[NDArray[np.floating], list[Camera]]], faces: NDArray[np.integer]
) -> NDArray[np.bool_]:
    """Faces (F,) that win a pixel in some camera of some pose; their neighbours count, too."""
    shown = np.zeros(len(faces), bool)
    for vertices, cameras in poses:
        for camera in cameras:
            winners = rasterize_mesh(vertices, faces, camera).face
            shown[np.unique(winners[winners >= 0])] = True
    touched = np.zeros(int(faces.max()) + 1, bool)
    touched[faces[shown].ravel()] = True
    return shown | touched[faces].all(1)


def spacing_per_face(
    vertices: NDArray[np.floating],
    faces: NDArray[np.integer],
    region: NDArray[np.uint8],
    landmarks: NDArray[np.floating],  # [68, 3] metres
    config: SurfaceSampleConfig,
) -> NDArray[np.float64]:
    """Wished distance (F,) between splats, metres."""
    kind = region[faces[:, 0]]
    spacing = np.full(len(faces), config.hair_mm)
    spacing[np.isin(kind, (Region.BUST, Region.CLOTHING))] = config.body_mm
    on_face = np.isin(kind, (Region.FACE, Region.EYE, Region.TEETH, Region.MOUTH, Region.TONGUE))
    centres = vertices[faces].mean(1)
    on_face &= (centres[:, 2] > 0.0) & (centres[:, 1] > landmarks[8, 1] - 0.02)
    spacing[on_face] = config.face_mm
    features = landmarks[17:]
    nearest = np.full(len(faces), np.inf)
    nearest[on_face] = np.sqrt(((centres[on_face, None] - features[None]) ** 2).sum(-1).min(1))
    share = np.clip((nearest - 0.006) / 0.014, 0, 1)
    spacing = np.where(
        on_face, spacing * (config.feature_share + (1 - config.feature_share) * share), spacing
    )
    return spacing * 1e-3


def sample_surface(
    vertices: NDArray[np.floating],
    faces: NDArray[np.integer],
    spacing: NDArray[np.floating],  # [F] metres
    chosen: NDArray[np.bool_],  # [F]
    seed: int,
    grown: NDArray[np.floating] | None = None,  # [F]
) -> SurfaceSamples:
    """Points on the chosen faces, at least one on each, about ``spacing`` apart.

    ``grown`` says how many times its area a face has where the distance is to hold, such as a lid
    that is folded in ``vertices``.
    """
    area = face_areas(vertices.astype(np.float64), faces)
    chosen = chosen & (area > 1e-12)
    area = area if grown is None else area * grown
    generator = np.random.default_rng(seed)
    # One splat per hexagonal cell of that pitch; the remainder decides by chance.
    wished = np.where(chosen, area / (0.866 * spacing**2), 0)
    count = np.floor(wished + generator.random(len(faces))).astype(int)
    count = np.where(chosen, np.maximum(count, 1), 0)
    face_index = np.repeat(np.arange(len(faces)), count)
    order = np.concatenate([np.arange(n) for n in count]) if len(face_index) else face_index
    shift = generator.random((len(faces), 2))[face_index]
    # The R2 low-discrepancy sequence, shifted per face: even without being a grid.
    u = (shift[:, 0] + order * 0.7548776662466927) % 1
    v = (shift[:, 1] + order * 0.5698402909980532) % 1
    flip = u + v > 1
    u, v = np.where(flip, 1 - u, u), np.where(flip, 1 - v, v)
    barycentric = np.stack([1 - u - v, u, v], 1)
    single = count[face_index] == 1
    barycentric[single] = 1 / 3
    actual = np.sqrt(area / np.maximum(count, 1) / 0.866)
    return SurfaceSamples(
        face_index.astype(np.int64), barycentric.astype(np.float32),
        actual[face_index].astype(np.float32),
    )  # fmt: skip


def colours_from_views(
    points: NDArray[np.floating],  # [N, 3]
    normals: NDArray[np.floating],  # [N, 3]
    views: list[tuple[Camera, NDArray[np.uint8], NDArray[np.float32], float]],
    fallback: NDArray[np.floating],  # [N, 3] 0…1
    tolerance_m: float = 0.004,
) -> NDArray[np.float32]:
    """Colours (N, 3): the mean over views that see a point, squarer and heavier views first.

    ``views`` are (camera, RGBA picture, z-depth, weight); a point no view sees takes ``fallback``.
    """
    total = np.zeros((len(points), 3))
    weight_sum = np.zeros(len(points))
    for camera, picture, depth, weight in views:
        pixels, z = camera.project(points.astype(np.float64))
        x = np.clip(pixels[:, 0].astype(int), 0, camera.width - 1)
        y = np.clip(pixels[:, 1].astype(int), 0, camera.height - 1)
        inside = ((pixels >= 0) & (pixels < [camera.width, camera.height])).all(1)
        ray = camera.position - points
        cosine = (normals * ray).sum(1) / np.linalg.norm(ray, axis=1)
        seen = inside & (np.abs(depth[y, x] - z) < tolerance_m) & (picture[y, x, 3] > 200)
        share = weight * seen * cosine.clip(0, 1) ** 6
        total += share[:, None] * picture[y, x, :3] / 255
        weight_sum += share
    known = weight_sum > 1e-4
    colours = fallback.astype(np.float64).copy()
    colours[known] = total[known] / weight_sum[known, None]
    return colours.astype(np.float32)
