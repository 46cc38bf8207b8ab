from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import plyfile
import pytest
from ball_avatars import ball_avatar

from fc4d_ray.avatar.avatar import Avatar
from fc4d_ray.cameras import orbit_camera
from fc4d_ray.errors import ConfigError
from fc4d_ray.images import read_png, write_png
from fc4d_ray.playback import Performance, render_rgba
from fc4d_ray.priors.video.motion import load_clip
from fc4d_ray.publishing.video import read_video
from fc4d_ray.stages.protocol import StageContext
from fc4d_ray.stages.publish import PublishConfig, PublishStage

FAST = PublishConfig(video_size=64, turntable_seconds=0.5, fps=12, clips=("blink",))
CROP = 128


@pytest.fixture
def context(tmp_path: Path) -> StageContext:
    avatar = ball_avatar()
    for name in ("ingest", "shape", "train", "publish"):
        (tmp_path / name).mkdir()
    avatar.save(tmp_path / "train")
    reference = orbit_camera(20, 0, size=CROP)
    seen = render_rgba(avatar, reference, Performance().parameters(0))
    write_png(tmp_path / "ingest" / "portrait.png", seen[..., :3])
    write_png(tmp_path / "ingest" / "matte.png", seen[..., 3])
    write_png(tmp_path / "ingest" / "regions.png", (seen[..., 3] > 127).astype(np.uint8))
    landmarks = np.full((68, 2), CROP / 2)
    landmarks[8, 1] = CROP * 0.8
    facts = {
        "landmarks": landmarks.tolist(),
        "face_box": [30, 30, 90, 90],
        "source_to_crop": [[1, 0, 0], [0, 1, 0]],
        "source_size": [CROP, CROP],
    }
    (tmp_path / "ingest" / "ingest.json").write_text(json.dumps(facts))
    camera = {"name": "reference", "azimuth_deg": 20.0, "depth_unit_m": 1.0, **reference.to_json()}
    (tmp_path / "shape" / "cameras.json").write_text(json.dumps([camera]))
    return StageContext(
        source=tmp_path / "x.png",
        inputs={name: tmp_path / name for name in ("ingest", "shape", "train")},
        output=tmp_path / "publish",
        config=FAST,
        seed=7,
        row={"avatar_id": "ab12", "source_uri": "x.png", "licence": "CC0", "landmarks": [[0, 0]]},
        facts={"ingest": {"warnings": []}, "track": {"tracking_error": 0.8}, "train": {"n": 1}},
    )


def test_everything_people_use_is_written(context: StageContext) -> None:
    said: list[float] = []
    context = StageContext(**{**vars(context), "progress": lambda f, text: said.append(f)})
    figures = PublishStage().process(context)
    out = context.output
    assert {p.name for p in out.iterdir()} == {
        "avatar.ply", "rig.npz", "preview.png", "reference.png", "turntable.mp4",
        "expressions.mp4", "sheet.png", "record.json",
    }  # fmt: skip
    assert said == sorted(said) and len(said) >= 4

    assert figures["silhouette_iou"] == 1.0 and figures["tracking_error"] == 0.8
    assert figures["id_distance_0"] is None and figures["reference_azimuth_deg"] == 20.0
    assert json.loads(json.dumps(figures)) == figures

    vertices = plyfile.PlyData.read(out / "avatar.ply")["vertex"]
    assert len(vertices) == len(ball_avatar().gaussians)
    assert np.abs(np.linalg.norm([vertices[c] for c in "xyz"], axis=0) - 0.1).max() < 0.01
    assert len(Avatar.load(out).gaussians) == len(vertices), "rig.npz alone is an avatar"

    preview = read_png(out / "preview.png")
    assert preview.shape == (512, 512, 3) and (preview[5, 5] == 255).all()
    assert preview[256, 200, 0] > 150 > preview[256, 200, 2], "the subject's right is red"
    assert preview[256, 312, 2] > 150 > preview[256, 312, 0]
    assert read_png(out / "sheet.png").shape[1] > 2000


def test_videos_turn_and_act(context: StageContext) -> None:
    PublishStage().process(context)
    turn, fps = read_video(context.output / "turntable.mp4")
    assert fps == 12 and turn.shape == (6, 64, 64, 3)
    # After half a turn the halves have changed sides.
    assert turn[0, 32, 20, 0] > 150 > turn[3, 32, 20, 0]
    acted, _ = read_video(context.output / "expressions.mp4")
    assert len(acted) == load_clip("blink").resampled(12).n_frames


def test_record_says_what_it_was_made_of(context: StageContext) -> None:
    figures = PublishStage().process(context)
    record = json.loads((context.output / "record.json").read_text())
    assert record["avatar_id"] == "ab12" and record["seed"] == 7
    assert record["quality"] == figures and record["facts"]["train"] == {"n": 1}
    assert record["input_columns"] == {"licence": "CC0"}
    keys = {component["key"] for component in record["components"]}
    assert {"anny", "dlib-landmarks", "dlib-descriptor"} <= keys and "flame2023" not in keys
    assert all(component["licence"] for component in record["components"])
    assert set(record["files"]) == {p.name for p in context.output.iterdir()}


def test_stages_that_name_their_components_are_believed(context: StageContext) -> None:
    facts = {**context.facts, "ingest": {"components": ["insightface-buffalo-l"]}}
    context = StageContext(**{**vars(context), "facts": facts})
    PublishStage().process(context)
    record = json.loads((context.output / "record.json").read_text())
    assert "insightface-buffalo-l" in {component["key"] for component in record["components"]}


def test_equal_inputs_give_equal_bytes(context: StageContext, tmp_path: Path) -> None:
    other = StageContext(**{**vars(context), "output": tmp_path / "again"})
    other.output.mkdir()
    PublishStage().process(context)
    PublishStage().process(other)
    for file in context.output.iterdir():
        assert file.read_bytes() == (other.output / file.name).read_bytes(), file.name


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"video_size": 10}, "publish.video_size"),
        ({"turntable_seconds": -1}, "publish.turntable_seconds"),
        ({"fps": 0}, "publish.fps"),
        ({"sway_deg": 90}, "publish.sway_deg"),
        ({"clips": ("yodel",)}, "yodel"),
    ],
)
def test_impossible_options_are_refused(options: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        PublishConfig(**options)
