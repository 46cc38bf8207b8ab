"""FLAME against the parity kit's golden values."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

from fc4d_ray.errors import ModelFileError
from fc4d_ray.heads.flame import FlameModel, axis_angle_to_matrix
from fc4d_ray.heads.flame_landmarks import (
    LandmarkEmbedding,
    barycentric_points,
    contour_row,
    head_turn_deg,
)
from fc4d_ray.heads.flame_teeth import FlameArrays, add_teeth

SHARED = Path(__file__).resolve().parents[2].parent / "shared"
KIT = SHARED / "parity" / "flame"
CASES = ("neutral", "blend", "jaw", "neck", "eyes", "rotation", "tiny", "all")


def _module(path: Path) -> ModuleType:
    if not path.exists():
        pytest.skip("the flame parity kit is not beside the repository")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def synthetic() -> ModuleType:
    return _module(KIT / "synthetic.py")


@pytest.fixture(scope="module")
def vectors(synthetic) -> dict[str, np.ndarray]:
    with np.load(KIT / "vectors_seed0.npz") as file:
        return dict(file)


@pytest.fixture(scope="module")
def arrays(synthetic) -> FlameArrays:
    model = synthetic.build(0)
    return FlameArrays(
        model["v_template"], model["f"].astype(np.int64), model["shapedirs"], model["posedirs"],
        model["J_regressor"], model["weights"],
    )  # fmt: skip


@pytest.fixture(scope="module")
def model(arrays) -> FlameModel:
    return FlameModel.from_arrays(arrays, dtype=torch.float64)


@pytest.fixture(scope="module")
def embedding(synthetic) -> LandmarkEmbedding:
    return LandmarkEmbedding.from_file_arrays(synthetic.landmark_embedding(0), 9976)


def _parameters(case: dict, dtype=torch.float64) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    offset = torch.from_numpy(case.get("static_offset", np.zeros((5023, 3)))).to(dtype)
    values = {n: torch.from_numpy(v)[None].to(dtype) for n, v in case.items() if n[:6] != "static"}
    return values, offset


def _near_single(found: torch.Tensor, stored: np.ndarray, tolerance: float) -> None:
    """Against values the kit rounded to float32: half a unit in the last place comes on top."""
    gap = np.abs(found.double().numpy() - stored)
    assert (gap <= tolerance + 0.5 * np.spacing(np.abs(stored))).all(), gap.max()


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_poses_landmarks_and_joints_are_the_references(
    name, dtype, synthetic, vectors, arrays, model, embedding
) -> None:
    if dtype == torch.float32:
        model = FlameModel.from_arrays(arrays)
    parameters, offset = _parameters(synthetic.cases(0)[name], dtype)
    posed = model.pose(parameters, offset)
    rows = vectors["sub_idx"]
    loose, exact = (1e-12, 1e-12) if dtype == torch.float64 else (2e-6, 2e-6)

    def near(found: torch.Tensor, expected: np.ndarray, tolerance: float) -> None:
        np.testing.assert_allclose(found.double().numpy(), expected, rtol=0, atol=tolerance)

    for found, stored in ((posed.vertices, "verts"), (posed.shaped, "v_shaped")):
        _near_single(found[0, rows], vectors[f"{name}.{stored}"], loose)
    near(posed.rotations[0], vectors[f"{name}.rot_mats"], exact)
    near(posed.rest_joints[0], vectors[f"{name}.joints_rest"], exact)
    near(posed.joints[0], vectors[f"{name}.joints_posed"], exact)
    near(posed.transforms[0], vectors[f"{name}.rel_transforms"], exact)
    near(embedding.points(posed.vertices, model.faces)[0], vectors[f"{name}.landmarks"], exact)
    if dtype == torch.float64:
        near(posed.vertices[0].mean(0), vectors[f"{name}.verts_mean"], 1e-12)
        near(posed.vertices[0].abs().sum(0), vectors[f"{name}.verts_abssum"], 1e-8)


@pytest.mark.parametrize("name", ["neutral", "jaw", "all"])
def test_gradients_are_the_references(name, synthetic, vectors, arrays, embedding) -> None:
    fill = _module(SHARED / "parity" / "fill.py").fill
    for dtype, tolerance in ((torch.float64, 1e-9), (torch.float32, 1e-4)):
        flame = FlameModel.from_arrays(arrays, dtype=dtype)
        parameters, offset = _parameters(synthetic.cases(0)[name], dtype)
        for value in parameters.values():
            value.requires_grad_()
        vertices = flame.pose(parameters, offset).vertices[0]
        landmarks = embedding.points(vertices, flame.faces)
        loss = (vertices * torch.from_numpy(fill("flame.loss.verts", (5023, 3), 0, "unit"))).sum()
        marks = torch.from_numpy(fill("flame.loss.lmk", (70, 3), 0, "unit"))
        loss = loss + (landmarks * marks).sum()
        loss.backward()
        if dtype == torch.float64:
            assert float(loss.detach()) == pytest.approx(float(vectors[f"{name}.loss"]), abs=1e-8)
        for parameter, value in parameters.items():
            expected = vectors[f"{name}.grad.{parameter}"]
            difference = np.linalg.norm(value.grad[0].double().numpy() - expected)
            assert difference < tolerance * np.linalg.norm(expected), parameter


def test_a_batch_equals_single_frames_and_fewer_coefficients_are_zeros(
    synthetic, vectors, model, embedding
) -> None:
    cases = synthetic.cases(0)
    pairs = [_parameters(cases[name]) for name in CASES]
    batch = {n: torch.cat([p[n] for p, _ in pairs]) for n in pairs[0][0]}
    offsets = torch.stack([offset for _, offset in pairs])
    together = model.pose(batch, offsets).vertices
    for row, (parameters, offset) in enumerate(pairs):
        alone = model.pose(parameters, offset).vertices[0]
        torch.testing.assert_close(together[row], alone, atol=1e-14, rtol=0)
    parameters, offset = pairs[CASES.index("all")]
    fewer = parameters | {"shape": parameters["shape"][:, :100], "expr": parameters["expr"][:, :50]}
    vertices = model.pose(fewer, offset).vertices
    expected = vectors["truncated_100_50.verts"]
    _near_single(vertices[0, vectors["sub_idx"]], expected, 1e-12)
    np.testing.assert_allclose(
        embedding.points(vertices, model.faces)[0], vectors["truncated_100_50.landmarks"],
        atol=1e-12, rtol=0,
    )  # fmt: skip


def test_teeth_follow_the_skull_and_the_jaw(synthetic, vectors, arrays) -> None:
    toothed = FlameModel.from_arrays(add_teeth(arrays), dtype=torch.float64)
    parameters, _ = _parameters(synthetic.cases(0)["all"])
    vertices = toothed.pose(parameters).vertices[0, 5023:]
    np.testing.assert_allclose(
        vertices, vectors["teeth.verts_all_case_no_offset"], atol=1e-12, rtol=0
    )


def test_the_dynamic_contour_turns_with_the_head(vectors, model, embedding) -> None:
    pose = torch.from_numpy(vectors["dynamic.pose"])
    turn = head_turn_deg(pose[:, :3], pose[:, 3:6])
    np.testing.assert_allclose(turn, vectors["dynamic.angle_deg"], atol=1e-6)
    rows = contour_row(turn)
    np.testing.assert_array_equal(rows, vectors["dynamic.row"])
    template = model.template.expand(len(pose), -1, -1)
    contour = embedding.contour(template, model.faces, rows)
    _near_single(contour, vectors["dynamic.landmarks_on_template"], 1e-12)


def test_a_turn_of_nothing_is_the_identity_with_a_right_gradient() -> None:
    zero = torch.zeros(1, 3, dtype=torch.float64, requires_grad=True)
    matrix = axis_angle_to_matrix(zero)
    torch.testing.assert_close(matrix[0], torch.eye(3, dtype=torch.float64), atol=2e-8, rtol=0)
    matrix[0, 2, 1].backward()
    assert zero.grad[0].tolist() == pytest.approx([1, 0, 0], abs=1e-6)


def test_landmarks_of_a_damaged_file_are_refused(synthetic, model) -> None:
    arrays = synthetic.landmark_embedding(0)
    with pytest.raises(ModelFileError, match="no full_lmk_bary_coords"):
        LandmarkEmbedding.from_file_arrays(
            {n: a for n, a in arrays.items() if n != "full_lmk_bary_coords"}, 9976
        )
    with pytest.raises(ModelFileError, match="expected shape"):
        LandmarkEmbedding.from_file_arrays(arrays | {"full_lmk_faces_idx": np.zeros((1, 68))}, 9976)
    with pytest.raises(ModelFileError, match="0..99"):
        LandmarkEmbedding.from_file_arrays(arrays, 100)
    bare = LandmarkEmbedding.from_file_arrays(
        {n: a for n, a in arrays.items() if "dynamic" not in n}, 9976
    )
    with pytest.raises(ModelFileError, match="no dynamic contour"):
        bare.contour(model.template[None], model.faces, torch.zeros(1).long())


def test_points_on_faces_are_means_of_corners() -> None:
    vertices = torch.tensor([[[0.0, 0, 0], [1, 0, 0], [0, 2, 0]]])
    found = barycentric_points(
        vertices, torch.tensor([[0, 1, 2]]), np.array([0]), np.array([[0.25, 0.5, 0.25]])
    )
    torch.testing.assert_close(found, torch.tensor([[[0.5, 0.5, 0.0]]]))
