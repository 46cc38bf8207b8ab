"""RGBA clips in one file, with random access to every frame.

Layout (little endian): header, one index entry per frame, the frames' bytes. A frame is either a
4:4:4 JPEG of the colours followed by a PNG of the alpha (``jpeg``: about 2 ms to write at 384² on
one core, against 30 ms for WebP at its default effort), or one lossless WebP (``lossless``). Alpha
is exact in both. Header, index and frames carry CRC-32 sums, so torn copies are noticed.
"""

from __future__ import annotations

import io
import os
import struct
import uuid
import zlib
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from fc4d_ray.errors import StoreError

ClipCodec = Literal["jpeg", "lossless"]

_MAGIC = b"FC4DCLIP"
_VERSION = 1
_CODECS: tuple[ClipCodec, ...] = ("jpeg", "lossless")
_HEADER = struct.Struct("<8sHHIIIdI")
"""Magic, version, codec, width, height, frame count, frames per second, CRC of the rest + index."""
_CRC_BYTES = 4
_ENTRY = struct.Struct("<QIII")
"""Offset in the file, bytes of the first and of the second image, CRC of both."""


@dataclass(frozen=True)
class _Entry:
    offset: int
    first_bytes: int
    second_bytes: int
    crc: int


def write_clip(
    path: Path,
    frames: Iterable[NDArray[np.uint8]],
    fps: float,
    *,
    quality: int = 92,
    codec: ClipCodec = "jpeg",
    encoders: int = 1,
) -> int:
    """Write (H, W, 4) uint8 RGBA frames, straight alpha; returns how many there were.

    ``quality`` (1-100) is JPEG's; colours under alpha 0 are not kept by ``jpeg``. With several
    ``encoders`` frames are compressed by as many threads while the next ones are made; the bytes
    are the same, and twice as many frames are held at most. The file appears
    under its name only when complete. Raises ``ValueError`` on frames of unequal size or none, and
    ``StoreError`` where the file cannot be written.
    """
    if codec not in _CODECS:
        raise ValueError(f"codec must be one of {_CODECS}, got {codec!r}")
    if not 1 <= quality <= 100:
        raise ValueError(f"quality must be within 1..100, got {quality}")
    if encoders < 1:
        raise ValueError(f"encoders must be at least 1, got {encoders}")
    size: list[tuple[int, int]] = []
    payloads = list(_encode_all(_checked(frames, size), codec, quality, encoders))
    if not payloads:
        raise ValueError(f"no frames for {path}")
    _write_atomically(path, _assemble(payloads, size[0], float(fps), codec))
    return len(payloads)


def _checked(
    frames: Iterable[NDArray[np.uint8]], size: list[tuple[int, int]]
) -> Iterator[NDArray[np.uint8]]:
    """The frames, all of one size, which is left in ``size``."""
    for number, frame in enumerate(frames):
        if frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[2] != 4:
            raise ValueError(f"clip frames are (H, W, 4) uint8, got {frame.shape} {frame.dtype}")
        if not size:
            size.append(frame.shape[:2])
        if frame.shape[:2] != size[0]:
            raise ValueError(f"frame {number} is {frame.shape[:2]}, the first was {size[0]}")
        yield frame


def _encode_all(
    frames: Iterator[NDArray[np.uint8]], codec: ClipCodec, quality: int, encoders: int
) -> Iterator[tuple[bytes, bytes]]:
    if encoders == 1:
        yield from (_encode(frame, codec, quality) for frame in frames)
        return
    with ThreadPoolExecutor(encoders) as pool:
        pending: deque[Future[tuple[bytes, bytes]]] = deque()
        for frame in frames:
            if len(pending) >= 2 * encoders:
                yield pending.popleft().result()
            pending.append(pool.submit(_encode, frame, codec, quality))
        while pending:
            yield pending.popleft().result()


class ClipReader:
    """Random access to the frames of one clip file.

    Safe to share between threads; holds an open file until ``close``. Raises ``StoreError`` naming
    the file when it is absent, cut short, corrupt or no clip.
    """

    def __init__(self, path: Path) -> None:
        self.path = Path(path)
        try:
            self._file = os.open(self.path, os.O_RDONLY)
        except OSError as error:
            raise StoreError(f"cannot open clip {self.path}: {error.strerror}") from error
        try:
            self._read_index()
        except BaseException:
            self.close()
            raise

    def _read_index(self) -> None:
        header = self._read(0, _HEADER.size, "header")
        magic, version, codec, width, height, count, fps, crc = _HEADER.unpack(header)
        if magic != _MAGIC:
            raise StoreError(f"{self.path} is not a clip file")
        if version != _VERSION or codec >= len(_CODECS):
            raise StoreError(
                f"{self.path} is a clip of format {version}/{codec}; this version reads {_VERSION}"
            )
        available = os.fstat(self._file).st_size
        index_bytes = count * _ENTRY.size
        if _HEADER.size + index_bytes > available:
            raise StoreError(f"clip {self.path} is cut short inside its index of {count} frames")
        index = self._read(_HEADER.size, index_bytes, "index")
        if zlib.crc32(header[:-_CRC_BYTES] + index) != crc:
            raise StoreError(f"clip {self.path} is corrupt: its index does not match its checksum")
        self._entries = [_Entry(*values) for values in _ENTRY.iter_unpack(index)]
        end = max((e.offset + e.first_bytes + e.second_bytes for e in self._entries), default=0)
        if available < end:
            raise StoreError(f"clip {self.path} is cut short: {available} of {end} bytes")
        self._codec: ClipCodec = _CODECS[codec]
        self.size: tuple[int, int] = (width, height)
        """(width, height) in pixels."""
        self.fps: float = fps

    def __len__(self) -> int:
        return len(self._entries)

    def __iter__(self) -> Iterator[NDArray[np.uint8]]:
        return (self.frame(i) for i in range(len(self)))

    def frame(self, index: int) -> NDArray[np.uint8]:
        """Frame ``index`` as (H, W, 4) uint8 RGBA; raises ``IndexError`` outside 0..len-1."""
        if not 0 <= index < len(self):
            raise IndexError(f"frame {index} of {self.path}, which has {len(self)}")
        entry = self._entries[index]
        data = self._read(entry.offset, entry.first_bytes + entry.second_bytes, f"frame {index}")
        if zlib.crc32(data) != entry.crc:
            raise StoreError(f"clip {self.path} is corrupt at frame {index}")
        return _decode(data[: entry.first_bytes], data[entry.first_bytes :], self._codec)

    def _read(self, offset: int, count: int, what: str) -> bytes:
        data = os.pread(self._file, count, offset)
        if len(data) != count:
            raise StoreError(f"clip {self.path} is cut short inside its {what}")
        return data

    def close(self) -> None:
        """Release the file; a second call does nothing."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def __enter__(self) -> ClipReader:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def __del__(self) -> None:
        if getattr(self, "_file", -1) >= 0:
            self.close()


def _assemble(
    payloads: list[tuple[bytes, bytes]], size: tuple[int, int], fps: float, codec: ClipCodec
) -> bytes:
    offset = _HEADER.size + len(payloads) * _ENTRY.size
    index = bytearray()
    for first, second in payloads:
        index += _ENTRY.pack(offset, len(first), len(second), zlib.crc32(second, zlib.crc32(first)))
        offset += len(first) + len(second)
    height, width = size
    fields = (_MAGIC, _VERSION, _CODECS.index(codec), width, height, len(payloads), fps)
    crc = zlib.crc32(_HEADER.pack(*fields, 0)[:-_CRC_BYTES] + bytes(index))
    body = b"".join(part for payload in payloads for part in payload)
    return _HEADER.pack(*fields, crc) + bytes(index) + body


def _encode(frame: NDArray[np.uint8], codec: ClipCodec, quality: int) -> tuple[bytes, bytes]:
    if codec == "lossless":
        buffer = io.BytesIO()
        Image.fromarray(frame).save(buffer, "webp", lossless=True, quality=0, method=0, exact=True)
        return buffer.getvalue(), b""
    options = [
        cv2.IMWRITE_JPEG_QUALITY,
        quality,
        cv2.IMWRITE_JPEG_SAMPLING_FACTOR,
        cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444,
    ]
    _, colour = cv2.imencode(".jpg", cv2.cvtColor(frame, cv2.COLOR_RGBA2BGR), options)
    alpha_plane = np.ascontiguousarray(frame[..., 3])
    _, alpha = cv2.imencode(".png", alpha_plane, [cv2.IMWRITE_PNG_COMPRESSION, 1])
    return colour.tobytes(), alpha.tobytes()


def _decode(first: bytes, second: bytes, codec: ClipCodec) -> NDArray[np.uint8]:
    if codec == "lossless":
        return np.array(Image.open(io.BytesIO(first)).convert("RGBA"))
    colour = cv2.imdecode(np.frombuffer(first, np.uint8), cv2.IMREAD_COLOR)
    frame = cv2.cvtColor(colour, cv2.COLOR_BGR2RGBA)
    frame[..., 3] = cv2.imdecode(np.frombuffer(second, np.uint8), cv2.IMREAD_GRAYSCALE)
    return frame


def _write_atomically(path: Path, data: bytes) -> None:
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        with open(temporary, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise StoreError(f"cannot write clip {path}: {error.strerror}") from error
