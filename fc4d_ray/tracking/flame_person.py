"""A tracked FLAME head as an avatar's rig: rest at zero, driven relative to it.

The rest frame's expression and the place of its skull go into the rig, so that zero parameters
stand for the head where the portrait showed it (paper section 3.3, relative driving). The jaw and
the eyes of rest stay parameters: skinning has no rest for them.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from fc4d_ray.heads.anny import AnnyHead
from fc4d_ray.heads.expression_conversion import ExpressionConversion, fit_conversion
from fc4d_ray.heads.flame import FlameModel
from fc4d_ray.heads.flame_files import FlameFiles
from fc4d_ray.heads.flame_rig import FlameRig, flame_rig
from fc4d_ray.tracking.multiview import MultiviewTrack


def flame_person(
    files: FlameFiles, track: MultiviewTrack, rest_frame: int = 0, head: AnnyHead | None = None
) -> tuple[FlameRig, dict[str, NDArray[np.float32]]]:
    """The rig of a person tracked with FLAME, and the track's parameters (T, d) relative to rest.

    ``rig.pose`` of the parameters gives the tracked vertices. With ``head``, the embedded head
    model, ARKit actions drive the rig.
    """
    parameters = {n: np.asarray(v, np.float64) for n, v in track.parameters.items()}
    expr = parameters["expr"]
    bare = flame_rig(files, track.identity, n_expression=expr.shape[1])
    basis = bare.expression_basis.astype(np.float64)
    rest = np.tensordot(expr[rest_frame], basis, 1)
    root, neck = (_joint(bare, joint, expr) for joint in (0, 1))
    turn = Rotation.from_rotvec(parameters["rotation"])
    placed = root + parameters["translation"]
    # Where the skull stood at rest: the neck joint's motion, root and neck turned together.
    head_turn = turn[rest_frame] * Rotation.from_rotvec(parameters["neck"][rest_frame])
    bone = neck[rest_frame] - root[rest_frame]
    head_place = turn[rest_frame].apply(bone) + placed[rest_frame]
    shift = head_place - head_turn.apply(neck[rest_frame])
    placement = np.eye(4)
    placement[:3, :3], placement[:3, 3] = head_turn.as_matrix(), shift
    back = head_turn.inv()
    relative = parameters | {
        "expr": expr - expr[rest_frame],
        "rotation": (back * turn).as_rotvec(),
        "translation": back.apply(placed - shift) - root,
    }
    rig = replace(
        bare,
        template=(bare.template + rest).astype(np.float32),
        placement=placement.astype(np.float32),
    )
    if head is not None:
        rig = replace(rig, conversion=_conversion(rig, head))
    return rig, {n: v.astype(np.float32) for n, v in relative.items()}


def _joint(rig: FlameRig, joint: int, expr: NDArray) -> NDArray[np.float64]:
    """(T, 3) a joint before posing, in every frame: expressions move it a little."""
    regressor = rig.joint_regressor[joint].astype(np.float64)
    start = regressor @ rig.template
    return start + np.einsum("v,evc,te->tc", regressor, rig.expression_basis, expr, optimize=True)


def _conversion(rig: FlameRig, head: AnnyHead) -> ExpressionConversion:
    template = torch.from_numpy(rig.template)
    empty = torch.zeros(0, *template.shape)
    model = FlameModel(
        template, torch.from_numpy(rig.faces.astype(np.int64)), empty,
        torch.from_numpy(rig.expression_basis), torch.from_numpy(rig.pose_basis),
        torch.from_numpy(rig.joint_regressor), torch.from_numpy(rig.skinning_weights),
    )  # fmt: skip
    landmarks = rig.landmarks(template).double().numpy()
    mean = head.rig(np.zeros(len(head.identity_basis)))
    return fit_conversion(model, rig.region, landmarks, mean)
