"""Where the 68 iBUG landmarks lie on a head mesh, found by looking at it.

The template is rendered from the front with plain shading and dark brows, irises and lips, the
68-point detector that will see the portraits marks the render, and each mark is cast back to a
triangle and barycentrics. Detector and embedding then share their idea of each landmark.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import minimum_filter

from fc4d_ray.cameras import Camera, look_at, pixel_centres
from fc4d_ray.errors import FitFailed
from fc4d_ray.heads.rig import Region
from fc4d_ray.portraits.dlib_models import FaceModels
from fc4d_ray.portraits.landmarks import MIRRORED_LANDMARK

_SIZE = 640
_UPPER_INNER_LIP, _LOWER_INNER_LIP = (61, 62, 63), (65, 66, 67)


def embed_landmarks(
    vertices: NDArray[np.floating],
    faces: NDArray[np.integer],
    region: NDArray[np.uint8],
    follows_jaw: NDArray[np.bool_],
) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """Faces (68,) and barycentrics (68, 3) of the landmarks on a neutral, symmetric head.

    ``follows_jaw`` (V,) tells the lower lip from the upper one: between closed lips a mark is a
    pixel away from the wrong one.

    Raises ``FitFailed`` where the detector finds no face on the render.
    """
    from fc4d_ray.rendering.mesh import rasterize_mesh

    camera = frontal_camera()
    fragments = rasterize_mesh(vertices, faces, camera)
    marks = _detect(shaded(vertices, faces, template_albedo(vertices, region), camera))
    # The detector is not symmetric; the head is.
    mirrored = marks[list(MIRRORED_LANDMARK)]
    marks = 0.5 * (marks + np.stack([_SIZE - mirrored[:, 0], mirrored[:, 1]], 1))
    depth = np.where(fragments.face >= 0, fragments.z_depth, np.inf)
    # A mark beside the gap of the lips or below the jaw means the nearer surface.
    hit = depth < minimum_filter(depth, 11) + 0.015
    # Marks along the lids belong to the lids: those on the eyeball would not follow a blink.
    skin = hit & np.isin(region[faces[np.maximum(fragments.face, 0), 0]], (Region.FACE, Region.EAR))
    jaw = follows_jaw[faces[np.maximum(fragments.face, 0)]].all(-1)
    landmark_faces = np.zeros(68, np.int32)
    barycentric = np.zeros((68, 3), np.float32)
    for i, mark in enumerate(marks):
        usable = skin if 36 <= i < 48 else hit
        if i in _UPPER_INNER_LIP:
            usable = hit & ~jaw
        elif i in _LOWER_INNER_LIP:
            usable = hit & jaw
        centres = pixel_centres(_SIZE, _SIZE)[usable]
        nearest = np.argmin(((centres - mark) ** 2).sum(1))
        landmark_faces[i] = fragments.face[usable][nearest]
        barycentric[i] = fragments.barycentric[usable][nearest]
    return landmark_faces, barycentric


def frontal_camera() -> Camera:
    """A telephoto view of the face, 0.32 m across."""
    target = np.array([0.0, -0.02, 0.0])
    focal = 4.0 * _SIZE / 0.32
    K = np.array([[focal, 0, _SIZE / 2], [0, focal, _SIZE / 2], [0, 0, 1]], np.float64)
    return Camera(K, look_at(target + np.array([0.0, 0.0, 4.0]), target), _SIZE, _SIZE)


def template_albedo(
    vertices: NDArray[np.floating], region: NDArray[np.uint8]
) -> NDArray[np.float32]:
    """Plain colours (V, 3) of a neutral head: skin, white eyes with irises, dark brows."""
    points = torch.as_tensor(np.asarray(vertices, np.float32))
    albedo = torch.tensor([0.85, 0.66, 0.56]).repeat(len(points), 1)
    eye = torch.as_tensor(region == Region.EYE)
    albedo[eye] = torch.tensor([0.9, 0.9, 0.9])
    albedo[torch.as_tensor(region == Region.TEETH)] = torch.tensor([0.9, 0.88, 0.8])
    inside = torch.as_tensor(np.isin(region, (Region.TONGUE, Region.MOUTH)))
    albedo[inside] = torch.tensor([0.5, 0.22, 0.2])
    for side in (points[:, 0] > 0, points[:, 0] < 0):
        ball = points[eye & side]
        centre = torch.stack([ball[:, 0].mean(), ball[:, 1].mean(), ball[:, 2].max()])
        iris = eye & side & ((points - centre).norm(dim=1) < 0.008)
        albedo[iris] = torch.tensor([0.2, 0.13, 0.1])
        # Eyebrow: a dark arch 20 mm above the eye.
        dx, dy = points[:, 0] - centre[0], points[:, 1] - centre[1]
        arch = 0.021 - 9.0 * dx.square()
        brow = ~eye & side & (dx.abs() < 0.022) & ((dy - arch).abs() < 0.0045)
        albedo[brow & (points[:, 2] > 0)] = torch.tensor([0.25, 0.17, 0.12])
    return albedo.numpy()


def shaded(
    vertices: NDArray[np.floating],
    faces: NDArray[np.integer],
    albedo: NDArray[np.floating],
    camera: Camera,
) -> NDArray[np.uint8]:
    """(H, W, 3) picture of a plainly lit mesh before grey."""
    from fc4d_ray.rendering.mesh import interpolate, rasterize_mesh, vertex_normals

    fragments = rasterize_mesh(vertices, faces, camera)
    points = torch.as_tensor(np.asarray(vertices, np.float32))
    index = torch.as_tensor(np.asarray(faces)).long()
    light = torch.nn.functional.normalize(torch.tensor([0.15, 0.35, 1.0]), dim=0)
    shade = (vertex_normals(points, index) @ light).clamp(0, 1) * 0.75 + 0.2
    lit = torch.as_tensor(albedo).float() * shade[:, None]
    colour = interpolate(lit, index, fragments).numpy()
    image = np.where((fragments.face >= 0)[..., None], colour, 0.35)
    return (image.clip(0, 1) * 255).astype(np.uint8)


def _detect(image: NDArray[np.uint8]) -> NDArray[np.float64]:
    models = FaceModels()
    found = models.find_hog(image, upsample=0, threshold=-0.5)
    if not found:
        raise FitFailed("no face was detected on the head model's own render")
    return models.landmarks(image, found[0].box)
