from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from fc4d_ray.heads.anny import AnnyHead
from fc4d_ray.heads.protocol import PosableMesh
from fc4d_ray.heads.rig import HeadRig, Region


def _toy_rig(neck_weight: tuple[float, ...] = (0.0, 0.5, 1.0, 1.0)) -> HeadRig:
    """Four vertices, two actions."""
    basis = np.zeros((2, 4, 3), np.float32)
    basis[0, 1] = [0, 0.1, 0]
    basis[1, 1:3] = [0.2, 0, 0]
    return HeadRig(
        neutral=np.array([[0, 0, 0], [0.1, 0, 0], [0, 0.2, 0], [0, 0, 0.3]], np.float32),
        faces=np.array([[0, 1, 2], [0, 2, 3]], np.int32),
        action_basis=basis,
        action_names=("jawOpen", "mouthLeft"),
        neck_pivot=np.array([0, -0.1, 0], np.float32),
        neck_weight=np.array(neck_weight, np.float32),
        region=np.full(4, Region.FACE, np.uint8),
        landmark_faces=np.array([0, 1], np.int32),
        landmark_barycentric=np.array([[0.2, 0.3, 0.5], [1, 0, 0]], np.float32),
    )


def test_zero_parameters_give_the_neutral_mesh() -> None:
    rig = _toy_rig()
    assert isinstance(rig, PosableMesh)
    posed = rig.pose(rig.neutral_parameters(3))
    assert posed.shape == (3, 4, 3)
    torch.testing.assert_close(posed, torch.from_numpy(rig.neutral).expand(3, -1, -1))


def test_actions_add_up_and_frames_are_independent() -> None:
    rig = _toy_rig()
    actions = torch.tensor([[1.0, 0.0], [0.5, 2.0]])
    posed = rig.pose({"actions": actions, "neck": torch.zeros(2, 3)}).numpy()
    np.testing.assert_allclose(posed[0, 1], [0.1, 0.1, 0], atol=1e-7)
    np.testing.assert_allclose(posed[1, 1], [0.5, 0.05, 0], atol=1e-7)
    np.testing.assert_allclose(posed[1, 2], [0.4, 0.2, 0], atol=1e-7)
    np.testing.assert_allclose(posed[:, [0, 3]], rig.neutral[[0, 3]][None].repeat(2, 0))


def test_the_neck_turns_vertices_by_their_share_about_the_pivot() -> None:
    rig = _toy_rig()
    turn = np.array([0.3, -0.5, 0.2])
    neck = torch.tensor(turn[None], dtype=torch.float64)
    posed = rig.pose({"actions": torch.zeros(1, 2, dtype=torch.float64), "neck": neck})[0].numpy()
    local = rig.neutral.astype(np.float64) - rig.neck_pivot
    for vertex, weight in enumerate(rig.neck_weight):
        expected = Rotation.from_rotvec(weight * turn).apply(local[vertex]) + rig.neck_pivot
        np.testing.assert_allclose(posed[vertex], expected, atol=1e-7)


def test_poses_are_differentiable_even_at_rest() -> None:
    rig = _toy_rig()
    generator = torch.Generator().manual_seed(0)
    actions = torch.rand(2, 2, generator=generator, dtype=torch.float64, requires_grad=True)
    neck = torch.randn(2, 3, generator=generator, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(
        lambda a, n: rig.pose({"actions": a, "neck": n}), (actions, neck)
    )
    still = torch.zeros(1, 3, requires_grad=True)
    rig.pose({"actions": torch.zeros(1, 2), "neck": still}).square().sum().backward()
    assert torch.isfinite(still.grad).all() and still.grad.abs().max() > 0


def test_named_actions_become_parameters_and_unknown_ones_are_told() -> None:
    rig = _toy_rig()
    parameters = rig.parameters_from_actions({"mouthLeft": 0.25})
    assert parameters["actions"].tolist() == [[0.0, 0.25]]
    assert parameters["neck"].tolist() == [[0.0, 0.0, 0.0]]
    assert {n: t.shape[1] for n, t in parameters.items()} == rig.parameter_sizes
    with pytest.raises(KeyError, match="'jawopen'.*jawOpen, mouthLeft"):
        rig.parameters_from_actions({"jawopen": 1.0})


def test_landmarks_ride_on_their_faces() -> None:
    rig = _toy_rig()
    marks = rig.landmarks(torch.from_numpy(rig.neutral))
    np.testing.assert_allclose(marks.numpy(), [[0.03, 0.1, 0], [0, 0, 0]], atol=1e-7)
    batch = rig.landmarks(torch.from_numpy(rig.neutral)[None, None].repeat(2, 3, 1, 1))
    assert batch.shape == (2, 3, 2, 3)
    torch.testing.assert_close(batch[1, 2], marks)


def test_arrays_carry_the_whole_rig(head: AnnyHead) -> None:
    generator = np.random.default_rng(0)
    rig = head.rig(generator.standard_normal(len(head.identity_basis)))
    buffer = io.BytesIO()
    np.savez(buffer, **rig.to_arrays())
    buffer.seek(0)
    with np.load(buffer, allow_pickle=False) as arrays:
        again = HeadRig.from_arrays(arrays)
    assert again.action_names == rig.action_names
    for name in ("neutral", "faces", "region", "neck_weight", "landmark_barycentric"):
        read = getattr(again, name)
        assert read.dtype == getattr(rig, name).dtype
        np.testing.assert_array_equal(read, getattr(rig, name))
    parameters = {
        "actions": torch.from_numpy(generator.random((2, 52), np.float32)),
        "neck": torch.from_numpy(generator.uniform(-0.3, 0.3, (2, 3)).astype(np.float32)),
    }
    distance = (again.pose(parameters) - rig.pose(parameters)).norm(dim=-1)
    assert distance.max() < 1e-4, "half precision of the basis costs less than 0.1 mm"


def test_turning_the_head_leaves_the_bust_and_keeps_the_skull_rigid(head: AnnyHead) -> None:
    rig = head.rig(np.zeros(len(head.identity_basis)))
    parameters = rig.neutral_parameters()
    parameters["neck"][0, 1] = 0.4
    turned = rig.pose(parameters)[0].numpy()
    moved = np.linalg.norm(turned - rig.neutral, axis=1)
    assert moved[rig.neutral[:, 1] < -0.25].max() < 0.002
    nose = rig.landmarks(torch.from_numpy(turned))[30].numpy()
    assert nose[0] > 0.03, "positive yaw turns the face to the subject's left"
    skull = np.flatnonzero((rig.region == Region.SCALP) & (rig.neutral[:, 1] > 0.03))
    before = np.linalg.norm(rig.neutral[skull[:, None]] - rig.neutral[skull[None]], axis=-1)
    after = np.linalg.norm(turned[skull[:, None]] - turned[skull[None]], axis=-1)
    assert np.abs(after - before).max() < 0.001
