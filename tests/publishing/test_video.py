from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from fc4d_ray.errors import StageFailed
from fc4d_ray.publishing.video import read_video, write_video


def _frames(n: int, height: int = 48, width: int = 64) -> list[np.ndarray]:
    y, x = np.mgrid[:height, :width]
    return [
        np.stack([x * 3, y * 4, np.full_like(x, 200 * i // max(n - 1, 1))], -1).astype(np.uint8)
        for i in range(n)
    ]


def test_frames_survive_encoding(tmp_path: Path) -> None:
    frames = _frames(12)
    assert write_video(tmp_path / "a.mp4", iter(frames), 24.0) == 12
    read, fps = read_video(tmp_path / "a.mp4")
    assert fps == 24 and read.shape == (12, 48, 64, 3)
    # Colour is stored at half resolution; smooth images survive it.
    assert np.abs(read.astype(int) - np.stack(frames)).mean() < 4


def test_same_frames_give_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a.mp4", "b.mp4"):
        write_video(tmp_path / name, _frames(10), 30.0)
    assert (tmp_path / "a.mp4").read_bytes() == (tmp_path / "b.mp4").read_bytes()


def test_players_need_yuv420p_and_even_sides(tmp_path: Path) -> None:
    import imageio_ffmpeg

    write_video(tmp_path / "odd.mp4", _frames(3, 49, 65), 24.0)
    meta = next(imageio_ffmpeg.read_frames(str(tmp_path / "odd.mp4")))
    assert meta["size"] == (64, 48)
    assert meta["codec"] == "h264" and meta["pix_fmt"].startswith("yuv420p")


def test_nothing_is_left_when_frames_fail(tmp_path: Path) -> None:
    def broken() -> Iterator[np.ndarray]:
        yield from _frames(3)
        raise RuntimeError("renderer broke")

    with pytest.raises(RuntimeError, match="renderer broke"):
        write_video(tmp_path / "x.mp4", broken(), 24.0)
    with pytest.raises(StageFailed, match="no frames"):
        write_video(tmp_path / "x.mp4", [], 24.0)
    with pytest.raises(StageFailed, match="ffmpeg"):
        write_video(tmp_path / "no_such_folder" / "x.mp4", _frames(3), 24.0)
    assert list(tmp_path.iterdir()) == []
