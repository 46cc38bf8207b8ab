"""Meshes of synthetic people: the model's head resampled, given relief, hair and clothing.

What is done here lies outside the head model's space on purpose (see ``synthetic.py``).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from fc4d_ray.evaluation.synthetic_texture import value_noise
from fc4d_ray.heads.anny import AnnyHead
from fc4d_ray.heads.rig import HeadRig, Region
from fc4d_ray.images import smoothstep

_HEAD_AXIS = np.array([0.0, 0.03, -0.01])
_EXPRESSIONS = ("mouthSmile", "eyeSquint", "browOuterUp", "mouthFrown", "mouthUpperUp")


def photographed_rig(head: AnnyHead, generator: np.random.Generator) -> HeadRig:
    """The bare head of a random identity whose rest is a random mild expression."""
    rig = head.rig(0.8 * generator.standard_normal(len(head.identity_basis)))
    shown = {"jawOpen": generator.uniform(0, 0.12), "browInnerUp": generator.uniform(0, 0.4)}
    chosen = _EXPRESSIONS[generator.integers(len(_EXPRESSIONS))]
    strength = generator.uniform(0.1, 0.6)
    shown |= {f"{chosen}Left": strength, f"{chosen}Right": strength * generator.uniform(0.8, 1)}
    parameters = rig.parameters_from_actions(shown)
    remaining = 1 - parameters["actions"][0].numpy()[:, None, None]
    return HeadRig(
        neutral=rig.pose(parameters)[0].numpy(), faces=rig.faces,
        action_basis=(rig.action_basis * remaining).astype(np.float32),
        action_names=rig.action_names, neck_pivot=rig.neck_pivot, neck_weight=rig.neck_weight,
        region=rig.region, landmark_faces=rig.landmark_faces,
        landmark_barycentric=rig.landmark_barycentric,
    )  # fmt: skip


def resample(
    faces: NDArray[np.integer], region: NDArray[np.uint8], generator: np.random.Generator
) -> tuple[csr_matrix, NDArray[np.int32]]:
    """One subdivision, then every skin vertex moves part of the way to a random neighbour."""
    count = len(region)
    sides = np.sort(np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]]), 1)
    edges, index = np.unique(sides, axis=0, return_inverse=True)
    ab, bc, ca = index.reshape(3, -1) + count
    a, b, c = faces.T
    fine = np.concatenate(
        [np.stack(t, 1) for t in ((a, ab, ca), (ab, b, bc), (ca, bc, c), (ab, bc, ca))]
    ).astype(np.int32)
    n_edges = len(edges)
    rows = np.concatenate([np.arange(count), count + np.repeat(np.arange(n_edges), 2)])
    columns = np.concatenate([np.arange(count), edges.ravel()])
    weights = np.concatenate([np.ones(count), np.full(2 * n_edges, 0.5)])
    total = count + n_edges
    subdivide = csr_matrix((weights, (rows, columns)), shape=(total, count))

    neighbour = np.arange(total)
    pairs = np.concatenate([fine[:, [0, 1]], fine[:, [1, 2]], fine[:, [2, 0]]])
    pairs = pairs[generator.permutation(len(pairs))]
    neighbour[pairs[:, 0]] = pairs[:, 1]
    kind = np.concatenate([region, np.where(region[edges[:, 0]] == region[edges[:, 1]],
                                            region[edges[:, 0]], 255)])  # fmt: skip
    skin = np.isin(kind, (Region.FACE, Region.SCALP, Region.NECK, Region.BUST))
    share = generator.uniform(0, 0.3, total) * (skin & (kind == kind[neighbour]))
    everyone = np.arange(total)
    slide = csr_matrix((1 - share, (everyone, everyone)), shape=(total, total))
    slide = slide + csr_matrix((share, (everyone, neighbour)), shape=(total, total))
    return (slide @ subdivide).tocsr(), fine


def strongest_source(resampling: csr_matrix) -> NDArray[np.intp]:
    """Of each row, the column with the largest weight (the first of equals)."""
    return np.asarray(resampling.argmax(axis=1)).ravel()


def hairline_depth(canonical: NDArray, region: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Signed distance-like depth (V,) inside the hair, metres: crown, sides and nape."""
    y, z = canonical[:, 1] - 0.018, canonical[:, 2] - 0.078
    front = ((y - 0.066) * 0.9 - (z + 0.03) * 0.95) / 1.3
    behind = -(z + 0.118)
    depth = np.minimum(np.maximum(front, behind), y + 0.07)
    waves = 0.003 * np.sin(canonical[:, 0] / 0.012) + 0.002 * np.sin(canonical[:, 2] / 0.009)
    depth = depth + waves
    bare = ~np.isin(region, (Region.SCALP, Region.FACE, Region.NECK))
    return np.where(bare, np.minimum(depth, -0.004), depth)


def collar_depth(canonical: NDArray, region: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Depth (V,) below a round collar, metres; negative above it."""
    opening = 0.03 * np.exp(-np.square(canonical[:, 0] / 0.035)) * (canonical[:, 2] > -0.05)
    depth = -0.150 - opening - canonical[:, 1]
    torso = np.isin(region, (Region.NECK, Region.BUST))
    return np.where(torso, depth, -0.01)


def with_relief(
    rest: NDArray, faces: NDArray, canonical: NDArray, region: NDArray[np.uint8], seed: int
) -> NDArray[np.float64]:
    """Relief of about a millimetre along the normals that no coefficient can express."""
    normals = vertex_normals(rest, faces)
    height = 0.0012 * value_noise(canonical / 0.035, seed)
    height += 0.0004 * value_noise(canonical / 0.012, seed + 1)
    marks = np.isin(region, (Region.FACE, Region.SCALP, Region.NECK))
    # Lids and lips keep their shape, or eyes and teeth would break through.
    eyes = np.hypot(np.abs(canonical[:, 0]) - 0.031, canonical[:, 1] - 0.017)
    mouth = np.hypot(canonical[:, 0], canonical[:, 1] + 0.051)
    calm = smoothstep(eyes, 0.014, 0.028) * smoothstep(mouth, 0.024, 0.036)
    return rest + (height * calm * marks)[:, None] * normals


def with_hair(
    rest: NDArray, canonical: NDArray, hairline: NDArray, thickness: float, seed: int
) -> NDArray[np.float64]:
    """Inflate the scalp away from the head's middle by up to ``thickness`` metres."""
    outward = rest - _HEAD_AXIS
    outward /= np.linalg.norm(outward, axis=1, keepdims=True)
    lumps = 1 + 0.2 * value_noise(canonical / 0.03, seed)
    return rest + outward * (thickness * smoothstep(hairline, -0.001, 0.025) * lumps)[:, None]


def with_clothing(rest: NDArray, faces: NDArray, collar: NDArray) -> NDArray[np.float64]:
    normals = vertex_normals(rest, faces)
    return rest + normals * (0.007 * smoothstep(collar, -0.002, 0.012))[:, None]


def vertex_normals(vertices: NDArray, faces: NDArray[np.integer]) -> NDArray[np.float64]:
    """Unit normals (V, 3), area-weighted; plain numpy, which small meshes are fastest in."""
    a, b, c = (vertices[faces[:, i]] for i in range(3))
    crosses = np.cross(b - a, c - a)
    normals = np.stack(
        [np.bincount(faces.T.ravel(), np.tile(crosses[:, k], 3), len(vertices)) for k in range(3)],
        1,
    )
    return normals / (np.linalg.norm(normals, axis=1, keepdims=True) + 1e-15)
