from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from fc4d_ray.avatar.avatar import Avatar
from fc4d_ray.avatar.coin import CoinConfig
from fc4d_ray.avatar.frames import WindowConfig
from fc4d_ray.avatar.surface_samples import SurfaceSampleConfig
from fc4d_ray.cameras import orbit_camera
from fc4d_ray.errors import WeightsMissing
from fc4d_ray.heads.rig import Region
from fc4d_ray.images import read_png
from fc4d_ray.stages.person_files import read_person
from fc4d_ray.stages.protocol import StageContext
from fc4d_ray.stages.surface_start import folding_faces, lay_out, widest_poses
from fc4d_ray.stages.train import TrainStage, TrainStageConfig
from fc4d_ray.stages.training_frames import PersonFrames


@pytest.fixture(scope="module")
def trained(train):
    return train(3)


@pytest.fixture(scope="module")
def rig(shape):
    return read_person(shape.directory).rig


def test_the_avatar_plays_and_looks_like_the_person_already(trained, person) -> None:
    """Splats start on the completed surface: even seven steps leave a likeness."""
    assert {"rig.npz", "curves.csv", "train.json"} <= {p.name for p in trained.directory.iterdir()}
    avatar = Avatar.load(trained.directory)
    camera = orbit_camera(0, size=96)
    picture = avatar.render(camera, {}).numpy()
    assert picture.shape == (96, 96, 4)
    truth, _ = person.render(camera)
    alpha = picture[..., 3]
    overlap = ((alpha > 0.5) & (truth[..., 3] > 127))[:60].sum()
    assert overlap > 0.75 * (truth[..., 3] > 127)[:60].sum()


def test_facts_are_plain_and_finite(trained) -> None:
    facts = json.loads((trained.directory / "train.json").read_text())
    assert facts["steps"] == trained.facts["steps"] == 7
    assert trained.facts["n_splats"] > 500
    assert all(np.isfinite(v) for v in trained.facts.values() if isinstance(v, float))


def test_equal_seeds_give_equal_bytes_and_others_do_not(trained, train) -> None:
    same, other = train(3), train(4)
    ours = (trained.directory / "rig.npz").read_bytes()
    assert (same.directory / "rig.npz").read_bytes() == ours
    assert (other.directory / "rig.npz").read_bytes() != ours
    assert same.facts == trained.facts


def test_splats_are_laid_out_on_every_part_that_can_come_into_sight(rig) -> None:
    config = SurfaceSampleConfig(face_mm=6, hair_mm=12, body_mm=15)
    samples = lay_out(rig, config, seed=0, attachment="similarity")
    region = rig.region[rig.faces[samples.face_index, 0]]
    for kind in (Region.FACE, Region.EYE, Region.HAIR, Region.CLOTHING, Region.TEETH):
        assert (region == kind).any(), kind.name
    points = samples.points(rig.neutral, rig.faces)
    assert points[:, 1].min() > -0.25, "nothing below the bust's end"
    lids = widest_poses(rig, ({"eyeBlinkLeft": 1.0},), 3.0)[0] >= 0
    assert np.isin(np.flatnonzero(lids), samples.face_index).mean() > 0.5, "lids are needed"


def test_lids_get_splats_for_their_size_when_shut(rig) -> None:
    config = SurfaceSampleConfig(face_mm=1.5, hair_mm=12, body_mm=15)
    lids = np.flatnonzero(widest_poses(rig, ({"eyeBlinkLeft": 1.0},), 3.0)[0] >= 0)
    folded, unfolded = (
        np.isin(lay_out(rig, config, seed=0, attachment=a).face_index, lids).sum()
        for a in ("similarity", "affine")
    )
    assert unfolded > 1.2 * folded


def test_widest_poses_name_the_faces_that_grow(rig) -> None:
    pose, size = widest_poses(rig, ({}, {"eyeBlinkLeft": 1.0}), 2.0)
    lids = pose == 1
    assert set(np.unique(pose)) == {-1, 1}
    assert (size[lids] > 2).all() and (size[~lids] == 1).all()
    centres = rig.neutral[rig.faces].mean(1)
    assert 10 < lids.sum() < 600
    assert (centres[lids, 0] > 0).mean() > 0.95, "on the left eye only"
    assert (widest_poses(rig, ({},), 3.0)[0] == -1).all()


def test_lids_fold_and_cheeks_do_not(rig) -> None:
    grown = folding_faces(rig)
    folds = (grown > 1) & (rig.region[rig.faces[:, 0]] == Region.FACE)
    centres = rig.neutral[rig.faces].mean(1)
    marks = rig.landmarks(torch.from_numpy(rig.neutral)).numpy()
    to_eyes = np.linalg.norm(centres[:, None] - marks[36:48], axis=-1).min(1)
    to_lips = np.linalg.norm(centres[:, None] - marks[48:], axis=-1).min(1)
    assert np.minimum(to_eyes, to_lips)[folds].max() < 0.065, "the sockets' depths included"
    lids = widest_poses(rig, ({"eyeBlinkLeft": 1.0, "eyeBlinkRight": 1.0},), 2.0)[0] >= 0
    assert folds[lids].all()
    assert (folds & (grown < 1.8)).sum() > 20, "a lid's edge folds too, which grows less"
    nose = np.linalg.norm(centres - marks[30], axis=1) < 0.02
    assert nose.sum() > 50 and not folds[nose].any()


@pytest.fixture(scope="module")
def frames(shape, image, video, track, rig) -> PersonFrames:
    return PersonFrames(shape.directory, image.directory, video.directory, track.directory, rig)


def test_training_pictures_are_the_views_and_the_clips(frames, image, video) -> None:
    assert len(frames.views) == 25 and frames.names[frames.reference_view] == "reference"
    assert len(frames.static_samples) == 25
    assert len(frames.animated_samples) == 4 * 4, "four views, two clips of two frames"
    assert frames.parameters["actions"].shape == (5, 52)
    assert frames.parameters["actions"][0].abs().max() == 0, "time 0 is rest"
    for sample in (*frames.static_samples[:2], *frames.animated_samples[:2]):
        camera = frames.views[sample.view]
        assert frames.load(sample).shape == (camera.height, camera.width, 4)
    own = read_png(image.directory / "views" / f"{frames.names[0]}.png")
    np.testing.assert_array_equal(frames.load(frames.static_samples[0]), own)


def test_frames_and_parameters_belong_together(frames, track) -> None:
    with np.load(track.directory / "track.npz") as tracked:
        actions = torch.from_numpy(tracked["actions"]).float()
    torch.testing.assert_close(frames.parameters["actions"][1:], actions)
    smiling = next(s for s in frames.animated_samples if s.time == 2)
    resting = next(s for s in frames.static_samples if s.view == smiling.view)
    still = frames.load(resting)[..., :3].astype(int)
    assert np.abs(frames.load(smiling)[..., :3] - still).max() > 40


def test_the_focus_is_the_face_where_it_is_seen(frames, rig) -> None:
    marks = torch.from_numpy(rig.neutral)
    front = frames.names.index("az+000_el+00")
    left, top, right, bottom = frames.focus_box(frames.static_samples[front])
    pixels = frames.views[front].project(rig.landmarks(marks).numpy().astype(float))[0]
    np.testing.assert_allclose([left, top], pixels.min(0), atol=1e-3)
    np.testing.assert_allclose([right, bottom], pixels.max(0), atol=1e-3)
    back = frames.names.index("az+180_el+00")
    assert frames.focus_box(frames.static_samples[back]) is None


def test_the_weights_digest_is_of_the_bytes_that_are_used(tmp_path) -> None:
    def digest(name: str | None, **coin) -> str:
        backbone = None if name is None else str(tmp_path / name)
        config = TrainStageConfig(coin=CoinConfig(lpips_backbone=backbone, **coin))
        return TrainStage().weights_digest(config)

    for name, content in (("a.pth", b"one"), ("copy.pth", b"one"), ("b.pth", b"two")):
        (tmp_path / name).write_bytes(content)
    assert digest("a.pth") == digest("copy.pth") != digest("b.pth")
    assert digest(None) == digest("a.pth", structure="gradient_pyramid") == "none"
    with pytest.raises(WeightsMissing, match="absent.pth"):
        digest("absent.pth")


def test_splats_may_start_one_per_triangle(shape, image, video, track, person, tmp_path) -> None:
    rig = read_person(shape.directory).rig
    config = TrainStageConfig(
        static_steps=1, coin_steps=0, sh_degree=3, start="faces", window=WindowConfig(size=32)
    )
    inputs = {s: f.directory for s, f in
              (("shape", shape), ("image", image), ("video", video), ("track", track))}  # fmt: skip
    context = StageContext(tmp_path / "none", inputs, tmp_path, config, 5, {})
    facts = TrainStage().process(context)
    assert facts["n_splats"] == len(rig.faces)
    avatar = Avatar.load(tmp_path)
    assert avatar.gaussians.binding.tolist() == list(range(len(rig.faces)))
