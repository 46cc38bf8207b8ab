"""The diffusion stage behind both shape priors, on tiny random checkpoints: wiring only."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from fc4d_ray.assets.tiny_diffusion import write_tiny_diffusion, write_tiny_unet
from fc4d_ray.assets.tiny_panohead import write_tiny_panohead
from fc4d_ray.config import load_config
from fc4d_ray.errors import InvalidAnnotation
from fc4d_ray.images import read_png
from fc4d_ray.priors.image.diffusion.config import DiffusionImageConfig
from fc4d_ray.priors.image.diffusion.views import Source
from fc4d_ray.priors.shape.fitting import FitConfig
from fc4d_ray.priors.shape.outer_shell import ShellConfig
from fc4d_ray.priors.shape.panohead.checkpoint import import_released
from fc4d_ray.priors.shape.panohead.config import PanoHeadShapeConfig
from fc4d_ray.priors.shape.panohead.inversion_config import InversionConfig
from fc4d_ray.priors.shape.views import read_cameras
from fc4d_ray.stages.diffusion_image import DiffusionImageStage
from fc4d_ray.stages.panohead_shape import PanoHeadShapeStage
from fc4d_ray.stages.protocol import StageContext
from fc4d_ray.stages.video import VideoStage

SIZE = 128


@pytest.fixture(scope="module")
def config_of(tmp_path_factory) -> Callable[[str], DiffusionImageConfig]:
    """A draft with a few denoising steps per view, as a user's YAML would say it."""

    def make(kind: str) -> DiffusionImageConfig:
        folder = tmp_path_factory.mktemp(kind)
        base = write_tiny_diffusion(folder / "base", kind)
        unet = write_tiny_unet(folder / "unet", kind)
        model = f"{{base: {base}, unet: {unet}, device: cpu}}"
        # The networks are random: to try their views again would gain nothing.
        options = f"size: {SIZE}, profile: draft, steps: 4, gates: {{retries: 0}}, model: {model}"
        chosen = load_config(None, [f"image={{name: diffusion, {options}}}"])
        return chosen.section("image").config

    return make


@pytest.fixture(scope="module")
def config(config_of) -> DiffusionImageConfig:
    return config_of("sd15")


@pytest.fixture(scope="module")
def panohead_shape(ingest, tmp_path_factory, again) -> Path:
    """Shape files of the other prior, from a tiny checkpoint in the released format."""
    folder = tmp_path_factory.mktemp("panohead")
    weights = import_released(write_tiny_panohead(folder / "released.pkl"), folder)
    inversion = InversionConfig(
        latent_steps=2, tuning_steps=2, statistics_samples=50, perceptual="none"
    )
    options = PanoHeadShapeConfig(
        checkpoint=str(weights), device="cpu", view_size=96, depth_size=32, view_batch=5,
        min_square_px=64, fit=FitConfig(steps=60), shell=ShellConfig(voxel_m=0.015),
        inversion=inversion,
    )  # fmt: skip
    return again(PanoHeadShapeStage(), {"ingest": ingest}, options).directory


@pytest.fixture(scope="module")
def made(config, ingest, shape, tmp_path_factory):
    output = tmp_path_factory.mktemp("image") / "out"
    return _run(DiffusionImageStage(), config, ingest, shape.directory, output)


def _run(stage, config, ingest: Path, shape: Path, output: Path, **row) -> tuple[Path, dict]:
    output.mkdir()
    row = {"avatar_id": "synthetic"} | row
    inputs = {"ingest": ingest, "shape": shape}
    context = StageContext(output / "source.png", inputs, output, config, 11, row)
    return output, stage.process(context)


def _check_files(output: Path, shape: Path) -> None:
    """What every image stage leaves, for all cameras."""
    assert {p.name for p in output.iterdir()} == {"views", "provenance", "image.json"}
    for named in read_cameras(shape):
        view = read_png(output / "views" / f"{named.name}.png")
        labels = read_png(output / "provenance" / f"{named.name}.png")
        coarse = read_png(shape / "views" / f"{named.name}.png")
        assert view.shape == (named.camera.height, named.camera.width, 4)
        assert labels.shape == view.shape[:2]
        assert set(np.unique(labels)) <= {int(s) for s in Source}
        if named.name != "reference":
            np.testing.assert_array_equal(view[..., 3], coarse[..., 3])
    assert len(json.loads((output / "image.json").read_text())["views"]) == 25


def test_the_files_are_those_every_image_stage_leaves(made, shape) -> None:
    output, facts = made
    _check_files(output, shape.directory)
    assert json.loads((output / "image.json").read_text())["unet_rows"] == facts["unet_rows"] > 0
    json.dumps(facts)


def test_views_of_panohead_are_taken_as_well(config_of, ingest, panohead_shape, tmp_path) -> None:
    config = config_of("sdxl")
    output, facts = _run(
        DiffusionImageStage(), config, ingest, panohead_shape, tmp_path / "out", prompt=None
    )
    _check_files(output, panohead_shape)
    assert facts["share_warped"] > 0.2, "depth and cameras must agree for anything to be warped"


def test_the_reference_holds_the_portraits_own_pixels(made, portrait) -> None:
    view = read_png(made[0] / "views" / "reference.png")
    np.testing.assert_array_equal(view[..., :3], portrait.image)


def test_the_record_tells_sources_and_gates_per_view(made) -> None:
    views = json.loads((made[0] / "image.json").read_text())["views"]
    front, side, back = (views[n] for n in ("az+015_el+00", "az+090_el+00", "az-165_el+00"))
    assert front["sources"] == ["reference"] and front["coverage"] > 0.5
    assert back["sources"] == [] and back["coverage"] == 0 and back["wave"] == 0
    assert side["coverage"] < front["coverage"] or "az+075_el+00" in side["sources"]
    for name, view in views.items():
        assert abs(sum(view["shares"].values()) - 1) < 1e-3, name
        if name != "reference":
            assert view["attempts"] >= 1 and isinstance(view["failures"], list)


def test_the_video_stage_accepts_the_views(made, shape, configs, again) -> None:
    inputs = {"shape": shape.directory, "image": made[0]}
    clips = again(VideoStage(), inputs, configs["video"])
    assert clips.facts["n_frames"] > 0


def test_a_prompt_that_is_no_text_fails_this_portrait_only(config, ingest, shape, tmp_path) -> None:
    stage = DiffusionImageStage()
    stage.setup(config)
    assert stage.weights_digest(config) == DiffusionImageStage().weights_digest(config)
    with pytest.raises(InvalidAnnotation, match="'prompt' must hold text or null"):
        _run(stage, config, ingest, shape.directory, tmp_path / "bad", prompt=7)
