"""What is taken out of the outer shell for the mouth's sake."""

from __future__ import annotations

import numpy as np

from fc4d_ray.heads.rig import Region
from fc4d_ray.priors.shape.mouth_clearance import clear_mouth
from fc4d_ray.priors.shape.outer_shell import OuterShell


def test_triangles_inside_the_mouth_go_and_all_others_stay(head) -> None:
    rig = head.rig(np.zeros(len(head.identity_basis)))
    corners = rig.neutral[rig.faces[rig.landmark_faces[[62, 66]]]]
    lips = (corners * rig.landmark_barycentric[[62, 66], :, None]).sum(1).mean(0)
    triangle = np.array([[0, 0, 0], [0.004, 0, 0], [0, 0.004, 0]])
    inside, beard, crown = lips + np.array([[0, -0.01, -0.03], [0, -0.01, 0.004], [0, 0.2, -0.1]])
    shell = OuterShell(
        np.concatenate([triangle + place for place in (inside, beard, crown)]).astype(np.float32),
        np.arange(9, dtype=np.int32).reshape(3, 3),
        np.full(9, Region.HAIR, np.uint8),
        0.01,
    )
    cleared = clear_mouth(shell, rig)
    assert len(cleared.faces) == 2 and len(cleared.vertices) == len(cleared.region) == 6
    np.testing.assert_array_equal(cleared.vertices[cleared.faces], shell.vertices[shell.faces[1:]])
    assert cleared.hair_thickness_m == shell.hair_thickness_m


def test_an_empty_shell_stays_empty(head) -> None:
    rig = head.rig(np.zeros(len(head.identity_basis)))
    empty = OuterShell(
        np.zeros((0, 3), np.float32), np.zeros((0, 3), np.int32), np.zeros(0, np.uint8), 0.0
    )
    assert len(clear_mouth(empty, rig).faces) == 0
