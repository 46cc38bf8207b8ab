"""The LivePortrait stage behind the fitted head, on tiny networks whose pictures stay faces."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from fc4d_ray.assets.tiny_liveportrait import write_tiny_liveportrait
from fc4d_ray.clips import ClipReader
from fc4d_ray.config import load_config
from fc4d_ray.errors import ConfigError, StageFailed, WeightsMissing
from fc4d_ray.images import read_png, write_png
from fc4d_ray.priors.video.liveportrait.animator import InferenceConfig
from fc4d_ray.priors.video.liveportrait.config import LivePortraitVideoConfig
from fc4d_ray.priors.video.liveportrait.keypoint_motion import KeypointMotion, write_motion
from fc4d_ray.stages.liveportrait_video import LivePortraitVideoStage
from fc4d_ray.stages.protocol import StageContext

FRAME = 96


@pytest.fixture(scope="module", autouse=True)
def assets(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("assets")
    write_tiny_liveportrait(folder / "liveportrait")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FC4D_ASSETS", str(folder))
        yield folder


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A motion template: keypoints swing to and fro, the head turns."""
    path = tmp_path_factory.mktemp("templates") / "swing.npz"
    phase = np.sin(np.linspace(0, np.pi, 9, dtype=np.float32))[:, None, None]
    direction = np.random.default_rng(2).standard_normal((21, 3)).astype(np.float32)
    motion = KeypointMotion(
        "swing",
        24.0,
        np.repeat(np.eye(3, dtype=np.float32)[None], 9, 0),
        0.08 * phase * direction,
        np.zeros((9, 3), np.float32),
        np.ones((9, 1), np.float32),
    )
    write_motion(motion, path)
    return path


@pytest.fixture(scope="module")
def config(template: Path) -> LivePortraitVideoConfig:
    return LivePortraitVideoConfig(
        pool=(str(template), "smile"),
        clips=2,
        frames_per_clip=3,
        max_azimuth_deg=15,
        frame_size=FRAME,
        inference=InferenceConfig(input_size=64),
    )


@pytest.fixture(scope="module")
def run(ingest: Path, shape: Any, image: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    def call(config: LivePortraitVideoConfig, seed: int = 5, **inputs: Path) -> tuple[Path, Any]:
        output = tmp_path_factory.mktemp("liveportrait") / "out"
        output.mkdir()
        folders = {"ingest": ingest, "shape": shape.directory, "image": image.directory} | inputs
        context = StageContext(output / "s.png", folders, output, config, seed, {"avatar_id": "a"})
        return output, LivePortraitVideoStage().process(context)

    return call


@pytest.fixture(scope="module")
def made(run: Any, config: LivePortraitVideoConfig) -> tuple[Path, Any]:
    return run(config)


def _frames(output: Path, clip: str, view: str) -> np.ndarray:
    with ClipReader(output / "clips" / clip / f"{view}.clip") as reader:
        return np.stack(list(reader))


def test_files_and_records(made: tuple[Path, Any]) -> None:
    output, facts = made
    record = json.loads((output / "video.json").read_text())
    assert record["views"][0] == "reference" and len(record["views"]) == 4
    assert record["clips"] == ["swing", "smile"] and record["frames"] == 6
    assert facts == {"n_clips": 2, "n_frames": 24, "n_still_views": 21}
    assert [clip["kind"] for clip in record["driving"]] == ["template", "actions"]
    for clip in record["clips"]:
        for view in record["views"]:
            assert _frames(output, clip, view).shape == (3, FRAME, FRAME, 4)
    with np.load(output / "motion.npz") as motion:
        assert motion["smile.actions"].shape == (3, 52) and "swing.actions" not in motion
        assert motion["swing.frames"].tolist() == [0, 4, 8] and motion["swing.fps"] == 24
        assert motion["swing.expression"].shape == (3, 21, 3)


def test_views_that_cannot_be_animated_are_marked(
    run: Any, config: LivePortraitVideoConfig, template: Path
) -> None:
    """The back of the head shows none of the landmarks, however wide the limit."""
    wide = replace(config, pool=(str(template),), clips=1, max_azimuth_deg=180, frames_per_clip=2)
    output, facts = run(wide)
    record = json.loads((output / "video.json").read_text())
    still = record["still_views"]
    assert "az+180_el+00" in still and "landmarks" in still["az+180_el+00"]
    assert {"az+000_el+00", "az+030_el+00", "az-030_el+00"} <= set(record["views"])
    assert len(still) + len(record["views"]) == 25 and facts["n_still_views"] == len(still)
    assert not (output / "clips" / "swing" / "az+180_el+00.clip").exists()
    seen = {view: face["visible"] for view, face in record["faces"].items()}
    assert seen["az+000_el+00"] > 0.9 and min(seen.values()) >= wide.min_visible


def test_the_first_frame_is_at_rest_and_later_ones_move(made: tuple[Path, Any], image: Any) -> None:
    output, _ = made
    for view in ("reference", "az+000_el+00"):
        first, middle, _ = _frames(output, "swing", view).astype(int)
        face = np.abs(middle - first)[30:70, 30:66, :3].max(-1)
        assert (face > 8).mean() > 0.1, view
        rest = read_png(image.directory / "views" / f"{view}.png")
        rest = cv2.resize(rest, (FRAME, FRAME), interpolation=cv2.INTER_AREA).astype(int)
        assert np.abs(first[..., 3] - rest[..., 3]).mean() < 4, view
        crown = rest[:6] * (rest[:6, :, 3:] == 255)
        shown = first[:6] * (rest[:6, :, 3:] == 255)
        assert np.abs(crown - shown)[..., :3].mean() < 4, view


def test_views_move_in_step(made: tuple[Path, Any]) -> None:
    """Each frame differs from rest by as much, relatively, in one view as in the other."""
    output, _ = made
    strengths = []
    for view in ("reference", "az+000_el+00", "az+015_el+00"):
        frames = np.concatenate([_frames(output, clip, view) for clip in ("swing", "smile")])
        moved = np.abs(frames.astype(int) - frames[0])[..., :3].mean((1, 2, 3))
        strengths.append(moved / moved.max())
    np.testing.assert_allclose(strengths[1], strengths[0], atol=0.2)
    np.testing.assert_allclose(strengths[2], strengths[1], atol=0.2)


def test_equal_seeds_give_equal_bytes_and_others_other_clips(
    run: Any, config: LivePortraitVideoConfig, template: Path
) -> None:
    one = replace(config, pool=(str(template), "smile", "blink", "frown"), clips=1,
                  frames_per_clip=2, max_azimuth_deg=0)  # fmt: skip
    first, _ = run(one, seed=3)
    second, _ = run(one, seed=3)
    files = sorted(p.relative_to(first) for p in first.rglob("*.clip"))
    assert files
    assert all((first / f).read_bytes() == (second / f).read_bytes() for f in files)
    drawn = {json.loads((run(one, seed=s)[0] / "video.json").read_text())["clips"][0]
             for s in range(4)}  # fmt: skip
    assert len(drawn) > 1


def test_a_faceless_portrait_shape_fails_typed(
    run: Any, config: LivePortraitVideoConfig, shape: Any, tmp_path: Path
) -> None:
    import shutil

    hollow = tmp_path / "shape"
    shutil.copytree(shape.directory, hollow)
    depth = hollow / "depth" / "reference.png"
    write_png(depth, np.zeros_like(read_png(depth)))
    with pytest.raises(StageFailed, match="only 0 of 68 landmarks lie on the surface"):
        run(config, shape=hollow)


def test_missing_weights_are_named(
    config: LivePortraitVideoConfig, assets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FC4D_ASSETS", str(tmp_path))
    with pytest.raises(WeightsMissing, match=r"appearance_feature_extractor\.pth.*huggingface"):
        LivePortraitVideoStage().weights_digest(config)
    with pytest.raises(WeightsMissing):
        LivePortraitVideoStage().setup(config)


def test_the_key_follows_weights_and_pool(
    config: LivePortraitVideoConfig,
    template: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stage = LivePortraitVideoStage()
    digest = stage.weights_digest(config)
    copy = tmp_path / "elsewhere" / template.name
    copy.parent.mkdir()
    copy.write_bytes(template.read_bytes())
    assert stage.weights_digest(replace(config, pool=(str(copy), "smile"))) == digest
    assert stage.weights_digest(replace(config, pool=("smile", "blink"))) != digest
    with pytest.raises(ConfigError, match=r"video\.pool holds 1"):
        stage.weights_digest(replace(config, pool=("smile",)))
    write_tiny_liveportrait(tmp_path / "assets" / "liveportrait", seed=1)
    monkeypatch.setenv("FC4D_ASSETS", str(tmp_path / "assets"))
    assert stage.weights_digest(config) != digest


def test_the_variant_is_chosen_by_name_and_checked() -> None:
    chosen = load_config(None, ["video={name: liveportrait, clips: 3}"]).section("video")
    assert chosen.config == LivePortraitVideoConfig(clips=3)
    assert chosen.variant.stage.endswith("LivePortraitVideoStage")
    with pytest.raises(ConfigError, match=r"video\.frames_per_clip"):
        load_config(None, ["video={name: liveportrait, frames_per_clip: 1}"])
    with pytest.raises(ConfigError, match="region"):
        load_config(None, ["video={name: liveportrait, motion: {region: nose}}"])
