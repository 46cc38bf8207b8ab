"""H.264 video files that play everywhere and are the same bytes for the same frames."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fc4d_ray.errors import StageFailed

CONSTANT_RATE_FACTOR = 17
"""x264 quality: 17 is hard to tell from the source."""

_REPRODUCIBLE = ("-threads", "2", "-map_metadata", "-1", "-fflags", "+bitexact")
_SEEKABLE = ("-movflags", "+faststart", "-flags:v", "+bitexact")


class VideoFailed(StageFailed):
    """The encoder is missing or gave up."""


def write_video(path: Path, frames: Iterable[NDArray[np.uint8]], fps: float) -> int:
    """Encode RGB frames (h, w, 3) as they come and return how many there were.

    yuv420p needs even sides: a last odd row or column is dropped. The file appears under its name
    only when complete.

    Raises:
        VideoFailed: there is no frame, no ffmpeg, or ffmpeg reports an error.
    """
    iterator = iter(frames)
    first = next(iterator, None)
    if first is None:
        raise VideoFailed(f"{path.name}: no frames to write")
    height, width = (side - side % 2 for side in first.shape[:2])
    scratch = path.with_name(f".{path.name}.partial.mp4")
    encoder = _Encoder(scratch, (width, height), fps)
    count = 0
    try:
        for frame in itertools.chain([first], iterator):
            encoder.send(frame[:height, :width])
            count += 1
        encoder.finish(count)
        scratch.replace(path)
    finally:
        encoder.close()
        scratch.unlink(missing_ok=True)
    return count


def read_video(path: Path) -> tuple[NDArray[np.uint8], float]:
    """All frames (T, h, w, 3) RGB and the rate of a video file."""
    import imageio_ffmpeg

    reader = imageio_ffmpeg.read_frames(str(path), pix_fmt="rgb24")
    meta = next(reader)
    width, height = meta["size"]
    frames = [np.frombuffer(data, np.uint8).reshape(height, width, 3) for data in reader]
    return np.stack(frames), float(meta["fps"])


class _Encoder:
    """An ffmpeg process that eats frames; its errors become ``VideoFailed``."""

    def __init__(self, path: Path, size: tuple[int, int], fps: float) -> None:
        import imageio_ffmpeg

        self._path = path
        try:
            imageio_ffmpeg.get_ffmpeg_exe()
        except RuntimeError as error:
            raise VideoFailed(f"no ffmpeg ({error}): pip install imageio-ffmpeg") from error
        self._writer = imageio_ffmpeg.write_frames(
            str(path),
            size,
            pix_fmt_in="rgb24",
            pix_fmt_out="yuv420p",
            fps=fps,
            codec="libx264",
            quality=None,
            macro_block_size=2,
            ffmpeg_log_level="error",
            output_params=["-crf", str(CONSTANT_RATE_FACTOR), *_REPRODUCIBLE, *_SEEKABLE],
        )
        self._guarded(lambda: self._writer.send(None))

    def send(self, frame: NDArray[np.uint8]) -> None:
        self._guarded(lambda: self._writer.send(np.ascontiguousarray(frame)))

    def finish(self, n_frames: int) -> None:
        """Flush the file and check that it holds ``n_frames``: ffmpeg's exit code is not told."""
        import imageio_ffmpeg

        self._guarded(self._writer.close)
        try:
            written, _ = imageio_ffmpeg.count_frames_and_secs(str(self._path))
        except (RuntimeError, OSError) as error:
            raise VideoFailed(f"{self._path.name}: ffmpeg wrote no readable file") from error
        if written != n_frames:
            raise VideoFailed(f"{self._path.name}: ffmpeg wrote {written} of {n_frames} frames")

    def close(self) -> None:
        """End ffmpeg, whatever state the file is in."""
        with contextlib.suppress(OSError):
            self._writer.close()

    def _guarded(self, call: Callable[[], object]) -> None:
        try:
            call()
        except OSError as error:
            raise VideoFailed(f"{self._path.name}: ffmpeg failed: {error}") from error
