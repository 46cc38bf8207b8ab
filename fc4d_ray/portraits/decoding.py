"""Any image file a user may hand in, to upright 8-bit sRGB with an optional alpha channel."""

from __future__ import annotations

import io
import struct
import warnings
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms, ImageOps

from fc4d_ray.errors import (
    ImageTooLarge,
    ImageTooSmall,
    UndecodableImage,
    UnreadableSource,
)

_DECODER_ERRORS = (
    OSError,
    SyntaxError,
    ValueError,
    TypeError,
    KeyError,
    IndexError,
    EOFError,
    OverflowError,
    struct.error,
    zlib.error,
    MemoryError,
)
"""What Pillow's plugins raise on damaged files; each becomes ``UndecodableImage``."""

_STILL_FORMATS = {"MPO"}
"""Containers whose further frames are previews or depth maps, not pages of their own."""


@dataclass(frozen=True)
class DecodedPortrait:
    """An upright image.

    ``rgb`` is (h, w, 3) uint8 sRGB with straight (not premultiplied) colours, white where fully
    transparent; ``alpha`` (h, w) uint8 or None where the file is opaque.
    """

    rgb: NDArray[np.uint8]
    alpha: NDArray[np.uint8] | None
    source_size: tuple[int, int]
    """Width and height of the upright source, before any scaling."""
    warnings: tuple[str, ...] = ()

    @property
    def scale(self) -> NDArray[np.float64]:
        """(2,) decoded pixels per source pixel along x and y."""
        height, width = self.rgb.shape[:2]
        return np.array([width / self.source_size[0], height / self.source_size[1]])


def decode_portrait(
    path: Path, *, max_pixels: int, working_side: int, min_side: int
) -> DecodedPortrait:
    """Read an image file of any format Pillow knows.

    EXIF orientation and embedded colour profiles are applied, alpha is kept, 16-bit and float
    samples are scaled to 8 bits, and the first frame of animations and multi-page files is taken.

    Raises:
        UnreadableSource: the file cannot be read.
        UndecodableImage: empty, damaged, truncated, or no image.
        ImageTooLarge: more than ``max_pixels`` are declared; nothing was decoded.
        ImageTooSmall: a side is shorter than ``min_side``.
    """
    data = _read_bytes(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(data)) as image:
                _check_size(path, image.size, max_pixels, min_side)
                return _decode(image, working_side)
    except Image.DecompressionBombError as error:
        raise ImageTooLarge(
            f"{path.name} declares more pixels than ingest.max_pixels = {max_pixels} allows"
        ) from error
    except Image.UnidentifiedImageError as error:
        raise UndecodableImage(
            f"{path.name} ({len(data)} bytes) is in no known image format"
        ) from error
    except _DECODER_ERRORS as error:
        raise UndecodableImage(
            f"{path.name} is damaged or truncated and cannot be decoded: {error}"
        ) from error


def _read_bytes(path: Path) -> bytes:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UnreadableSource(f"cannot read {path.name}: {error.strerror or error}") from error
    if not data:
        raise UndecodableImage(f"{path.name} is empty (0 bytes)")
    return data


def _check_size(path: Path, size: tuple[int, int], max_pixels: int, min_side: int) -> None:
    width, height = size
    if width * height > max_pixels:
        raise ImageTooLarge(
            f"{path.name} declares {width}x{height} pixels, more than "
            f"ingest.max_pixels = {max_pixels}"
        )
    if min(width, height) < min_side:
        raise ImageTooSmall(
            f"{path.name} has {width}x{height} pixels; a face needs at least "
            f"ingest.min_face_px = {min_side} pixels"
        )


def _decode(image: Image.Image, working_side: int) -> DecodedPortrait:
    notes: list[str] = []
    frames = getattr(image, "n_frames", 1)
    if frames > 1 and image.format not in _STILL_FORMATS:
        notes.append(f"{image.format} file has {frames} frames, the first was used")
    full_size = image.size
    if image.format == "JPEG" and max(full_size) > working_side:
        image.draft(image.mode, (working_side, working_side))
    image.load()
    orientation = image.getexif().get(0x0112, 1)
    upright_size = full_size[::-1] if orientation in (5, 6, 7, 8) else full_size
    profile = image.info.get("icc_profile")

    plain = _to_eight_bits(image)
    plain = ImageOps.exif_transpose(_carrying_orientation(plain, orientation))
    plain = _to_srgb(plain, profile, notes)
    plain = _scaled_down(plain, working_side)
    rgb = np.array(plain.convert("RGB"))
    alpha = np.array(plain.getchannel("A")) if plain.mode == "RGBA" else None
    if alpha is not None:
        if alpha.min() == 255:
            alpha = None
        else:
            rgb[alpha == 0] = 255
    return DecodedPortrait(rgb, alpha, upright_size, tuple(notes))


def _to_eight_bits(image: Image.Image) -> Image.Image:
    """Grey of any depth to ``L``; palettes and grey + alpha to ``RGB``/``RGBA``; others as is."""
    if image.mode.startswith("I") or image.mode == "F":
        return Image.fromarray(_scaled_samples(np.asarray(image)))
    if image.mode in ("LA", "La", "PA", "RGBa", "RGBX"):
        return image.convert("RGB" if image.mode == "RGBX" else "RGBA")
    if "transparency" in image.info:
        return image.convert("RGBA")
    if image.mode in ("1", "P"):
        return image.convert("RGB")
    return image


def _scaled_samples(samples: NDArray) -> NDArray[np.uint8]:
    """16-bit integers, 32-bit integers or floats (h, w) to 0-255."""
    values = np.nan_to_num(samples.astype(np.float64))
    if np.issubdtype(samples.dtype, np.floating) and values.max(initial=0.0) <= 1.0:
        full_scale = 1.0
    else:
        top = values.max(initial=0.0)
        full_scale = next((s for s in (255.0, 65535.0) if top <= s), top)
        if samples.dtype in (np.uint16, np.dtype(">u2")):
            full_scale = 65535.0
    return np.clip(np.rint(values * (255.0 / full_scale)), 0, 255).astype(np.uint8)


def _carrying_orientation(image: Image.Image, orientation: int) -> Image.Image:
    """A copy whose only EXIF entry is the orientation, which conversions above may have lost."""
    copy = image.copy()
    copy.info.pop("exif", None)
    copy.info.pop("xmp", None)
    copy.info.pop("XML:com.adobe.xmp", None)
    exif = copy.getexif()
    exif.clear()
    exif[0x0112] = orientation
    return copy


def _to_srgb(image: Image.Image, profile: bytes | None, notes: list[str]) -> Image.Image:
    """Apply the embedded ICC profile where it fits the samples, else Pillow's plain conversion."""
    alpha = image.getchannel("A") if image.mode == "RGBA" else None
    colour = image.convert("RGB") if alpha is not None else image
    if profile and colour.mode in ("RGB", "CMYK", "LAB"):
        try:
            colour = ImageCms.profileToProfile(
                colour,
                ImageCms.ImageCmsProfile(io.BytesIO(profile)),
                ImageCms.createProfile("sRGB"),
                outputMode="RGB",
            )
        except (ImageCms.PyCMSError, OSError, ValueError) as error:
            notes.append(f"embedded colour profile could not be applied and was ignored: {error}")
    if colour.mode != "RGB":
        colour = colour.convert("RGB")
    if alpha is not None:
        colour = colour.copy()
        colour.putalpha(alpha)
    return colour


def _scaled_down(image: Image.Image, working_side: int) -> Image.Image:
    ratio = working_side / max(image.size)
    if ratio >= 1.0:
        return image
    size = (max(1, round(image.width * ratio)), max(1, round(image.height * ratio)))
    return image.resize(size, Image.Resampling.LANCZOS, reducing_gap=3.0)
