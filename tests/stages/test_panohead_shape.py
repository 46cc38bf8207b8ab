"""The shape stage's variant ``panohead`` on a tiny checkpoint in the released format."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from skimage.data import astronaut

from fc4d_ray.assets.tiny_panohead import write_tiny_panohead
from fc4d_ray.cameras import orbit_azimuths
from fc4d_ray.config import load_config
from fc4d_ray.errors import ConfigError, WeightsMissing
from fc4d_ray.pipeline.run import run
from fc4d_ray.priors.shape.fitting import FitConfig
from fc4d_ray.priors.shape.outer_shell import ShellConfig
from fc4d_ray.priors.shape.panohead.checkpoint import import_released, load_generator
from fc4d_ray.priors.shape.panohead.config import PanoHeadShapeConfig
from fc4d_ray.priors.shape.panohead.inversion_config import InversionConfig
from fc4d_ray.priors.shape.panohead.person import PanoHeadPerson
from fc4d_ray.priors.shape.views import REFERENCE, read_views
from fc4d_ray.stages.panohead_shape import PanoHeadShapeStage
from fc4d_ray.stages.person_files import read_person

TINY = Path(__file__).resolve().parents[1] / "data" / "tiny.yaml"


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("panohead")
    return import_released(write_tiny_panohead(folder / "released.pkl", seed=0), folder)


@pytest.fixture(scope="module")
def config(weights: Path) -> PanoHeadShapeConfig:
    return PanoHeadShapeConfig(
        checkpoint=str(weights),
        device="cpu",
        view_size=96,
        depth_size=32,
        view_batch=5,
        min_square_px=64,
        fit=FitConfig(steps=200),
        shell=ShellConfig(voxel_m=0.012),
        inversion=InversionConfig(
            latent_steps=8, tuning_steps=4, statistics_samples=100, perceptual="none"
        ),
    )


@pytest.fixture(scope="module")
def shape(ingest: Path, config: PanoHeadShapeConfig, again) -> Any:
    return again(PanoHeadShapeStage(), {"ingest": ingest}, config)


def test_the_files_of_a_shape_stage_and_the_persons_own(shape) -> None:
    names = {path.name for path in shape.directory.iterdir()}
    assert names == {
        *("head.npz", "cameras.json", "views", "depth", "materials", "shape.json"),
        *("panohead.json", "latent.safetensors", "tuning.safetensors"),
    }
    assert json.loads((shape.directory / "shape.json").read_text()) == shape.facts
    assert shape.facts["perceptual"] == "none"
    assert shape.facts["mse_tuned"] < shape.facts["mse_start"]
    assert (shape.facts["latent_steps"], shape.facts["tuning_steps"]) == (8, 4)


def test_views_go_around_the_head_with_depth_and_materials(shape) -> None:
    views = read_views(shape.directory)
    assert len(views) == 25 and views[-1].name == REFERENCE
    for view, azimuth in zip(views[:-1], orbit_azimuths(), strict=True):
        position = view.camera.position
        seen = np.rad2deg(np.arctan2(position[0], position[2]))
        assert abs((seen - azimuth + 180) % 360 - 180) < 6, "up to the offset of the head"
        covered = view.depth > 0
        assert 0.2 < covered.mean() < 0.95
        assert view.rgba.shape == (96, 96, 4)
        assert (view.rgba[..., 3][covered] > 0).mean() > 0.95
        assert ((view.material > 0) == covered).all()
        # The ball's surface, from the camera's distance.
        distance = np.linalg.norm(position)
        assert np.abs(view.depth[covered] - distance).max() < 0.25


def test_neighbouring_views_agree_on_the_surface(shape) -> None:
    """Depth is z-depth in metres: points of one view lie on the surface another one sees."""
    views = read_views(shape.directory)
    one, other = views[0], views[2]
    rows, columns = np.nonzero(one.depth)
    points = one.camera.unproject(
        np.stack([columns, rows], -1) + 0.5, one.depth[rows, columns].astype(float)
    )
    pixels, depth = other.camera.project(points)
    column, row = (pixels - 0.5).round().astype(int).T
    inside = (column >= 0) & (column < 96) & (row >= 0) & (row < 96)
    seen = other.depth[row[inside], column[inside]]
    gap = np.abs(seen - depth[inside])[seen > 0]
    assert np.median(gap) < 0.012, "coarse samples are a sixteenth of a unit apart: 27 mm"


def test_the_fitted_head_projects_onto_the_portrait(shape, portrait) -> None:
    rig = read_person(shape.directory).rig
    marks = rig.landmarks(torch.from_numpy(rig.neutral)).numpy().astype(float)
    reference = read_views(shape.directory)[-1]
    assert reference.rgba.shape[:2] == portrait.image.shape[:2]
    pixels, _ = reference.camera.project(marks)
    distance = np.linalg.norm(pixels - portrait.landmarks, axis=1)[17:].mean()
    assert distance < 0.02 * portrait.image.shape[0]


def test_any_camera_can_be_rendered_later_and_the_tuning_is_kept(shape, weights: Path) -> None:
    generator = load_generator(weights)
    person = PanoHeadPerson.load(shape.directory, generator)
    stored = read_views(shape.directory)[3]
    (again,) = person.render([stored.camera], 32)
    assert np.abs(again.rgb.astype(int) - stored.rgba[..., :3]).max() <= 2
    assert np.abs(again.depth - stored.depth).max() < 1e-3
    original = (generator.decoder.net[2].bias, person.generator.decoder.net[2].bias)
    assert 1e-5 < float((original[0] - original[1]).abs().max()) < 0.01
    (shape.directory / "panohead.json").rename(shape.directory / "moved.json")
    with pytest.raises(WeightsMissing, match="no PanoHead person"):
        PanoHeadPerson.load(shape.directory, generator)
    (shape.directory / "moved.json").rename(shape.directory / "panohead.json")


def test_missing_weights_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FC4D_ASSETS", str(tmp_path))
    for checkpoint in (None, str(tmp_path / "released.pkl")):
        with pytest.raises(WeightsMissing, match="assets import panohead"):
            PanoHeadShapeStage().weights_digest(PanoHeadShapeConfig(checkpoint=checkpoint))


def test_the_digest_follows_the_weights(config, tmp_path: Path) -> None:
    stage = PanoHeadShapeStage()
    other = import_released(write_tiny_panohead(tmp_path / "other.pkl", seed=5), tmp_path)
    digest = stage.weights_digest(config)
    assert digest == stage.weights_digest(config)
    assert digest != stage.weights_digest(replace(config, checkpoint=str(other)))


@pytest.mark.parametrize(
    ("option", "value"),
    [("view_size", 16), ("depth_size", 8), ("view_batch", 0), ("device", "tpu")],
)
def test_impossible_options_are_refused_by_name(option: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=f"shape.{option}"):
        PanoHeadShapeConfig(**{option: value})


@pytest.mark.slow
def test_the_whole_pipeline_from_an_inverted_portrait(weights: Path, tmp_path: Path) -> None:
    """Every stage for real on the tiny generator, whose head is a ball of random colours."""
    picture = tmp_path / "ann.png"
    Image.fromarray(astronaut()).save(picture)
    overrides = [
        *("run.runner=local", "shape.name=panohead", f"shape.checkpoint={weights}"),
        *("shape.device=cpu", "shape.depth_size=32", "shape.min_square_px=64"),
        *("shape.inversion.latent_steps=6", "shape.inversion.tuning_steps=3"),
        *("shape.inversion.statistics_samples=100", "train.static_steps=3", "train.coin_steps=3"),
        *("ingest.matte_working_side=128", "shape.fit.steps=100", "track.steps=4"),
    ]
    summary = run([str(picture)], str(tmp_path / "out"), load_config(TINY, overrides))
    assert summary.exit_code == 0
    folder = Path(summary.avatars[0])
    record = json.loads((folder / "record.json").read_text())
    assert (folder / "avatar.ply").stat().st_size > 10_000
    assert "panohead" in {part["key"] for part in record["components"]}
