from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import torch

from fc4d_ray.heads.flame_files import FlameFiles
from fc4d_ray.heads.flame_landmarks import LandmarkEmbedding
from fc4d_ray.heads.flame_teeth import FlameArrays
from fc4d_ray.heads.trackable import trackable_flame
from fc4d_ray.tracking.flame_person import flame_person
from fc4d_ray.tracking.multiview import MultiviewTrack

KIT = Path(__file__).resolve().parents[2].parent / "shared" / "parity" / "flame"


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
    landmarks = LandmarkEmbedding.from_file_arrays(module.landmark_embedding(0), 9976)
    return FlameFiles(arrays, "synthetic", landmarks)


def test_the_rig_with_relative_parameters_gives_the_tracked_vertices(files) -> None:
    random = np.random.default_rng(0)
    head = trackable_flame(files, 30, 12)
    parameters = {
        n: (0.3 * random.standard_normal((3, d))).astype(np.float32)
        for n, d in head.parameter_sizes.items()
    }
    identity = random.standard_normal(30).astype(np.float32)
    track = MultiviewTrack(
        identity, parameters, 1.0, (), np.zeros((0, 3)), np.zeros((9, 3)), np.zeros(0, int),
        np.zeros((3, 1)), 0.0,
    )  # fmt: skip
    rig, relative = flame_person(files, track, rest_frame=1)
    tensors = {n: torch.from_numpy(v) for n, v in relative.items()}
    expected = head.vertices(
        torch.from_numpy(identity), {n: torch.from_numpy(v) for n, v in parameters.items()}
    )
    torch.testing.assert_close(rig.pose(tensors)[:, :5023], expected, atol=3e-6, rtol=0)
    assert not relative["expr"][1].any()

    # Zero parameters: the skull is where it was at rest; the upper teeth are fixed to it.
    still = {n: torch.zeros(1, d) for n, d in rig.parameter_sizes.items()}
    upper = rig.skinning_weights[:, 1] == 1
    assert upper[5023:].sum() == 60
    rest, zero = rig.pose(tensors)[1], rig.pose(still)[0]
    torch.testing.assert_close(rest[upper], zero[upper], atol=5e-6, rtol=0)
