"""Multi-view clips of synthetic heads with exact truth, to measure trackers with.

The filmed surface is not the model's: it is subdivided and resampled, has relief (people also hair
and clothing) outside the model's space, is lit by a lamp, and the cameras the tracker is told are
slightly wrong. ``Flaws`` adds what generated views do: each view bends and tints the head in its
own way, and some views have no landmarks. Everything follows from the seed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import csr_matrix
from scipy.spatial.transform import Rotation

from fc4d_ray.cameras import Camera, look_at, orbit_camera
from fc4d_ray.evaluation.synthetic import Light, SyntheticPerson
from fc4d_ray.evaluation.synthetic_mesh import resample, vertex_normals
from fc4d_ray.evaluation.synthetic_texture import value_noise
from fc4d_ray.heads.flame import FlameModel
from fc4d_ray.heads.flame_landmarks import LandmarkEmbedding, barycentric_points
from fc4d_ray.heads.rig import Region
from fc4d_ray.rendering.mesh import rasterize_mesh
from fc4d_ray.tracking.evidence import MultiviewFrames

SUPERSAMPLING = 2
_HIDDEN_BEHIND_M = 0.006
_FRONT_Z_M, _LOWEST_Y_M = 0.02, -0.1


@dataclass(frozen=True)
class Flaws:
    """How pictures and what is told about them differ from an ideal film."""

    camera_deg: float = 0.1
    """Standard deviation of the told cameras' direction."""
    camera_m: float = 0.0005
    """Standard deviation of the told cameras' place."""
    landmark_m: float = 0.0007
    """Standard deviation of landmarks, as a length on the head."""
    view_bend_m: float = 0.0
    """Root mean square by which each view bends the head in its own way, a length on the head."""
    view_tint: float = 0.0
    """Standard deviation of each view's own colour gains."""
    blind_views: tuple[int, ...] = ()
    """Views without landmarks."""


@dataclass(frozen=True)
class FilmedHead:
    """What is in front of the cameras."""

    true_vertices: NDArray[np.float64]  # [T, V, 3] the model's own vertices, metres
    face: NDArray[np.bool_]  # [V] the part that is measured
    landmarks: NDArray[np.float64]  # [T, 68, 3]
    surface: Callable[[int], NDArray[np.float64]]  # frame to [W, 3] filmed vertices
    surface_faces: NDArray[np.int32]
    albedo: NDArray[np.float64]  # [W, 3]
    light: Light


def subdivided(faces: NDArray[np.integer], count: int) -> tuple[csr_matrix, NDArray[np.int32]]:
    """Every triangle in four: matrix (W, V) from old to new vertices, and the new faces."""
    sides = np.sort(np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]]), 1)
    edges, index = np.unique(sides, axis=0, return_inverse=True)
    ab, bc, ca = index.reshape(3, -1) + count
    a, b, c = faces.T
    corners = ((a, ab, ca), (ab, b, bc), (ca, bc, c), (ab, bc, ca))
    fine = np.concatenate([np.stack(t, 1) for t in corners]).astype(np.int32)
    rows = np.concatenate([np.arange(count), count + np.repeat(np.arange(len(edges)), 2)])
    columns = np.concatenate([np.arange(count), edges.ravel()])
    weights = np.concatenate([np.ones(count), np.full(2 * len(edges), 0.5)])
    return csr_matrix((weights, (rows, columns)), shape=(count + len(edges), count)), fine


def filmed_person(
    person: SyntheticPerson,
    actions: NDArray[np.floating],  # [T, 52]
    motion: NDArray[np.floating],  # [T, 6] rotation (axis-angle) and translation of the whole
) -> FilmedHead:
    """A synthetic person acting."""
    fine, faces = subdivided(person.faces, len(person.rest))
    canonical = fine @ person.canonical
    nearest = np.asarray(fine.argmax(axis=1)).ravel()
    hair, cloth = (fine @ person.hairline) > 0, (fine @ person.collar) > 0
    albedo = person.texture.albedo(canonical, person.region[nearest], hair, cloth)
    turns = [Rotation.from_rotvec(row[:3]) for row in motion]
    rig = person.head_rig
    posed = rig.pose(
        {"actions": torch.from_numpy(np.asarray(actions, np.float32)),
         "neck": torch.zeros(len(actions), 3)}
    ).double()  # fmt: skip
    marks = rig.landmarks(posed).numpy()

    def placed(points: NDArray, t: int) -> NDArray[np.float64]:
        return turns[t].apply(points) + motion[t, 3:]

    place = person.canonical[: len(rig.neutral)]
    front = (place[:, 2] > _FRONT_Z_M) & (place[:, 1] > _LOWEST_Y_M)
    return FilmedHead(
        np.stack([placed(v, t) for t, v in enumerate(posed.numpy())]),
        (rig.region == Region.FACE) & front,
        np.stack([placed(m, t) for t, m in enumerate(marks)]),
        lambda t: placed(fine @ person.vertices(actions[t]), t),
        faces,
        albedo,
        person.light,
    )


def filmed_flame(
    model: FlameModel,
    landmarks: LandmarkEmbedding,
    shape: NDArray[np.floating],  # [S]
    parameters: dict[str, NDArray[np.floating]],  # (T, d)
    seed: int,
) -> FilmedHead:
    """A FLAME head with relief and a blotched skin; any file in FLAME's form will do."""
    generator = np.random.default_rng([seed, 11])
    rows = {n: torch.from_numpy(np.asarray(v)).to(model.template) for n, v in parameters.items()}
    n_frames = len(rows["expr"])
    rows["shape"] = torch.from_numpy(np.asarray(shape)).to(model.template).expand(n_frames, -1)
    posed = model.pose(rows).vertices
    marks = barycentric_points(
        posed, model.faces, landmarks.faces[:68], landmarks.barycentric[:68]
    ).double()
    faces = model.faces.numpy()
    template = model.template.double().numpy()
    slid, once = resample(faces, np.full(len(template), Region.FACE, np.uint8), generator)
    twice, fine_faces = subdivided(once, slid.shape[0])
    carry = (twice @ slid).tocsr()
    canonical = carry @ template
    relief = 0.0010 * value_noise(canonical / 0.035, seed)
    relief += 0.0003 * value_noise(canonical / 0.012, seed + 1)

    def surface(t: int) -> NDArray[np.float64]:
        vertices = carry @ posed[t].double().numpy()
        return vertices + relief[:, None] * vertex_normals(vertices, fine_faces)

    front = (template[:, 2] > _FRONT_Z_M) & (template[:, 1] > _LOWEST_Y_M)
    light = Light(np.array([0.36, 0.48, 0.8]), np.full(3, 0.55), np.full(3, 0.4))
    return FilmedHead(
        posed.double().numpy(), front, marks.numpy(), surface, fine_faces,
        _blotched(canonical, seed), light,
    )  # fmt: skip


def _blotched(canonical: NDArray, seed: int) -> NDArray[np.float64]:
    """Skin with moles, patches and shade differences of several sizes, (W, 3) linear."""
    tone = 0.32 + 0.12 * value_noise(canonical / 0.04, seed + 5)
    tone = tone + 0.10 * value_noise(canonical / 0.011, seed + 6)
    spots = value_noise(canonical / 0.006, seed + 7) > 0.55
    tone = np.where(spots, 0.35 * tone, tone)[:, None]
    redness = 0.5 + 0.5 * value_noise(canonical / 0.025, seed + 8)[:, None]
    return (tone * np.concatenate([1.25 + 0.25 * redness, 0.85 - 0.1 * redness,
                                   0.7 - 0.1 * redness], 1)).clip(0.01, 0.95)  # fmt: skip


@dataclass(frozen=True)
class Film:
    """Ideal pictures and landmarks of a head, from which flawed ones are made."""

    cameras: tuple[Camera, ...]
    pictures: NDArray[np.uint8]  # [T, views, H, W, 4]
    landmarks: NDArray[np.float64]  # [T, views, 68, 2] px
    landmark_depth: NDArray[np.float64]  # [T, views, 68] metres
    in_sight: NDArray[np.float64]  # [T, views, 68] 1 or 0

    def told(self, flaws: Flaws, seed: int) -> MultiviewFrames:
        """Pictures, mattes and landmarks with flaws, and the cameras as the tracker is told."""
        generator = np.random.default_rng([seed, 12])
        images = np.empty((*self.pictures.shape[:-1], 3), np.uint8)
        mattes = np.empty(self.pictures.shape[:-1], np.uint8)
        marks = self.landmarks.copy()
        for v, view in enumerate(self.cameras):
            bend = _Bend(view, flaws, generator)
            for t in range(len(images)):
                rgba = bend.picture(self.pictures[t, v])
                alpha = rgba[..., 3:] / 255.0
                images[t, v] = (rgba[..., :3] * alpha + 255 * (1 - alpha) + 0.5).astype(np.uint8)
                mattes[t, v] = rgba[..., 3]
                noise = flaws.landmark_m * view.K[0, 0] / self.landmark_depth[t, v]
                marks[t, v] = bend.points(marks[t, v])
                marks[t, v] += noise[:, None] * generator.standard_normal((68, 2))
        confidence = self.in_sight.copy()
        confidence[:, list(flaws.blind_views)] = 0
        told = [_misjudged(view, flaws, generator) for view in self.cameras]
        return MultiviewFrames(told, images, marks, confidence, mattes)


def film(head: FilmedHead, cameras: Sequence[Camera]) -> Film:
    """Every frame from every camera."""
    camera = cameras[0]
    shape = (len(head.true_vertices), len(cameras))
    pictures = np.zeros((*shape, camera.height, camera.width, 4), np.uint8)
    marks, depths, sight = np.zeros((*shape, 68, 2)), np.zeros((*shape, 68)), np.zeros((*shape, 68))
    for t in range(shape[0]):
        surface = head.surface(t)
        colour = head.albedo * head.light.shade(vertex_normals(surface, head.surface_faces))
        for v, view in enumerate(cameras):
            pictures[t, v], depth = _render(surface, head.surface_faces, colour, view)
            marks[t, v], depths[t, v] = view.project(head.landmarks[t])
            sight[t, v] = _in_sight(marks[t, v], depths[t, v], depth)
    return Film(tuple(cameras), pictures, marks, depths, sight)


def clip_cameras(size: int, fov_deg: float = 9.0) -> list[Camera]:
    """The twelve views of a clip: eleven of the orbit up to 75 degrees, and a reference."""
    azimuths = range(-75, 76, 15)
    orbit = [orbit_camera(a, size=size, fov_deg=fov_deg) for a in azimuths]
    return [*orbit, orbit_camera(6.0, 4.0, size=size, fov_deg=fov_deg)]


def _render(
    vertices: NDArray, faces: NDArray, colour: NDArray, camera: Camera
) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """RGBA and z-depth at the pixel centres of the fine grid."""
    fine = camera.resized(camera.width * SUPERSAMPLING, camera.height * SUPERSAMPLING)
    fragments = rasterize_mesh(vertices, faces, fine)
    covered = fragments.covered
    corners = colour[faces[fragments.face[covered]]]
    linear = np.zeros((*covered.shape, 3), np.float32)
    linear[covered] = np.einsum("nkc,nk->nc", corners, fragments.barycentric[covered])
    side = (camera.width, camera.height)
    alpha = cv2.resize(covered.astype(np.float32), side, interpolation=cv2.INTER_AREA)
    mean = cv2.resize(linear, side, interpolation=cv2.INTER_AREA)
    shown = (mean / np.maximum(alpha, 1e-6)[..., None]).clip(0, 1) ** (1 / 2.2)
    rgba = np.concatenate([shown, alpha[..., None]], -1) * 255
    return rgba.round().astype(np.uint8), fragments.z_depth


def _in_sight(pixels: NDArray, z: NDArray, depth: NDArray) -> NDArray[np.float64]:
    """1 for landmarks (68, 2) on or before the surface, 0 for hidden ones."""
    height, width = depth.shape
    place = np.floor(pixels * SUPERSAMPLING).astype(int)
    x, y = place[:, 0].clip(0, width - 1), place[:, 1].clip(0, height - 1)
    seen = depth[y, x]
    return ((seen == 0) | (z < seen + _HIDDEN_BEHIND_M)).astype(np.float64)


class _Bend:
    """How one view departs from the others: a smooth displacement and a tint."""

    def __init__(self, camera: Camera, flaws: Flaws, generator: np.random.Generator) -> None:
        coarse = generator.standard_normal((5, 5, 2)).astype(np.float32)
        field = cv2.resize(coarse, (camera.width, camera.height), interpolation=cv2.INTER_CUBIC)
        distance = np.linalg.norm(camera.position)
        size = flaws.view_bend_m * camera.K[0, 0] / distance
        field *= size / max(float(np.sqrt(np.square(field).sum(-1).mean())), 1e-9)
        y, x = np.mgrid[: camera.height, : camera.width].astype(np.float32)
        self._field = field
        self._is_bent = size > 0
        self._maps = (x - field[..., 0], y - field[..., 1])
        self._gains = 1 + flaws.view_tint * generator.standard_normal(3)

    def picture(self, rgba: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """The view's own version of an ideal picture."""
        rgba = rgba.astype(np.float32)
        if self._is_bent:
            rgba = cv2.remap(rgba, *self._maps, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
        rgba[..., :3] *= self._gains
        return rgba.clip(0, 255).round().astype(np.uint8)

    def points(self, pixels: NDArray) -> NDArray[np.float64]:
        """Where pixels (N, 2) have moved to."""
        if not self._is_bent:
            return pixels
        height, width = self._field.shape[:2]
        x = pixels[:, 0].astype(int).clip(0, width - 1)
        y = pixels[:, 1].astype(int).clip(0, height - 1)
        return pixels + self._field[y, x]


def _misjudged(camera: Camera, flaws: Flaws, generator: np.random.Generator) -> Camera:
    """The camera as told: turned about the head and moved a little."""
    turn = Rotation.from_rotvec(np.deg2rad(flaws.camera_deg) * generator.standard_normal(3))
    position = turn.apply(camera.position) + flaws.camera_m * generator.standard_normal(3)
    target = flaws.camera_m * generator.standard_normal(3)
    return Camera(camera.K, look_at(position, target), camera.width, camera.height)
