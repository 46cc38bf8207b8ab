"""No hair and no collar inside the mouth.

The outer shell is closed and thick; behind a beardless chin a part of it may pass through the head,
where nothing shows it until the jaw drops.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from fc4d_ray.heads.rig import HeadRig
from fc4d_ray.priors.shape.outer_shell import OuterShell
from fc4d_ray.priors.shape.shell_surface import compacted

_CENTRE_M = np.array([0.0, -0.012, -0.036])
"""Of the open mouth, from the middle of the shut lips."""
_HALF_AXES_M = np.array([0.034, 0.030, 0.028])


def clear_mouth(shell: OuterShell, rig: HeadRig) -> OuterShell:
    """The shell without its triangles in the ellipsoid an open mouth lays bare."""
    lips = rig.landmarks(torch.from_numpy(rig.neutral)).numpy()[[62, 66]].mean(0)
    inside = np.square((shell.vertices - lips - _CENTRE_M) / _HALF_AXES_M).sum(1) < 1
    faces = shell.faces[~inside[shell.faces].any(1)]
    used = np.unique(faces)
    vertices, faces = compacted(shell.vertices, faces)
    return replace(
        shell, vertices=vertices, faces=faces.astype(np.int32), region=shell.region[used]
    )
