"""The embedded profile's head model: ``anny`` cut to head and bust, as one compact linear model.

``anny`` (Apache-2.0 code, CC0 data) describes whole bodies through non-linear phenotypes, signed
local changes and 52 ARKit actions, and takes many seconds to build. Only the head matters here, so
a population of heads is drawn from it once, cut, aligned, and reduced to a linear identity space
with unit-variance coefficients. The result is cached in the user's cache folder.

Frame: origin at the level of the ears in the middle of the skull, metres (docs/conventions.md).
"""

from __future__ import annotations

import importlib.metadata
import os
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fc4d_ray.heads.landmark_embedding import embed_landmarks
from fc4d_ray.heads.open_mouth import shape_open_mouth
from fc4d_ray.heads.rig import HeadRig, Region
from fc4d_ray.heads.teeth import make_mouth_bag, make_teeth

FORMAT = 25
"""Raised whenever the cut or the reduction changes, so that an old cache is not read."""

BUST_DEPTH_M = 0.42
"""How far below the top of the skull the mesh is cut."""

N_POPULATION = 900
N_IDENTITY = 110
HEAD_LOCAL_CHANGES = (
    "cheek", "chin", "ear", "eye", "forehead", "head", "mouth", "neck", "nose", "eyebrows",
)  # fmt: skip


@dataclass(frozen=True)
class AnnyHead:
    """The linear head model: ``mean + coefficients @ identity_basis``."""

    mean: NDArray[np.float32]  # [V, 3] metres
    identity_basis: NDArray[np.float32]  # [K, V, 3] metres per standard deviation
    action_basis: NDArray[np.float32]  # [52, V, 3] metres
    action_names: tuple[str, ...]
    faces: NDArray[np.int32]  # [F, 3]
    mirror: NDArray[np.int32]  # [V] index of the vertex on the other side
    region: NDArray[np.uint8]  # [V]
    neck_pivot: NDArray[np.float32]  # [3]
    neck_weight: NDArray[np.float32]  # [V]
    landmark_faces: NDArray[np.int32]  # [68]
    landmark_barycentric: NDArray[np.float32]  # [68, 3]

    def rig(self, identity: NDArray[np.floating]) -> HeadRig:
        """The posable head of identity coefficients (K,)."""
        # Not through BLAS, whose rounding depends on the number of threads.
        offset = np.einsum("k,kvc->vc", identity.astype(np.float32), self.identity_basis)
        neutral = self.mean + offset
        return HeadRig(
            neutral=neutral.astype(np.float32),
            faces=self.faces,
            action_basis=self.action_basis,
            action_names=self.action_names,
            neck_pivot=self.neck_pivot,
            neck_weight=self.neck_weight,
            region=self.region,
            landmark_faces=self.landmark_faces,
            landmark_barycentric=self.landmark_barycentric,
        )


def anny_version() -> str:
    return importlib.metadata.version("anny")


def cache_path(cache_dir: Path | None = None) -> Path:
    """Where the compact model lies: a file named after anny's version and our format."""
    if cache_dir is None:
        base = os.environ.get("FC4D_CACHE") or os.environ.get("XDG_CACHE_HOME")
        cache_dir = (Path(base) if base else Path.home() / ".cache") / "fc4d_ray"
    return cache_dir / f"anny-head-{anny_version()}-v{FORMAT}.npz"


def load_anny_head(cache_dir: Path | None = None) -> AnnyHead:
    """The compact model, built (about a minute) on the first call on a machine."""
    path = cache_path(cache_dir)
    if not path.exists():
        head = build_anny_head()
        path.parent.mkdir(parents=True, exist_ok=True)
        scratch = path.with_name(f".{os.getpid()}-{path.name}")
        np.savez(scratch, **_to_arrays(head))
        scratch.replace(path)
    with np.load(path) as arrays:
        return _from_arrays(dict(arrays))


def build_anny_head() -> AnnyHead:
    """Draw a population from ``anny``, cut it to the bust, and reduce it."""
    import anny

    model = anny.Anny(local_changes="all", facial_actions="all")
    population, names = _sample_population(model, np.random.default_rng(0))
    template = population[0]
    kept, faces = _cut(template, np.asarray(model.get_triangular_faces()))
    population = population[:, kept]
    region = _regions(model, kept, template[kept], faces)
    population = _align(population, region)
    mean = population[1:].mean(0)
    identity = _principal_components(population[1:] - mean, N_IDENTITY)

    blendshapes = model.blendshapes.numpy()
    labels = list(model.blendshape_labels)
    actions = np.stack([blendshapes[labels.index(f"facial_action:{n}")][kept] for n in names])
    actions = _to_head_frame(actions)
    mirror = _mirror_map(mean)
    mean, identity = _symmetric(mean, mirror), identity
    neck_weight, pivot = _neck(model, kept, mean)

    bare = AnnyHead(
        mean.astype(np.float32), identity.astype(np.float32), actions.astype(np.float32), names,
        faces.astype(np.int32), mirror, region, pivot, neck_weight,
        np.zeros(68, np.int32), np.zeros((68, 3), np.float32),
    )  # fmt: skip
    jaw_motion = np.linalg.norm(bare.action_basis[names.index("jawOpen")], axis=1)
    landmark_faces, landmark_barycentric = embed_landmarks(
        bare.mean, bare.faces, region, jaw_motion > 0.35 * jaw_motion.max()
    )
    shaped = shape_open_mouth(
        bare.action_basis, names, bare.mean, bare.faces[landmark_faces], landmark_barycentric
    )
    bare = replace(bare, action_basis=shaped)
    landmarks = (bare.mean[bare.faces[landmark_faces]] * landmark_barycentric[..., None]).sum(1)
    inside = _mouth_interior(bare.mean, bare.faces, region, landmarks)
    blinks = [names.index("eyeBlinkLeft"), names.index("eyeBlinkRight")]
    folded_lids = np.abs(bare.action_basis[blinks]).max(axis=(0, 2)) > 1e-4
    region[inside & ~folded_lids] = Region.MOUTH
    return _with_inner_mouth(bare, landmarks, landmark_faces, landmark_barycentric)


def _sample_population(model, rng) -> tuple[NDArray, tuple[str, ...]]:
    """Vertices (1 + N, V, 3) in the head frame's axes: the template, then random people."""
    import torch

    phenotypes = list(model.phenotype_labels)
    locals_ = list(model.local_change_labels)
    count = 1 + N_POPULATION
    phenotype = rng.uniform(0.15, 0.85, (count, len(phenotypes)))
    phenotype[:, phenotypes.index("age")] = rng.uniform(0.45, 0.95, count)
    phenotype[0] = 0.5
    local = np.zeros((count, len(locals_)))
    for i, label in enumerate(locals_):
        bare = label[2:] if label[:2] in ("l-", "r-") else label
        if bare.startswith(HEAD_LOCAL_CHANGES):
            # Both sides share most of their variation; faces are nearly symmetric.
            shared = np.random.default_rng(_label_seed(bare)).normal(0, 0.30, count)
            local[:, i] = shared + rng.normal(0, 0.06, count)
    local[0] = 0
    vertices = []
    for start in range(0, count, 50):
        chunk = slice(start, start + 50)
        coefficients = model._get_phenotype_blendshape_coefficients(
            torch.from_numpy(phenotype[chunk]),
            torch.from_numpy(local[chunk].clip(-1, 1)),
            torch.zeros(len(phenotype[chunk]), len(model.facial_action_labels)).double(),
        )
        vertices.append(model.get_rest_vertices(coefficients).numpy())
    return _to_head_frame(np.concatenate(vertices)), tuple(model.facial_action_labels)


def _label_seed(label: str) -> int:
    """A number that is the same in every process (``hash`` is salted)."""
    return int.from_bytes(label.encode()[-8:], "little")


def _to_head_frame(points: NDArray) -> NDArray:
    """anny is z-up and faces -y; ours is y-up and faces +z. Left stays +x."""
    return np.stack([points[..., 0], points[..., 2], -points[..., 1]], -1)


def _cut(vertices: NDArray, faces: NDArray) -> tuple[NDArray, NDArray]:
    """Indices of the kept vertices and the re-indexed faces above the bust plane."""
    floor = vertices[:, 1].max() - BUST_DEPTH_M
    inside = vertices[:, 1] > floor
    # Arms reach down outside the picture; the torso does not.
    inside &= np.abs(vertices[:, 0]) < 0.24
    faces = faces[inside[faces].all(1)]
    kept = np.unique(faces)
    index = np.full(len(vertices), -1)
    index[kept] = np.arange(len(kept))
    return kept, index[faces]


def _components(n_vertices: int, faces: NDArray) -> NDArray:
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    edges = np.concatenate([faces[:, :2], faces[:, 1:]])
    graph = coo_matrix((np.ones(len(edges)), tuple(edges.T)), shape=(n_vertices, n_vertices))
    return connected_components(graph, directed=False)[1]


def _regions(model, kept: NDArray, vertices: NDArray, faces: NDArray) -> NDArray[np.uint8]:
    """Coarse labels from connected components and from where local changes act."""
    component = _components(len(vertices), faces)
    sizes = np.bincount(component)
    main = sizes.argmax()
    region = np.full(len(vertices), Region.FACE, np.uint8)
    for label in np.flatnonzero(np.arange(len(sizes)) != main):
        points = vertices[component == label]
        is_eye = abs(points[:, 0].mean()) > 0.01
        region[component == label] = Region.EYE if is_eye else Region.TONGUE

    blendshapes = model.blendshapes.numpy()
    labels = list(model.blendshape_labels)

    def reach(prefix: str) -> NDArray:
        rows = [i for i, n in enumerate(labels) if n.startswith(prefix)]
        return np.linalg.norm(blendshapes[rows][:, kept], axis=-1).max(0)

    main_body = component == main
    ear = np.maximum(reach("local_change:l-ear-scale-incr"), reach("local_change:r-ear-scale-incr"))
    eye_level = vertices[region == Region.EYE][:, 1].mean()
    eye_front = vertices[region == Region.EYE][:, 2].max()
    y, z = vertices[:, 1] - eye_level, vertices[:, 2] - eye_front
    is_ear = main_body & (ear > 0.55 * ear.max())
    # Scalp: behind a plane that leans from the hairline (60 mm above the eyes) to behind the ears.
    scalp = main_body & (y > -0.075) & ((y - 0.062) * 0.9 > (z + 0.03) * 0.95 + 0.0)
    scalp |= main_body & (z < -0.115) & (y > -0.075)
    region[scalp & ~is_ear] = Region.SCALP
    region[is_ear] = Region.EAR
    below = y < -0.125 - 0.35 * (z + 0.06).clip(-0.1, 0.1)
    region[main_body & below & (region == Region.FACE)] = Region.NECK
    region[main_body & (y < -0.075) & (z < -0.075) & (region == Region.FACE)] = Region.NECK
    region[main_body & (y < -0.205)] = Region.BUST
    return region


def _mouth_interior(
    vertices: NDArray, faces: NDArray, region: NDArray, landmarks: NDArray
) -> NDArray[np.bool_]:
    """Vertices of the oral cavity: near the mouth, and hidden from outside while it is closed.

    The inside of the cheeks is, too: some of it shows through the slit of the lips or the nose,
    but all of it faces the cavity.
    """
    import torch

    from fc4d_ray.cameras import orbit_camera
    from fc4d_ray.rendering.mesh import rasterize_mesh, vertex_normals

    shown = np.zeros(len(vertices), bool)
    for azimuth, elevation in ((0, 0), (35, 0), (-35, 0), (70, 0), (-70, 0), (0, 40), (0, -50)):
        camera = orbit_camera(azimuth, elevation, size=1024, fov_deg=8.0)
        visible = rasterize_mesh(vertices, faces, camera).face
        shown[faces[np.unique(visible[visible >= 0])]] = True
    lips = landmarks[[62, 66]].mean(0)
    distance = np.linalg.norm(vertices - lips, axis=1)
    throat = (np.abs(vertices[:, 0]) < 0.015) & (vertices[:, 1] < lips[1] + 0.035)
    near = (distance < 0.07) | (throat & (distance < 0.11))
    normals = vertex_normals(torch.from_numpy(vertices), torch.from_numpy(faces).long()).numpy()
    inward = lips - [0.0, 0.0, 0.025] - vertices
    cosine = (normals * inward).sum(1) / np.linalg.norm(inward, axis=1)
    # The corners of the mouth lie behind its middle; what is level with them is seen in a smile.
    corners = landmarks[[48, 54]].mean(0)
    reach = np.abs(landmarks[[48, 54], 0]).mean()
    share = np.clip(np.abs(vertices[:, 0]) / reach, 0, 1) ** 2
    front = lips[2] + (corners[2] - lips[2]) * share
    behind_lips = (np.linalg.norm(inward, axis=1) < 0.045) & (vertices[:, 2] < front - 0.008)
    behind_lips &= vertices[:, 1] < lips[1] + 0.013
    own = (region == Region.FACE) | (throat & (region == Region.NECK))
    return near & own & (~shown | (behind_lips & (cosine > 0.3)))


def _align(population: NDArray, region: NDArray) -> NDArray:
    """Bring every head to the template's skull: same size, same direction, same origin.

    What is left is shape: no component of identity turns or moves the head.
    """
    skull = np.isin(region, (Region.SCALP, Region.FACE))
    ears = region == Region.EAR
    aligned = np.empty_like(population)
    template = population[0, skull] - population[0, skull].mean(0)
    size = np.sqrt((template**2).sum(1).mean())
    for i, head in enumerate(population):
        centred = head - head[skull].mean(0)
        turned = centred @ rotation_between(centred[skull], template)
        turned *= size / np.sqrt((turned[skull] ** 2).sum(1).mean())
        points = turned[skull]
        depth = 0.5 * (points[:, 2].min() + points[:, 2].max())
        aligned[i] = turned - [0.0, turned[ears, 1].mean(), depth]
    return aligned


def rotation_between(points: NDArray, targets: NDArray) -> NDArray[np.float64]:
    """R (3, 3) for which the rows of centred ``points @ R`` are nearest to ``targets`` (Kabsch)."""
    u, _, vt = np.linalg.svd(points.T @ targets)
    return u @ np.diag([1.0, 1.0, np.sign(np.linalg.det(u @ vt))]) @ vt


def _principal_components(deviations: NDArray, count: int) -> NDArray:
    """(count, V, 3) components scaled to one standard deviation, by the small Gram matrix."""
    flat = deviations.reshape(len(deviations), -1)
    values, vectors = np.linalg.eigh(flat @ flat.T / len(flat))
    order = np.argsort(values)[::-1][:count]
    components = vectors[:, order].T @ flat / np.sqrt(len(flat))
    return components.reshape(count, *deviations.shape[1:])


def _mirror_map(vertices: NDArray) -> NDArray[np.int32]:
    from scipy.spatial import cKDTree

    _, index = cKDTree(vertices).query(vertices * [-1.0, 1.0, 1.0])
    return index.astype(np.int32)


def _symmetric(vertices: NDArray, mirror: NDArray) -> NDArray:
    return 0.5 * (vertices + vertices[mirror] * [-1.0, 1.0, 1.0])


def _neck(model, kept: NDArray, mean: NDArray) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """How much each vertex follows a turn of the head, from anny's skinning; and the pivot."""
    share = {"neck01": 0.1, "neck02": 0.4, "neck03": 0.75, "head": 1.0, "eye.L": 1.0, "eye.R": 1.0}
    per_bone = np.array([share.get(n, 0.0) for n in model.bone_labels])
    indices = model.vertex_bone_indices.numpy()[kept]
    weight = (per_bone[indices] * model.vertex_bone_weights.numpy()[kept]).sum(1)
    low = mean[:, 1].min()
    turning = mean[weight > 0.3]
    pivot = np.array([0.0, max(turning[:, 1].min(), low) * 0.55, turning[:, 2].mean() - 0.02])
    return weight.clip(0, 1).astype(np.float32), pivot.astype(np.float32)


def _with_inner_mouth(
    head: AnnyHead, landmarks: NDArray, landmark_faces: NDArray, landmark_barycentric: NDArray
) -> AnnyHead:
    """The head with landmarks, teeth and the mouth behind them."""
    head = replace(head, landmark_faces=landmark_faces, landmark_barycentric=landmark_barycentric)
    head = replace(head, action_basis=_lowered_tongue(head))
    teeth, bag = make_teeth(landmarks), make_mouth_bag(landmarks)
    lower = teeth.is_lower.astype(np.float32)
    head = _append(head, teeth.vertices, teeth.faces, teeth.mirror, lower, Region.TEETH)
    return _append(head, bag.vertices, bag.faces, bag.mirror, bag.jaw_share, Region.MOUTH)


_TONGUE_SINKS = 0.5
"""Share of its height that the tongue loses while the jaw opens, over and above the jaw's way."""


def _lowered_tongue(head: AnnyHead) -> NDArray[np.float32]:
    """Actions (A, V, 3) with a tongue that lies on the floor of an open mouth.

    anny's own stays behind when the jaw drops, and fills the mouth to the palate.
    """
    actions = head.action_basis.copy()
    tongue = head.region == Region.TONGUE
    chin = head.faces[head.landmark_faces[8]][0]
    row = head.action_names.index("jawOpen")
    points = head.mean[tongue]
    height = points[:, 1] - points[:, 1].min()
    moved = _rigid_jaw(head, row, points, chin)
    moved[:, 1] -= _TONGUE_SINKS * height
    actions[row, tongue] = moved
    return actions


def _append(
    head: AnnyHead,
    vertices: NDArray,
    faces: NDArray,
    mirror: NDArray,
    jaw_share: NDArray,  # [N] 0 fixed to the skull … 1 fixed to the jaw
    region: Region,
) -> AnnyHead:
    """Add vertices that follow the lips in identity and the jaw, by their share, in action."""
    first, count = len(head.mean), len(vertices)
    inner_lip = head.faces[head.landmark_faces[[62, 66]]][:, 0]
    upper, lower = (head.identity_basis[:, [vertex]] for vertex in inner_lip)
    identity = upper + (lower - upper) * jaw_share[None, :, None]
    actions = np.zeros((len(head.action_basis), count, 3), np.float32)
    chin = head.faces[head.landmark_faces[8]][0]
    for name in ("jawOpen", "jawForward", "jawLeft", "jawRight"):
        row = head.action_names.index(name)
        actions[row] = _rigid_jaw(head, row, vertices, chin) * jaw_share[:, None]
    return replace(
        head,
        mean=np.concatenate([head.mean, vertices]).astype(np.float32),
        identity_basis=np.concatenate([head.identity_basis, identity], 1).astype(np.float32),
        action_basis=np.concatenate([head.action_basis, actions], 1),
        faces=np.concatenate([head.faces, faces + first]).astype(np.int32),
        mirror=np.concatenate([head.mirror, mirror + first]).astype(np.int32),
        region=np.concatenate([head.region, np.full(count, region, np.uint8)]),
        neck_weight=np.concatenate([head.neck_weight, np.ones(count, np.float32)]),
    )


def _rigid_jaw(head: AnnyHead, row: int, points: NDArray, chin: int) -> NDArray:
    """Motion (N, 3) of ``points`` fixed to the jaw bone: the rigid motion of the chin (Kabsch)."""
    near = np.linalg.norm(head.mean - head.mean[chin], axis=1) < 0.035
    near &= head.region == Region.FACE
    source = head.mean[near]
    target = source + head.action_basis[row][near]
    a, b = source.mean(0), target.mean(0)
    return (points - a) @ rotation_between(source - a, target - b) + b - points


def _to_arrays(head: AnnyHead) -> dict[str, NDArray]:
    arrays = {name: getattr(head, name) for name in AnnyHead.__dataclass_fields__}
    arrays["action_names"] = np.array(head.action_names)
    return arrays


def _from_arrays(arrays: dict[str, NDArray]) -> AnnyHead:
    names = tuple(str(n) for n in arrays.pop("action_names"))
    return AnnyHead(action_names=names, **arrays)
