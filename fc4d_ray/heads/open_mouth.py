"""The shape of a mouth that the jaw opens.

The lower lip lies on the jaw and keeps its arc. ``anny`` lets it fade out from the middle to the
corners, so that a wide open mouth is a triangle standing on its tip. Here skin between the middle
of the lip and the corners takes more of the jaw's way, which leaves an oval.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fc4d_ray.images import smoothstep

JAW_WAY = 0.9
"""Share of ``anny``'s opening: detectors lose a lip that is 39 mm from the other."""
_FULLNESS = 0.8
_FOLLOWS = (0.15, 0.45)
"""Shares of the lower lip's way between which skin begins to follow: an upper lip stays."""
_REACH_M = (0.030, 0.055)
"""Distances from the middle of the mouth between which the reshaping ends."""
_INNER_LIPS, _LOWER_LIP = (62, 66), 66


def shape_open_mouth(
    action_basis: NDArray[np.floating],  # [A, V, 3] metres
    action_names: tuple[str, ...],
    vertices: NDArray[np.floating],  # [V, 3] at rest
    landmark_faces: NDArray[np.integer],  # [68, 3] vertices
    landmark_barycentric: NDArray[np.floating],  # [68, 3]
) -> NDArray[np.float32]:
    """``action_basis`` with ``jawOpen`` reshaped, and ``mouthClose``, which takes it back."""
    jaw, close = (action_names.index(name) for name in ("jawOpen", "mouthClose"))
    basis = action_basis.astype(np.float32).copy()
    basis[[jaw, close]] *= JAW_WAY
    weights = landmark_barycentric[..., None]
    marks = (vertices[landmark_faces] * weights).sum(1)
    lip_way = np.linalg.norm((basis[jaw][landmark_faces] * weights).sum(1)[_LOWER_LIP])
    share = (np.linalg.norm(basis[jaw], axis=1) / lip_way).clip(0, 1)
    distance = np.linalg.norm(vertices - marks[list(_INNER_LIPS)].mean(0), axis=1)
    near = 1 - smoothstep(distance, *_REACH_M)
    more = _FULLNESS * (1 - share) * smoothstep(share, *_FOLLOWS) * near
    added = basis[jaw] * more[:, None]
    basis[jaw] += added
    # Lips that close over an open jaw still meet.
    basis[close] -= added
    return basis.astype(np.float32)
