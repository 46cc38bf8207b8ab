"""The paper's tracking stage and what training makes of it, with a free head in FLAME's format."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from fc4d_ray.assets.tiny_flame import write_tiny_flame
from fc4d_ray.avatar.avatar import Avatar
from fc4d_ray.cameras import orbit_camera
from fc4d_ray.errors import ConfigError, WeightsMissing
from fc4d_ray.heads.flame_files import import_flame, load_flame
from fc4d_ray.priors.video.motion import action_vector
from fc4d_ray.stages.person_files import read_person
from fc4d_ray.stages.track_flame import FlameTrackConfig, FlameTrackStage, tracked_rig
from fc4d_ray.stages.train import TrainStage
from fc4d_ray.tracking.multiview_config import MultiviewConfig

SIZES = {"expr": 30, "rotation": 3, "neck": 3, "jaw": 3, "eyes": 6, "translation": 3}


@pytest.fixture(scope="module")
def edition(tmp_path_factory) -> str:
    folder = tmp_path_factory.mktemp("flame")
    write_tiny_flame(folder)
    return str(import_flame(folder, directory=folder / "assets").path)


@pytest.fixture(scope="module")
def config(edition) -> FlameTrackConfig:
    quick = MultiviewConfig(
        landmark_iterations=5, divisors=(1,), iterations=1, photometric_points=300
    )
    return FlameTrackConfig(
        edition=edition, n_identity=40, n_expression=30, working_size=96, multiview=quick
    )


@pytest.fixture(scope="module")
def tracked(shape, image, video, config, again):
    inputs = {"shape": shape.directory, "image": image.directory, "video": video.directory}
    return again(FlameTrackStage(), inputs, config)


def test_every_frame_has_flame_parameters(tracked, edition) -> None:
    with np.load(tracked.directory / "track.npz") as arrays:
        assert arrays["clip"].tolist() == [0, 0, 1, 1]
        for name, width in SIZES.items():
            values = arrays[f"parameter.{name}"]
            assert values.shape == (5, width), "rest, then four frames"
            assert np.isfinite(values).all()
        np.testing.assert_allclose(arrays["parameter.expr"][0], 0, atol=1e-6)
    rig = tracked_rig(tracked.directory)
    assert rig.digest == load_flame(edition).digest and rig.neutral.shape == (5143, 3)
    assert tracked.facts == json.loads((tracked.directory / "track.json").read_text())
    assert tracked.facts["views_with_landmarks"] >= 2
    assert tracked.facts["tracking_error"] < 0.03


def test_the_rig_stands_where_the_person_stood(tracked, shape) -> None:
    own = read_person(shape.directory).rig
    rig = tracked_rig(tracked.directory)
    expected = own.landmarks(torch.from_numpy(own.neutral)).numpy()[17:]
    found = rig.landmarks(torch.from_numpy(rig.neutral)).numpy()[17:]
    assert np.linalg.norm(found - expected, axis=1).mean() < 0.012


def test_an_avatar_is_trained_on_it_and_driven_by_actions(
    tracked, shape, image, video, configs, again
) -> None:
    inputs = {
        "shape": shape.directory, "image": image.directory, "video": video.directory,
        "track": tracked.directory,
    }  # fmt: skip
    laid_out = again(TrainStage(), inputs, configs["train"])
    assert laid_out.facts["n_splats"] != 10_144, "splats lie on the completed surface"
    trained = again(TrainStage(), inputs, replace(configs["train"], start="faces"))
    assert trained.facts["n_splats"] == 10_144
    avatar = Avatar.load(trained.directory)
    assert avatar.rig.kind == "flame"
    jaw = torch.from_numpy(action_vector({"jawOpen": 1.0}))
    still, opened = avatar.splats({}), avatar.splats({"actions": jaw, "neck": torch.zeros(3)})
    assert (opened.means - still.means).norm(dim=-1).max() > 0.01
    picture = avatar.render(orbit_camera(0, size=64), {"actions": jaw})
    assert picture.shape == (64, 64, 4) and picture[..., 3].max() > 0.1


def test_options_and_missing_files_are_told(config, tmp_path, monkeypatch) -> None:
    for option, value in (("n_identity", 0), ("edition", "flame1999"), ("working_size", 8)):
        with pytest.raises(ConfigError, match=f"track.{option}"):
            replace(config, **{option: value})
    with pytest.raises(ConfigError, match="estimate_scale"):
        replace(config, multiview=MultiviewConfig(estimate_scale=True))
    monkeypatch.setenv("FC4D_ASSETS", str(tmp_path))
    missing = replace(config, edition="flame2023")
    with pytest.raises(WeightsMissing, match="assets import flame"):
        FlameTrackStage().setup(missing)
    with pytest.raises(WeightsMissing, match="assets import flame"):
        FlameTrackStage().weights_digest(missing)
