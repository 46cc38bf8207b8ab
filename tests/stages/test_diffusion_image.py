"""The diffusion stage behind both shape priors, on tiny random checkpoints: wiring only."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from fc4d_ray.assets.tiny_diffusion import write_tiny_diffusion, write_tiny_unet
from fc4d_ray.config import load_config
from fc4d_ray.errors import InvalidAnnotation
from fc4d_ray.images import read_png
from fc4d_ray.priors.image.diffusion.config import DiffusionImageConfig
from fc4d_ray.priors.image.diffusion.views import Source
from fc4d_ray.priors.shape.views import read_cameras
from fc4d_ray.stages.diffusion_image import DiffusionImageStage
from fc4d_ray.stages.protocol import StageContext
from fc4d_ray.stages.video import VideoStage

SIZE = 128


@pytest.fixture(scope="module", params=["sd15", "sdxl"])
def config(request, tmp_path_factory) -> DiffusionImageConfig:
    """A draft with two denoising steps per view, as a user's YAML would say it."""
    folder = tmp_path_factory.mktemp("tiny")
    base = write_tiny_diffusion(folder / "base", request.param)
    unet = write_tiny_unet(folder / "unet", request.param)
    model = f"{{base: {base}, unet: {unet}, device: cpu}}"
    options = f"{{name: diffusion, size: {SIZE}, profile: draft, steps: 4, model: {model}}}"
    return load_config(None, [f"image={options}"]).section("image").config


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


def test_the_files_are_those_every_image_stage_leaves(made, shape) -> None:
    output, facts = made
    assert {p.name for p in output.iterdir()} == {"views", "provenance", "image.json"}
    for named in read_cameras(shape.directory):
        view = read_png(output / "views" / f"{named.name}.png")
        labels = read_png(output / "provenance" / f"{named.name}.png")
        coarse = read_png(shape.directory / "views" / f"{named.name}.png")
        assert view.shape == (named.camera.height, named.camera.width, 4)
        assert labels.shape == view.shape[:2]
        assert set(np.unique(labels)) <= {int(s) for s in Source}
        if named.name != "reference":
            np.testing.assert_array_equal(view[..., 3], coarse[..., 3])
    record = json.loads((output / "image.json").read_text())
    assert len(record["views"]) == 25 and record["unet_rows"] == facts["unet_rows"] > 0
    json.dumps(facts)


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


def test_equal_seeds_give_equal_bytes_and_the_digest_is_stable(
    config, made, ingest, shape, tmp_path
) -> None:
    stage = DiffusionImageStage()
    assert stage.weights_digest(config) == DiffusionImageStage().weights_digest(config)
    again, _ = _run(stage, config, ingest, shape.directory, tmp_path / "out")
    for path in sorted((made[0] / "views").iterdir()):
        assert path.read_bytes() == (again / "views" / path.name).read_bytes(), path.name


def test_a_prompt_that_is_no_text_fails_this_portrait_only(
    config, ingest, shape, tmp_path
) -> None:
    stage = DiffusionImageStage()
    stage.setup(config)
    with pytest.raises(InvalidAnnotation, match="'prompt' must hold text or null"):
        _run(stage, config, ingest, shape.directory, tmp_path / "bad", prompt=7)
    _, facts = _run(stage, config, ingest, shape.directory, tmp_path / "good", prompt=None)
    assert facts["unet_rows"] > 0
