"""Synthetic people with ground truth, for tests, benchmarks and ablations.

A person is drawn from the embedded head model and then taken away from it, so that fitting the
model back is no inverse crime: the mesh is subdivided and resampled, the skin gets relief outside
the model's space, scalp and torso are inflated to hair and clothing, colour is a procedural texture
of canonical coordinates, and the camera has its own field of view and roll. Everything follows
from the seed. Frames and units: docs/conventions.md.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import csr_matrix
from scipy.spatial import cKDTree

from fc4d_ray.cameras import Camera, orbit_camera
from fc4d_ray.evaluation.synthetic_mesh import (
    collar_depth,
    hairline_depth,
    photographed_rig,
    resample,
    strongest_source,
    vertex_normals,
    with_clothing,
    with_hair,
    with_relief,
)
from fc4d_ray.evaluation.synthetic_texture import FaceMarks, Texture
from fc4d_ray.heads.anny import AnnyHead, load_anny_head
from fc4d_ray.heads.rig import HeadRig, Region
from fc4d_ray.portraits.geometry_prior import BACKGROUND, CLOTHING, HAIR, SKIN
from fc4d_ray.rendering.mesh import MeshFragments, rasterize_mesh

SUPERSAMPLING = 2


@dataclass(frozen=True)
class Light:
    """One distant lamp and light from everywhere; fixed to the head frame."""

    direction: NDArray[np.float64]  # [3] unit, towards the lamp
    lamp: NDArray[np.float64]  # [3] RGB
    ambient: NDArray[np.float64]  # [3] RGB

    def shade(self, normals: NDArray[np.floating]) -> NDArray[np.float64]:
        """Irradiance (N, 3) on matte surfaces with unit normals (N, 3)."""
        cosine = (normals @ self.direction).clip(0, 1)
        sky = 0.8 + 0.2 * normals[:, 1:2]
        return cosine[:, None] * self.lamp + sky * self.ambient


@dataclass(frozen=True)
class SyntheticPortrait:
    """What ingest would know of the person, exact, and the camera it cannot know."""

    camera: Camera
    image: NDArray[np.uint8]  # [S, S, 3] person over a backdrop
    matte: NDArray[np.uint8]  # [S, S]
    labels: NDArray[np.uint8]  # [S, S] portraits/geometry_prior.py
    landmarks: NDArray[np.float64]  # [68, 2] px
    depth: NDArray[np.float32]  # [S, S] metres, 0 = nothing


@dataclass(frozen=True)
class SyntheticPerson:
    """Geometry, looks and light of one person; actions are relative to the photographed face."""

    seed: int
    head_rig: HeadRig
    """The bare model head underneath, posed as photographed: the topology that is fitted."""
    rest: NDArray[np.float64]  # [V, 3] metres, finer mesh with relief, hair and clothing
    faces: NDArray[np.int32]  # [F, 3]
    resampling: csr_matrix  # [V, V of head_rig] vertices as means of the model's
    canonical: NDArray[np.float64]  # [V, 3] place on the mean head
    region: NDArray[np.uint8]  # [V] Region
    hairline: NDArray[np.float64]  # [V] metres inside the hair, negative outside
    collar: NDArray[np.float64]  # [V] metres below the collar, negative above
    texture: Texture
    light: Light
    hair_thickness_m: float

    def vertices(self, actions: NDArray[np.floating] | None = None) -> NDArray[np.float64]:
        """Surface (V, 3) under ``actions`` (52,), 0…1 relative to the photographed face."""
        if actions is None:
            return self.rest
        offset = np.tensordot(np.asarray(actions, np.float64), self.head_rig.action_basis, 1)
        return self.rest + self.resampling @ offset

    def render(
        self, camera: Camera, size: int | None = None, actions: NDArray[np.floating] | None = None
    ) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
        """RGBA (S, S, 4), straight alpha, and z-depth (S, S) at the pixel centres, metres."""
        camera = camera if size is None else camera.resized(size, size)
        vertices = self.vertices(actions)
        fine = camera.resized(camera.width * SUPERSAMPLING, camera.height * SUPERSAMPLING)
        fragments = rasterize_mesh(vertices, self.faces, fine)
        covered = fragments.covered
        normals = vertex_normals(vertices, self.faces)
        values = self._at_pixels(np.concatenate([self.canonical, normals], 1), fragments)
        hair, cloth = self._kinds(fragments)
        normal = values[:, 3:] / (np.linalg.norm(values[:, 3:], axis=1, keepdims=True) + 1e-12)
        region = self.region[self._corner(fragments)]
        albedo = self.texture.albedo(values[:, :3], region, hair, cloth)
        linear = np.zeros((*covered.shape, 3))
        linear[covered] = albedo * self.light.shade(normal)
        side = (camera.width, camera.height)
        alpha = cv2.resize(covered.astype(np.float64), side, interpolation=cv2.INTER_AREA)
        mean = cv2.resize(linear, side, interpolation=cv2.INTER_AREA)
        colour = (mean / np.maximum(alpha, 1e-6)[..., None]).clip(0, 1) ** (1 / 2.2)
        rgba = np.concatenate([colour, alpha[..., None]], -1)
        depth = rasterize_mesh(vertices, self.faces, camera).z_depth
        return (rgba * 255 + 0.5).astype(np.uint8), depth

    def labels(self, camera: Camera, size: int | None = None) -> NDArray[np.uint8]:
        """Region labels (S, S) of portraits/geometry_prior.py."""
        camera = camera if size is None else camera.resized(size, size)
        fragments = rasterize_mesh(self.rest, self.faces, camera)
        covered = fragments.covered
        hair, cloth = self._kinds(fragments)
        label = np.where(hair, HAIR, np.where(cloth, CLOTHING, SKIN))
        result = np.full(covered.shape, BACKGROUND, np.uint8)
        result[covered] = label
        return result

    def landmarks(
        self, camera: Camera, actions: NDArray[np.floating] | None = None
    ) -> NDArray[np.float64]:
        """The 68 landmarks (68, 2) in pixels as a perfect detector marks them.

        On the side that turns away, jaw marks move to the visible outline of the face.
        """
        marks, _ = camera.project(self.landmark_points(actions))
        x, _, z = camera.position
        yaw_deg = np.rad2deg(np.arctan2(x, z))
        if abs(yaw_deg) > 8:
            far = range(8) if yaw_deg > 0 else range(9, 17)
            self._slide_to_outline(marks, far, camera, actions)
        return marks

    def landmark_points(self, actions: NDArray[np.floating] | None = None) -> NDArray[np.float64]:
        """The 68 landmarks (68, 3) on the bare head, metres."""
        parameters = self.head_rig.neutral_parameters()
        if actions is not None:
            parameters["actions"] = torch.as_tensor(np.asarray(actions, np.float32))[None]
        vertices = self.head_rig.pose(parameters)[0]
        return self.head_rig.landmarks(vertices).numpy().astype(np.float64)

    def portrait_camera(
        self, azimuth_deg: float | None = None, size: int = 512, fov_deg: float | None = None
    ) -> Camera:
        """A photographer's camera: framed as ingest frames crops; unset values follow the seed."""
        generator = np.random.default_rng([self.seed, 7])
        drawn = generator.uniform([-25, -6, 14, -2.5], [25, 8, 26, 2.5])
        azimuth_deg = drawn[0] if azimuth_deg is None else azimuth_deg
        fov_deg = drawn[2] if fov_deg is None else fov_deg
        distance = 0.21 / np.tan(np.deg2rad(fov_deg) / 2)
        camera = orbit_camera(azimuth_deg, drawn[1], size=size, radius_m=distance, fov_deg=fov_deg)
        roll = np.deg2rad(drawn[3])
        turn = np.eye(4)
        turn[:2, :2] = [[np.cos(roll), -np.sin(roll)], [np.sin(roll), np.cos(roll)]]
        return _framed(
            Camera(camera.K, turn @ camera.world_to_camera, size, size), self.landmark_points()
        )

    def portrait(self, camera: Camera | None = None, size: int = 512) -> SyntheticPortrait:
        """A photograph over a soft backdrop, with everything ingest finds out, exact."""
        camera = self.portrait_camera(size=size) if camera is None else camera
        rgba, depth = self.render(camera)
        backdrop = _backdrop(camera.width, np.random.default_rng([self.seed, 8]))
        alpha = rgba[..., 3:].astype(np.float64) / 255
        image = rgba[..., :3] * alpha + backdrop * (1 - alpha)
        return SyntheticPortrait(
            camera, (image + 0.5).astype(np.uint8), rgba[..., 3].copy(), self.labels(camera),
            self.landmarks(camera), depth,
        )  # fmt: skip

    @cached_property
    def face_surface(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Dense points (N, 3) of the bare skin around the face and their normals (N, 3)."""
        skin = (self.region == Region.FACE) & (self.hairline < 0)
        skin &= (self.canonical[:, 2] > 0.0) & (self.canonical[:, 1] > -0.11)
        corners = self.rest[self.faces[skin[self.faces].all(1)]]
        normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
        normals /= np.linalg.norm(normals, axis=1, keepdims=True) + 1e-15
        weights = np.array([[1, 1, 1], [4, 1, 1], [1, 4, 1], [1, 1, 4]], np.float64)
        weights /= weights.sum(1, keepdims=True)
        points = np.einsum("kc,fcd->fkd", weights, corners).reshape(-1, 3)
        return points, np.repeat(normals, len(weights), 0)

    def _at_pixels(self, attributes: NDArray, fragments: MeshFragments) -> NDArray[np.float64]:
        """Per-vertex values (V, C) at the covered pixels, (N, C)."""
        covered = fragments.covered
        corners = attributes[self.faces[fragments.face[covered]]]
        return np.einsum("nkc,nk->nc", corners, fragments.barycentric[covered].astype(np.float64))

    def _corner(self, fragments: MeshFragments) -> NDArray[np.int32]:
        covered = fragments.covered
        corner = fragments.barycentric[covered].argmax(-1)
        return self.faces[fragments.face[covered], corner]

    def _kinds(self, fragments: MeshFragments) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """Whether each covered pixel shows hair or clothing."""
        values = self._at_pixels(np.stack([self.hairline, self.collar], 1), fragments)
        return values[:, 0] > 0, values[:, 1] > 0

    def _slide_to_outline(self, marks: NDArray, far: range, camera: Camera, actions) -> None:
        """Move jaw marks, in place, to the outermost face pixel of their rows."""
        fine = camera.resized(640, 640)
        face = self.region == Region.FACE
        fragments = rasterize_mesh(self.vertices(actions), self.faces, fine)
        skin = np.zeros(fragments.face.shape, bool)
        skin[fragments.covered] = face[self._corner(fragments)]
        hair, cloth = self._kinds(fragments)
        skin[fragments.covered] &= ~hair & ~cloth
        scale = camera.width / 640
        for i in far:
            row = round(marks[i, 1] / scale - 0.5)
            columns = np.flatnonzero(skin[min(max(row, 0), 639)])
            if len(columns):
                edge = columns[0] if far[0] == 0 else columns[-1] + 1
                marks[i, 0] = edge * scale


def make_person(seed: int, head: AnnyHead | None = None) -> SyntheticPerson:
    """The person of a seed; ``head`` saves loading the model again."""
    head = load_anny_head() if head is None else head
    generator = np.random.default_rng([seed, 1])
    rig = photographed_rig(head, generator)
    resampling, faces = resample(head.faces, head.region, generator)
    coarse = head.mean.astype(np.float64)
    canonical = resampling @ coarse
    region = head.region[strongest_source(resampling)]
    hairline, collar = hairline_depth(canonical, region), collar_depth(canonical, region)
    thickness = float(generator.choice([0.0, generator.uniform(0.012, 0.025), 0.04]))
    if thickness == 0:
        hairline = np.full_like(hairline, -1.0)
    rest = resampling @ rig.neutral.astype(np.float64)
    rest = with_relief(rest, faces, canonical, region, int(generator.integers(2**31)))
    rest = with_hair(rest, canonical, hairline, thickness, int(generator.integers(2**31)))
    rest = with_clothing(rest, faces, collar)
    texture = Texture.random(_marks(head), generator)
    return SyntheticPerson(
        seed, rig, rest, faces, resampling, canonical, region, hairline, collar, texture,
        _random_light(generator), thickness,
    )  # fmt: skip


def surface_error_mm(vertices_estimated: NDArray[np.floating], person: SyntheticPerson) -> float:
    """Mean distance of an estimated face from the true skin, millimetres.

    ``vertices_estimated`` (V, 3) starts with the embedded head's vertices in their order; what
    follows (hair, clothing) is ignored. Position, rotation and scale are aligned first, on the
    front of the face; distances are from vertices to the true surface's tangent planes.
    """
    model = person.head_rig
    mean_place = person.canonical[: len(model.neutral)]
    front = (model.region == Region.FACE) & (mean_place[:, 2] > 0.02) & (mean_place[:, 1] > -0.1)
    points = np.asarray(vertices_estimated, np.float64)[: len(model.neutral)][front]
    points = similarity(points, model.neutral[front].astype(np.float64))
    surface, normals = person.face_surface
    tree = cKDTree(surface)
    for _ in range(12):
        _, nearest = tree.query(points)
        gap = ((surface[nearest] - points) * normals[nearest]).sum(1, keepdims=True)
        points = similarity(points, points + gap * normals[nearest])
    _, nearest = tree.query(points)
    return float(np.abs(((surface[nearest] - points) * normals[nearest]).sum(1)).mean() * 1000)


def similarity(points: NDArray, targets: NDArray) -> NDArray[np.float64]:
    """``points`` (N, 3) after the least-squares rotation, scale and shift onto ``targets``.

    Umeyama's closed form (PAMI 1991).
    """
    a, b = points.mean(0), targets.mean(0)
    u, s, vt = np.linalg.svd((targets - b).T @ (points - a))
    sign = np.array([1.0, 1.0, np.sign(np.linalg.det(u @ vt))])
    scale = (s * sign).sum() / np.square(points - a).sum()
    return scale * (points - a) @ (u * sign @ vt).T + b


def _marks(head: AnnyHead) -> FaceMarks:
    corners = head.mean[head.faces[head.landmark_faces]].astype(np.float64)
    landmarks = (corners * head.landmark_barycentric[..., None]).sum(1)
    eyes = head.mean[head.region == Region.EYE].astype(np.float64)
    right, left = eyes[eyes[:, 0] < 0], eyes[eyes[:, 0] > 0]
    centres = np.stack([0.5 * (e.min(0) + e.max(0)) for e in (right, left)])
    return FaceMarks(landmarks, centres, float(eyes[:, 2].max()))


def _random_light(generator: np.random.Generator) -> Light:
    azimuth, elevation = np.deg2rad(generator.uniform([-60, 5], [60, 55]))
    direction = np.array(
        [
            np.cos(elevation) * np.sin(azimuth),
            np.sin(elevation),
            np.cos(elevation) * np.cos(azimuth),
        ]
    )
    warmth = generator.uniform(-0.08, 0.08)
    tint = np.array([1 + warmth, 1.0, 1 - warmth])
    return Light(
        direction, generator.uniform(0.35, 0.7) * tint, generator.uniform(0.3, 0.5) * np.ones(3)
    )


def _framed(camera: Camera, landmarks: NDArray[np.float64]) -> Camera:
    """The camera cropped to ingest's framing: brows to chin 0.265 of the side, centre at 0.53."""
    size = camera.width
    marks, _ = camera.project(landmarks)
    brow_y, chin_y = marks[17:27, 1].mean(), marks[8, 1]
    zoom = 0.265 * size / (chin_y - brow_y)
    jaw_x = 0.5 * (marks[0, 0] + marks[16, 0])
    face_x = jaw_x + 0.3 * (jaw_x - marks[27:31, 0].mean())
    K = np.diag([zoom, zoom, 1.0]) @ camera.K
    left = zoom * face_x - 0.5 * size
    top = zoom * 0.5 * (brow_y + chin_y) - 0.53 * size
    return Camera(K, camera.world_to_camera, size, size).cropped(left, top, size, size)


def _backdrop(size: int, generator: np.random.Generator) -> NDArray[np.float64]:
    """A soft gradient (S, S, 3) in 0…255."""
    corners = generator.uniform(40, 230, (2, 2, 1)) + generator.uniform(-25, 25, (2, 2, 3))
    return cv2.resize(corners, (size, size), interpolation=cv2.INTER_LINEAR).clip(0, 255)
