from __future__ import annotations

import os
import struct
import threading

import numpy as np
import pytest

from fc4d_ray.clips import ClipReader, write_clip
from fc4d_ray.errors import StoreError


@pytest.fixture
def frames() -> list[np.ndarray]:
    y, x = np.mgrid[0:40, 0:56].astype(np.float64)
    result = []
    for phase in range(5):
        colour = [127 + 120 * np.sin(0.15 * x + phase), 4 * y, 255 - 3 * x]
        alpha = 255 * np.clip((20 - np.hypot(x - 28, y - 20)) / 3, 0, 1)
        result.append(np.stack([*colour, alpha], -1).clip(0, 255).astype(np.uint8))
    return result


def test_jpeg_clip_keeps_alpha_exactly_and_colour_closely(tmp_path, frames):
    path = tmp_path / "a.clip"
    assert write_clip(path, iter(frames), 25.0) == 5
    with ClipReader(path) as clip:
        assert (len(clip), clip.fps, clip.size) == (5, 25.0, (56, 40))
        for i in (3, 0, 4):
            frame = clip.frame(i)
            np.testing.assert_array_equal(frame[..., 3], frames[i][..., 3])
            inside = frames[i][..., 3] > 0
            error = np.abs(frame[..., :3].astype(int) - frames[i][..., :3])[inside]
            assert error.mean() < 3
        assert clip.frame(1).dtype == np.uint8


def test_lossless_clip_is_exact_even_under_zero_alpha(tmp_path, frames):
    path = tmp_path / "a.clip"
    write_clip(path, frames, 30, codec="lossless")
    with ClipReader(path) as clip:
        for read, written in zip(clip, frames, strict=True):
            np.testing.assert_array_equal(read, written)


def test_equal_frames_give_equal_bytes(tmp_path, frames):
    for name in ("a", "b"):
        write_clip(tmp_path / name, frames, 25)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


@pytest.mark.parametrize("keep", [0, 10, 60, 0.5, -1])
def test_truncated_file_is_refused_by_name(tmp_path, frames, keep):
    path = tmp_path / "cut.clip"
    write_clip(path, frames, 25)
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * keep) if isinstance(keep, float) else keep])
    with pytest.raises(StoreError, match=r"cut\.clip"):
        ClipReader(path)


def test_corrupt_frame_is_refused_others_still_read(tmp_path, frames):
    path = tmp_path / "rot.clip"
    write_clip(path, frames, 25)
    data = bytearray(path.read_bytes())
    data[-5] ^= 0xFF
    path.write_bytes(data)
    with ClipReader(path) as clip:
        clip.frame(0)
        with pytest.raises(StoreError, match=r"rot\.clip is corrupt at frame 4"):
            clip.frame(4)


def test_corrupt_index_is_refused(tmp_path, frames):
    path = tmp_path / "rot.clip"
    write_clip(path, frames, 25)
    data = bytearray(path.read_bytes())
    data[45] ^= 0x01
    path.write_bytes(data)
    with pytest.raises(StoreError, match="checksum"):
        ClipReader(path)


def test_other_files_and_absent_files_are_refused(tmp_path, frames):
    (tmp_path / "x.png").write_bytes(b"\x89PNG" + bytes(100))
    with pytest.raises(StoreError, match=r"x\.png is not a clip"):
        ClipReader(tmp_path / "x.png")
    with pytest.raises(StoreError, match=r"absent\.clip"):
        ClipReader(tmp_path / "absent.clip")
    write_clip(tmp_path / "new.clip", frames, 25)
    data = bytearray((tmp_path / "new.clip").read_bytes())
    struct.pack_into("<H", data, 8, 9)
    (tmp_path / "new.clip").write_bytes(data)
    with pytest.raises(StoreError, match="format 9"):
        ClipReader(tmp_path / "new.clip")


def test_unusable_frames_leave_no_file(tmp_path, frames):
    path = tmp_path / "a.clip"
    with pytest.raises(ValueError, match="first was"):
        write_clip(path, [frames[0], frames[1][:20]], 25)
    with pytest.raises(ValueError, match="uint8"):
        write_clip(path, [frames[0].astype(np.float32)], 25)
    with pytest.raises(ValueError, match="no frames"):
        write_clip(path, [], 25)
    with pytest.raises(StoreError, match="cannot write"):
        write_clip(tmp_path / "nowhere" / "a.clip", frames, 25)
    assert os.listdir(tmp_path) == []


def test_one_reader_serves_several_threads(tmp_path, frames):
    path = tmp_path / "a.clip"
    write_clip(path, frames, 25, codec="lossless")
    wrong: list[int] = []
    with ClipReader(path) as clip:

        def read_all() -> None:
            for i in list(range(5)) * 10:
                if not np.array_equal(clip.frame(i), frames[i]):
                    wrong.append(i)

        threads = [threading.Thread(target=read_all) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert wrong == []
    with pytest.raises(IndexError):
        ClipReader(path).frame(5)
