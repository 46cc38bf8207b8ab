from __future__ import annotations

import importlib.util
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from fc4d_ray.heads.flame_teeth import FlameArrays, add_teeth, teeth_faces, teeth_uv

SHARED = Path(__file__).resolve().parents[3] / "shared"
KIT = SHARED / "parity" / "flame"


@pytest.fixture(scope="module")
def synthetic() -> ModuleType:
    if not (KIT / "synthetic.py").exists():
        pytest.skip("the flame parity kit is not beside the repository")
    spec = importlib.util.spec_from_file_location("flame_synthetic", KIT / "synthetic.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def vectors(synthetic: ModuleType) -> dict[str, np.ndarray]:
    with np.load(KIT / "vectors_seed0.npz") as file:
        return {name: file[name] for name in file.files if name.startswith("teeth.")}


@pytest.fixture(scope="module")
def bare(synthetic: ModuleType) -> FlameArrays:
    model = synthetic.build(0)
    return FlameArrays(
        model["v_template"], model["f"], model["shapedirs"], model["posedirs"],
        model["J_regressor"], model["weights"],
    )  # fmt: skip


@pytest.fixture(scope="module")
def whole(bare: FlameArrays) -> FlameArrays:
    return add_teeth(bare)


def posed(flame: FlameArrays, case: dict[str, np.ndarray]) -> np.ndarray:
    """(V, 3): linear blend skinning, written out for one pose."""
    coefficients = np.concatenate([case["shape"], case["expr"]])
    shaped = flame.template + flame.shape_basis @ coefficients
    joints = flame.joint_regressor @ shaped
    angles = np.stack(
        [case["rotation"], case["neck"], case["jaw"], case["eyes"][:3], case["eyes"][3:]]
    )
    rotations = Rotation.from_rotvec(angles).as_matrix()
    features = (rotations[1:] - np.eye(3)).reshape(-1)
    shaped = shaped + flame.pose_basis @ features
    chain: list[np.ndarray] = []
    for joint, parent in enumerate((None, 0, 1, 1, 1)):
        local = np.eye(4)
        local[:3, :3] = rotations[joint]
        local[:3, 3] = joints[joint] - (0 if parent is None else joints[parent])
        chain.append(local if parent is None else chain[parent] @ local)
    result = np.zeros_like(shaped)
    for joint, transform in enumerate(chain):
        moved = (shaped - joints[joint]) @ transform[:3, :3].T + transform[:3, 3]
        result += flame.skinning_weights[:, joint, None] * moved
    return result + case["translation"]


def test_the_mesh_is_the_kits_to_the_face(whole, vectors) -> None:
    assert whole.template.shape == (5143, 3) and whole.faces.shape == (10_144, 3)
    np.testing.assert_allclose(whole.template[5023:], vectors["teeth.v_template"], atol=1e-12)
    np.testing.assert_array_equal(whole.faces[9976:].astype(int) - 5023, vectors["teeth.faces"])
    np.testing.assert_array_equal(whole.skinning_weights[5023:], vectors["teeth.lbs_weights"])
    np.testing.assert_allclose(teeth_uv(), vectors["teeth.uv"], atol=1e-6)


def test_bases_follow_the_lips_in_identity_and_nothing_else(whole, vectors) -> None:
    columns = np.linalg.norm(whole.shape_basis[5023:], axis=(0, 1))
    np.testing.assert_allclose(columns, vectors["teeth.shapedirs_l2"], atol=1e-12)
    assert not whole.shape_basis[5023:, :, 300:].any()
    assert not whole.pose_basis[5023:].any()
    assert not whole.joint_regressor[:, 5023:].any()


def test_teeth_are_posed_as_in_the_kit(whole, vectors, synthetic) -> None:
    vertices = posed(whole, synthetic.cases(0)["all"])
    expected = vectors["teeth.verts_all_case_no_offset"]
    # Rodrigues with the reference's 1e-8 under the root differs by that much.
    np.testing.assert_allclose(vertices[5023:], expected, atol=2e-8)


def test_the_head_itself_is_untouched(bare, whole, synthetic) -> None:
    case = synthetic.cases(0)["all"]
    np.testing.assert_allclose(posed(whole, case)[:5023], posed(bare, case), atol=1e-14)
    assert whole.faces.dtype == bare.faces.dtype


def test_the_jaw_moves_the_lower_teeth_only(whole, synthetic) -> None:
    case = synthetic.cases(0)["neutral"]
    opened = posed(whole, case | {"jaw": np.array([0.3, 0, 0])}) - posed(whole, case)
    rows = np.abs(opened[5023:]).max(-1).reshape(8, 15)
    lower = np.array([False, True, False, True, False, False, True, True])
    assert (rows[~lower] == 0).all()
    assert (rows[lower] > 1e-3).all()


def test_every_triangle_has_its_mirror_image(whole) -> None:
    """The cut of the quads flips at the mid-line, so left and right are alike."""
    faces = teeth_faces()
    assert len(np.unique(np.sort(faces, 1), axis=0)) == 168
    mirrored = faces // 15 * 15 + 14 - faces % 15
    assert {frozenset(f) for f in faces.tolist()} == {frozenset(f) for f in mirrored.tolist()}


def test_other_meshes_are_refused(whole, bare) -> None:
    with pytest.raises(ValueError, match="5143 and 10144.*added before"):
        add_teeth(whole)
    with pytest.raises(ValueError, match="pose_basis"):
        replace(bare, pose_basis=bare.pose_basis[:, :, :9])
