from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from fc4d_ray.avatar.frames import FrameCache, Sample, WindowConfig, choose_window, sample_order
from fc4d_ray.errors import ConfigError


def frame(box: tuple[int, int, int, int], size: int = 100) -> np.ndarray:
    image = np.zeros((size, size, 4), np.uint8)
    left, top, right, bottom = box
    image[top:bottom, left:right] = 255
    return image


def windows(image, focus, config, n=200):
    random = np.random.default_rng(0)
    return [choose_window(image, focus, config, random) for _ in range(n)]


def test_windows_show_the_head_and_lie_inside_the_picture():
    image = frame((60, 10, 90, 50))
    for window in windows(image, None, WindowConfig(size=32)):
        assert (window.width, window.height) == (32, 32)
        assert 0 <= window.left <= 68
        assert 0 <= window.top <= 68
        assert window.crop(image)[..., 3].any()


def test_windows_favour_the_focus_box_as_often_as_asked():
    image, focus = frame((0, 0, 100, 100)), (70.0, 70.0, 72.0, 72.0)
    inside = [
        abs(w.left + 8 - 71) <= 2 and abs(w.top + 8 - 71) <= 2
        for w in windows(image, focus, WindowConfig(size=16, focus_fraction=0.7), 500)
    ]
    assert 0.62 < np.mean(inside) < 0.78


def test_whole_pictures_when_the_window_is_off_or_too_large():
    for size in (0, 100, 500):
        window = windows(frame((1, 1, 2, 2)), None, WindowConfig(size=size), 1)[0]
        assert (window.left, window.top, window.width, window.height) == (0, 0, 100, 100)
    with pytest.raises(ConfigError, match=r"window\.size"):
        WindowConfig(size=-1)


def test_an_empty_matte_still_gives_a_window():
    window = windows(np.zeros((100, 100, 4), np.uint8), None, WindowConfig(size=32), 1)[0]
    assert window.width == 32


def order(source, seed=0, **changes) -> list[Sample]:
    arguments = {"static_steps": 60, "coin_steps": 600, "static_fraction": 0.2}
    return sample_order(source, seed=seed, **arguments | {"reference_fraction": 0.0} | changes)


def test_every_picture_comes_once_before_any_comes_again(make_frames):
    static = order(make_frames(8))[:60]
    for start in range(0, 60, 6):
        assert sorted(s.view for s in static[start : start + 6]) == list(range(6))
    assert all(s.time == 0 for s in static)


def test_second_stage_mixes_in_static_pictures_and_the_reference(make_frames):
    source = make_frames(8, stretches=(0.0, 0.1, 0.2))
    coin = order(source)[60:]
    assert 0.15 < np.mean([s.time == 0 for s in coin]) < 0.25
    counts = Counter(s for s in coin if s.time > 0)
    assert max(counts.values()) - min(counts.values()) <= 1
    favoured = order(source, reference_fraction=0.5)
    assert 0.5 < np.mean([s.view == 0 for s in favoured]) < 0.66


def test_order_is_a_function_of_the_seed_and_works_without_clips(make_frames):
    source = make_frames(8)
    assert order(source) == order(source)
    assert order(source) != order(source, seed=1)
    source.animated_samples = []
    assert len(order(source)) == 660
    assert {s.time for s in order(source)} == {0}


def test_cache_keeps_the_latest_pictures_within_its_room(make_frames):
    source = make_frames(8)
    loaded: list[Sample] = []
    original = source.load
    source.load = lambda sample: loaded.append(sample) or original(sample)
    cache = FrameCache(source, max_bytes=2 * 8 * 8 * 4)
    for view in (0, 1, 0, 2, 0, 1):
        np.testing.assert_array_equal(cache.load(Sample(view, 0)), original(Sample(view, 0)))
    assert [s.view for s in loaded] == [0, 1, 2, 1]
    nothing = FrameCache(source, max_bytes=0)
    nothing.load(Sample(0, 0))
    nothing.load(Sample(0, 0))
    assert len(loaded) == 6
