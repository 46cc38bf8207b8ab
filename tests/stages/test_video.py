from __future__ import annotations

import json

import numpy as np

from fc4d_ray.clips import ClipReader
from fc4d_ray.images import read_png
from fc4d_ray.priors.shape.views import REFERENCE, read_cameras
from fc4d_ray.priors.video.motion import load_clip
from fc4d_ray.stages.video import animated_cameras

VIEWS = ["reference", "az+000_el+00", "az+015_el+00", "az-015_el+00"]


def test_every_animated_view_has_every_clip(video) -> None:
    facts = json.loads((video.directory / "video.json").read_text())
    assert sorted(facts["views"]) == sorted(VIEWS) and facts["views"][0] == "reference"
    assert facts["clips"] == ["smile", "neutral"]
    for clip in facts["clips"]:
        for view in VIEWS:
            with ClipReader(video.directory / "clips" / clip / f"{view}.clip") as reader:
                frames = list(reader)
            assert len(frames) == 2 and frames[0].shape == (128, 128, 4)
    assert video.facts == {"n_clips": 2, "n_frames": 4 * len(VIEWS)}


def test_the_signal_is_the_clips_own(video) -> None:
    with np.load(video.directory / "motion.npz") as motion:
        for name in ("smile", "neutral"):
            clip, frames = load_clip(name), motion[f"{name}.frames"]
            np.testing.assert_array_equal(motion[f"{name}.actions"], clip.actions[frames])
            assert motion[f"{name}.fps"] == clip.fps


def test_frames_keep_the_pictures_where_nothing_moves(video, image) -> None:
    """The smile reaches neither the crown nor, in any view, the picture's corners."""
    import cv2

    picture = read_png(image.directory / "views" / "az+000_el+00.png")
    with ClipReader(video.directory / "clips" / "smile" / "az+000_el+00.clip") as reader:
        frame = reader.frame(1)
    rest = cv2.resize(picture, (128, 128), interpolation=cv2.INTER_AREA)
    np.testing.assert_array_equal(frame[:20, :, 3], rest[:20, :, 3])
    solid = rest[..., 3] == 255
    solid[45:] = False
    assert solid.sum() > 100
    difference = np.abs(frame[..., :3].astype(int) - rest[..., :3])[solid]
    assert difference.mean() < 4, "what JPEG leaves"


def test_the_paper_animates_the_reference_and_eleven_frontal_views(shape) -> None:
    cameras = read_cameras(shape.directory)
    chosen = animated_cameras(cameras, 75.0)
    assert chosen[0].name == REFERENCE and len(chosen) == 12
    assert max(abs(c.azimuth_deg) for c in chosen[1:]) == 75
    assert [c.name for c in animated_cameras(cameras, 0.0)] == [REFERENCE, "az+000_el+00"]
