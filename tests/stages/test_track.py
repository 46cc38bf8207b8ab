from __future__ import annotations

import json

import numpy as np
import pytest

from fc4d_ray.stages.person_files import read_person
from fc4d_ray.stages.track import TrackStage, generator_difference_mm


def test_one_row_per_frame_of_every_clip(track) -> None:
    assert {p.name for p in track.directory.iterdir()} == {"track.npz", "track.json"}
    with np.load(track.directory / "track.npz") as tracked:
        assert tracked["clip"].tolist() == [0, 0, 1, 1]
        assert tracked["frame"].tolist() == [0, 1, 0, 1]
        assert tracked["actions"].shape == tracked["driven_actions"].shape == (4, 52)
        assert tracked["neck"].shape == (4, 3)
        assert np.isfinite(tracked["actions"]).all()
        assert tracked["actions"].min() >= 0 and tracked["actions"].max() <= 1


def test_tracked_motion_is_nearer_to_the_driven_than_none(track, shape) -> None:
    rig = read_person(shape.directory).rig
    with np.load(track.directory / "track.npz") as tracked:
        found, driven = tracked["actions"], tracked["driven_actions"]
    difference = generator_difference_mm(rig, found, driven)
    assert track.facts["generator_difference_mm"] == pytest.approx(difference, abs=2e-3)
    assert difference < 0.8 * generator_difference_mm(rig, np.zeros_like(driven), driven)
    assert generator_difference_mm(rig, driven, driven) == 0
    nothing = np.zeros_like(driven)
    assert generator_difference_mm(rig, nothing, nothing) == 0, "nothing moves"


def test_facts_are_plain_and_written(track) -> None:
    assert json.loads((track.directory / "track.json").read_text()) == track.facts
    assert track.facts["tracking_error"] == pytest.approx(
        track.facts["landmark_error_px"] / 128, abs=1e-4
    )


def test_a_second_run_gives_equal_numbers(track, shape, image, video, configs, again) -> None:
    inputs = {"shape": shape.directory, "image": image.directory, "video": video.directory}
    other = again(TrackStage(), inputs, configs["track"])
    with (
        np.load(track.directory / "track.npz") as one,
        np.load(other.directory / "track.npz") as two,
    ):
        assert one["actions"].tobytes() == two["actions"].tobytes()
