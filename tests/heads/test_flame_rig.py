"""A person's FLAME rig: posed, stored, driven by ARKit actions, and bound to by a training."""

from __future__ import annotations

import importlib.util
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from fc4d_ray.avatar.avatar import Avatar
from fc4d_ray.avatar.config import TrainConfig
from fc4d_ray.avatar.frames import Sample
from fc4d_ray.avatar.initialise import initialise
from fc4d_ray.avatar.learning_rates import LearningRateConfig
from fc4d_ray.avatar.trainer import train_avatar
from fc4d_ray.cameras import orbit_camera
from fc4d_ray.errors import ModelFileError
from fc4d_ray.heads.expression_conversion import ExpressionConversion
from fc4d_ray.heads.flame import FlameModel
from fc4d_ray.heads.flame_files import FlameFiles
from fc4d_ray.heads.flame_landmarks import LandmarkEmbedding
from fc4d_ray.heads.flame_rig import FlameRig, flame_rig
from fc4d_ray.heads.flame_teeth import FlameArrays
from fc4d_ray.heads.protocol import PosableMesh
from fc4d_ray.rendering.mesh import rasterize_mesh

SHARED = Path(__file__).resolve().parents[2].parent / "shared"
KIT = SHARED / "parity" / "flame"


@pytest.fixture(scope="module")
def files() -> FlameFiles:
    if not KIT.is_dir():
        pytest.skip("the flame parity kit is not beside the repository")
    spec = importlib.util.spec_from_file_location("flame_synthetic", KIT / "synthetic.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    model = module.build(0)
    arrays = FlameArrays(
        model["v_template"], model["f"].astype(np.int64), model["shapedirs"], model["posedirs"],
        model["J_regressor"], model["weights"],
    )  # fmt: skip
    return FlameFiles(
        arrays, "flame2023", LandmarkEmbedding.from_file_arrays(module.landmark_embedding(0), 9976)
    )


@pytest.fixture(scope="module")
def rig(files) -> FlameRig:
    random = np.random.default_rng(3)
    actions = ExpressionConversion(
        ("jawOpen", "smile"), random.normal(size=(2, 20)).astype(np.float32),
        np.array([[0.4, 0, 0], [0, 0, 0]], np.float32), np.zeros((2, 6), np.float32),
        np.zeros((2, 1, 3), np.float32), np.zeros(1, np.int32), np.zeros(2, np.float32),
        np.zeros(2, np.float32),
    )  # fmt: skip
    return flame_rig(files, random.normal(size=50), n_expression=20, conversion=actions)


def test_the_rig_is_the_model_with_its_identity_fixed(files, rig) -> None:
    assert isinstance(rig, PosableMesh) and rig.neutral.shape == (5143, 3)
    model = FlameModel.from_arrays(files.arrays, 50, 20, dtype=torch.float64)
    g = torch.Generator().manual_seed(0)
    parameters = {n: 0.3 * torch.randn(2, d, generator=g) for n, d in rig.parameter_sizes.items()}
    random = np.random.default_rng(3)
    random.normal(size=(2, 20))
    identity = torch.from_numpy(random.normal(size=50)).expand(2, -1)
    doubles = {n: v.double() for n, v in parameters.items()} | {"shape": identity}
    expected = model.pose(doubles).vertices
    torch.testing.assert_close(rig.pose(parameters)[:, :5023], expected.float(), atol=2e-6, rtol=0)
    rest = rig.pose(rig.neutral_parameters())[0]
    torch.testing.assert_close(rest, torch.from_numpy(rig.neutral), atol=1e-6, rtol=0)


def test_an_avatar_with_this_rig_is_stored_and_driven_by_actions(rig, tmp_path) -> None:
    gaussians = initialise(len(rig.faces), sh_degree=0, generator=torch.Generator().manual_seed(0))
    Avatar(gaussians, rig).save(tmp_path)
    loaded = Avatar.load(tmp_path)
    assert loaded.rig.kind == "flame" and loaded.rig.digest == rig.digest
    np.testing.assert_allclose(loaded.rig.expression_basis, rig.expression_basis, atol=1e-5)
    opened = loaded.splats({"actions": torch.tensor([1.0, 0.0]), "neck": torch.zeros(3)})
    own = rig.parameters_from_actions({"jawOpen": 1.0})
    assert own["jaw"][0, 0] == pytest.approx(0.4)
    torch.testing.assert_close(opened.means, loaded.splats(own).means)
    assert (opened.means - loaded.splats({}).means).norm(dim=-1).max() > 0.005
    with pytest.raises(KeyError, match="known: jawOpen, smile"):
        rig.parameters_from_actions({"wink": 1.0})
    with pytest.raises(ValueError, match="no conversion"):
        replace(rig, conversion=None).parameters_from_motion(torch.zeros(1, 2), torch.zeros(1, 3))


def test_without_landmarks_there_is_no_rig(files) -> None:
    with pytest.raises(ModelFileError, match="landmark embedding"):
        flame_rig(replace(files, landmarks=None), np.zeros(10))


class _Frames:
    """The rig itself, flat coloured, from three sides and in two expressions."""

    reference_view = 0

    def __init__(self, rig: FlameRig) -> None:
        self.views = [orbit_camera(a, size=48) for a in (0.0, 40.0, -40.0)]
        parameters = rig.neutral_parameters(2)
        parameters["jaw"][1, 0] = 0.3
        self.parameters = parameters
        self.static_samples = [Sample(v, 0) for v in range(3)]
        self.animated_samples = [Sample(v, 1) for v in range(3)]
        vertices = rig.pose(parameters).numpy()
        self._pictures = {}
        for view, camera in enumerate(self.views):
            for time in range(2):
                covered = rasterize_mesh(vertices[time], rig.faces, camera).covered
                picture = np.zeros((48, 48, 4), np.uint8)
                picture[covered] = (190, 120, 90, 255)
                self._pictures[view, time] = picture

    def load(self, sample: Sample) -> np.ndarray:
        return self._pictures[tuple(sample)]


def test_an_avatar_is_trained_on_a_flame_rig(rig) -> None:
    frames = _Frames(rig)
    gaussians = initialise(len(rig.faces), sh_degree=0, generator=torch.Generator().manual_seed(0))
    config = TrainConfig(
        static_steps=6, coin_steps=4, sh_degree=0, checkpoint_interval_s=0, log_interval=2,
        rates=LearningRateConfig(head={"expr": 1e-3, "jaw": 1e-5}),
    )  # fmt: skip
    seen: list[str] = []
    result = train_avatar(
        rig, frames, gaussians, config, 0, progress=lambda done, text: seen.append(text)
    )
    first, last = (float(text.split(", ")[1].split()[0]) for text in (seen[0], seen[2]))
    assert last > first, "the pictures are met better"
    assert result.facts["steps"] == 10 and np.isfinite(result.facts["psnr_reference"])
    moved = (result.parameters["expr"].cpu() - frames.parameters["expr"]).abs().max()
    assert moved > 0, "tracked expressions are refined"
    assert torch.equal(result.parameters["rotation"].cpu(), frames.parameters["rotation"])
