from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from types import MappingProxyType

import numpy as np
import pytest
import torch
from scipy.spatial import ConvexHull

from fc4d_ray.avatar.frames import Sample
from fc4d_ray.avatar.gaussians import Gaussians
from fc4d_ray.avatar.initialise import initialise_on_surface
from fc4d_ray.cameras import orbit_camera, pixel_centres

SHARED = Path(__file__).resolve().parents[3] / "shared"
_MISSING = "the gaussian_avatar parity kit is not beside the repository"


@pytest.fixture(scope="session")
def kit() -> dict[str, np.ndarray]:
    """Vectors of the gaussian_avatar parity kit."""
    path = SHARED / "parity" / "gaussian_avatar" / "vectors_seed0.npz"
    if not path.exists():
        pytest.skip(_MISSING)
    with np.load(path) as file:
        return dict(file)


@pytest.fixture(scope="session")
def fill():
    """The parity kits' deterministic tensor generator."""
    path = SHARED / "parity" / "fill.py"
    if not path.exists():
        pytest.skip(_MISSING)
    spec = importlib.util.spec_from_file_location("parity_fill", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.fill


class EllipsoidMesh:
    """An icosphere of 320 faces whose parameter ``stretch`` grows it along y."""

    radius = 0.1
    parameter_sizes = MappingProxyType({"stretch": 1})
    kind = "ellipsoid"

    def __init__(self) -> None:
        self.vertices, self.faces = _icosphere(2)

    def pose(self, parameters: Mapping[str, torch.Tensor]) -> torch.Tensor:
        stretch = 1 + parameters["stretch"]
        factors = torch.cat([torch.ones_like(stretch), stretch, torch.ones_like(stretch)], 1)
        return self.radius * self.vertices.to(stretch) * factors[:, None]

    def to_arrays(self) -> dict[str, np.ndarray]:
        return {"vertices": self.vertices.numpy(), "faces": self.faces.numpy()}

    @staticmethod
    def from_arrays(arrays: Mapping[str, np.ndarray]) -> EllipsoidMesh:
        mesh = EllipsoidMesh()
        mesh.vertices = torch.from_numpy(np.array(arrays["vertices"]))
        mesh.faces = torch.from_numpy(np.array(arrays["faces"]))
        return mesh


def surface_colour(points: np.ndarray) -> np.ndarray:
    """A smooth pattern over the unit sphere, (..., 3) in [0, 1]."""
    waves = points @ np.array([[9.0, 2.0, -3.0], [1.0, 8.0, 5.0], [4.0, -6.0, 7.0]])
    return 0.5 + 0.4 * np.sin(waves)


class EllipsoidFrames:
    """Exact pictures of the ellipsoid, ray traced; a ``FrameSource``.

    ``tints`` (views, 3) are added to the colours of each view: an injected inconsistency.
    """

    def __init__(
        self,
        size: int = 64,
        n_views: int = 6,
        stretches: tuple[float, ...] = (0.0, 0.3),
        tints: np.ndarray | None = None,
    ) -> None:
        azimuths = np.arange(n_views) * 360 / n_views
        self.views = [orbit_camera(a, 10.0, size=size, radius_m=0.9, fov_deg=17) for a in azimuths]
        self.reference_view = 0
        self.parameters = {"stretch": torch.tensor(stretches)[:, None]}
        self.static_samples = [Sample(v, 0) for v in range(n_views)]
        self.animated_samples = [
            Sample(v, t) for v in range(n_views) for t in range(1, len(stretches))
        ]
        self.tints = np.zeros((n_views, 3)) if tints is None else tints

    def load(self, sample: Sample) -> np.ndarray:
        camera = self.views[sample.view]
        pixels = pixel_centres(camera.width, camera.height)
        scale = np.array([1, 1 + self.parameters["stretch"][sample.time, 0].item(), 1])
        axes = EllipsoidMesh.radius * scale
        origin = camera.position / axes
        direction = (camera.unproject(pixels, np.ones(pixels.shape[:2])) - camera.position) / axes
        a, b = (direction**2).sum(-1), direction @ origin
        discriminant = b * b - a * (origin @ origin - 1)
        hit = discriminant > 0
        distance = (-b - np.sqrt(np.maximum(discriminant, 0))) / a
        colour = surface_colour(origin + direction * distance[..., None]) + self.tints[sample.view]
        rgba = np.concatenate([colour, hit[..., None]], -1) * hit[..., None]
        return (rgba.clip(0, 1) * 255).round().astype(np.uint8)


def _icosphere(subdivisions: int) -> tuple[torch.Tensor, torch.Tensor]:
    golden = (1 + 5**0.5) / 2
    corners = np.array([[-1, golden, 0], [1, golden, 0], [-1, -golden, 0], [1, -golden, 0]])
    vertices = np.concatenate([corners, corners[:, [2, 0, 1]], corners[:, [1, 2, 0]]])
    vertices /= np.linalg.norm(vertices[0])
    faces = ConvexHull(vertices).simplices
    for _ in range(subdivisions):
        middles = [vertices[faces[:, i]] + vertices[faces[:, (i + 1) % 3]] for i in range(3)]
        points = np.concatenate([vertices, *middles])
        points /= np.linalg.norm(points, axis=1, keepdims=True)
        vertices = np.unique(points.round(9), axis=0)
        vertices /= np.linalg.norm(vertices, axis=1, keepdims=True)
        faces = ConvexHull(vertices).simplices
    v0, v1, v2 = (vertices[faces[:, i]] for i in range(3))
    inward = (np.cross(v1 - v0, v2 - v0) * v0).sum(1) < 0
    faces[inward] = faces[inward][:, ::-1]
    return torch.from_numpy(vertices.astype(np.float32)), torch.from_numpy(faces.astype(np.int64))


def surface_splats(mesh: EllipsoidMesh, n: int, seed: int = 0) -> Gaussians:
    """Grey splats at random points of the neutral ellipsoid, no face without one."""
    generator = torch.Generator().manual_seed(seed)
    n_faces = len(mesh.faces)
    more = torch.randint(0, n_faces, (n - n_faces,), generator=generator)
    face_index = torch.cat([torch.arange(n_faces), more])
    barycentric = torch.rand(n, 3, generator=generator)
    barycentric /= barycentric.sum(1, keepdim=True)
    vertices = mesh.pose({"stretch": torch.zeros(1, 1)})[0]
    spacing = (4 * np.pi * mesh.radius**2 / n) ** 0.5
    return initialise_on_surface(
        vertices, mesh.faces, face_index, barycentric, torch.full((n, 3), 0.5), spacing
    )


@pytest.fixture(scope="session")
def ellipsoid() -> EllipsoidMesh:
    return EllipsoidMesh()


@pytest.fixture(scope="session")
def make_frames() -> type[EllipsoidFrames]:
    """``EllipsoidFrames``, to be called with its arguments."""
    return EllipsoidFrames


@pytest.fixture(scope="session")
def make_splats(ellipsoid):
    """``surface_splats`` on the ellipsoid, to be called with a number of splats."""
    return partial(surface_splats, ellipsoid)
