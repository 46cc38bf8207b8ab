"""The middle stages run once on a synthetic person, small; their folders are read only."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from fc4d_ray.avatar.coin import CoinConfig
from fc4d_ray.avatar.density import DensityConfig
from fc4d_ray.avatar.surface_samples import SurfaceSampleConfig
from fc4d_ray.evaluation.synthetic import SyntheticPerson, SyntheticPortrait, make_person
from fc4d_ray.images import write_png
from fc4d_ray.priors.image.classical import ClassicalImageConfig
from fc4d_ray.priors.shape.anny import AnnyShapeConfig
from fc4d_ray.priors.shape.fitting import FitConfig
from fc4d_ray.priors.shape.outer_shell import ShellConfig
from fc4d_ray.priors.video.actions import ActionsVideoConfig
from fc4d_ray.stages.image import ImageStage
from fc4d_ray.stages.protocol import Facts, Stage, StageContext
from fc4d_ray.stages.shape import ShapeStage
from fc4d_ray.stages.track import TrackStage
from fc4d_ray.stages.train import TrainStage, TrainStageConfig
from fc4d_ray.stages.video import VideoStage
from fc4d_ray.tracking import TrackingConfig

SEED = 7
CROP = 192
FRAME = 128
CONFIGS: dict[str, Any] = {
    "shape": AnnyShapeConfig(
        view_size=128, fit=FitConfig(steps=200), shell=ShellConfig(voxel_m=0.01)
    ),
    "image": ClassicalImageConfig(),
    "video": ActionsVideoConfig(
        clips=("smile", "neutral"), frames_per_clip=2, max_azimuth_deg=15, frame_size=FRAME
    ),
    "track": TrackingConfig(view_azimuths_deg=(0.0,), steps=40),
    "train": TrainStageConfig(
        static_steps=4,
        coin_steps=3,
        sh_degree=0,
        log_interval=2,
        density=DensityConfig(enabled=False),
        coin=CoinConfig(),
        surface=SurfaceSampleConfig(face_mm=6, hair_mm=12, body_mm=15),
    ),
}


class Artifact(NamedTuple):
    """What one stage left."""

    directory: Path
    facts: Facts


def run_stage(
    stage: Stage, inputs: dict[str, Path], output: Path, config: Any, seed: int = 11
) -> Artifact:
    """Call a stage as the pipeline does."""
    output.mkdir(parents=True)
    row = {"avatar_id": "synthetic"}
    context = StageContext(output / "source.png", inputs, output, config, seed, row)
    return Artifact(output, stage.process(context))


@pytest.fixture(scope="session")
def person() -> SyntheticPerson:
    return make_person(SEED)


@pytest.fixture(scope="session")
def portrait(person: SyntheticPerson) -> SyntheticPortrait:
    return person.portrait(person.portrait_camera(15, CROP, fov_deg=22))


@pytest.fixture(scope="session")
def ingest(portrait: SyntheticPortrait, tmp_path_factory) -> Path:
    """The ingest stage's files, exact."""
    directory = tmp_path_factory.mktemp("ingest")
    write_png(directory / "portrait.png", portrait.image)
    write_png(directory / "matte.png", portrait.matte)
    write_png(directory / "regions.png", portrait.labels)
    marks = portrait.landmarks
    box = [*marks.min(0), *marks.max(0)]
    side = portrait.image.shape[0]
    facts = {
        "landmarks": marks.tolist(),
        "face_box": box,
        "source_to_crop": [[1, 0, 0], [0, 1, 0]],
        "source_size": [side, side],
    }
    (directory / "ingest.json").write_text(json.dumps(facts))
    return directory


@pytest.fixture(scope="session")
def shape(ingest: Path, tmp_path_factory) -> Artifact:
    output = tmp_path_factory.mktemp("shape") / "out"
    return run_stage(ShapeStage(), {"ingest": ingest}, output, CONFIGS["shape"])


@pytest.fixture(scope="session")
def image(ingest: Path, shape: Artifact, tmp_path_factory) -> Artifact:
    output = tmp_path_factory.mktemp("image") / "out"
    inputs = {"ingest": ingest, "shape": shape.directory}
    return run_stage(ImageStage(), inputs, output, CONFIGS["image"])


@pytest.fixture(scope="session")
def video(shape: Artifact, image: Artifact, tmp_path_factory) -> Artifact:
    output = tmp_path_factory.mktemp("video") / "out"
    inputs = {"shape": shape.directory, "image": image.directory}
    return run_stage(VideoStage(), inputs, output, CONFIGS["video"])


@pytest.fixture(scope="session")
def track(shape: Artifact, image: Artifact, video: Artifact, tmp_path_factory) -> Artifact:
    output = tmp_path_factory.mktemp("track") / "out"
    inputs = {"shape": shape.directory, "image": image.directory, "video": video.directory}
    return run_stage(TrackStage(), inputs, output, CONFIGS["track"])


@pytest.fixture(scope="session")
def train(shape: Artifact, image: Artifact, video: Artifact, track: Artifact, tmp_path_factory):
    """Trains with a seed into a fresh folder."""

    def run(seed: int) -> Artifact:
        output = tmp_path_factory.mktemp("train") / "out"
        artifacts = {"shape": shape, "image": image, "video": video, "track": track}
        inputs = {name: artifact.directory for name, artifact in artifacts.items()}
        return run_stage(TrainStage(), inputs, output, CONFIGS["train"], seed)

    return run


@pytest.fixture(scope="session")
def again(tmp_path_factory):
    """Runs a stage a second time, for comparison."""

    def run(stage: Stage, inputs: dict[str, Path], config: Any, seed: int = 11) -> Artifact:
        return run_stage(stage, inputs, tmp_path_factory.mktemp("again") / "out", config, seed)

    return run


@pytest.fixture(scope="session")
def configs() -> dict[str, Any]:
    return CONFIGS
