from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fc4d_ray.errors import ImageTooLarge, ImageTooSmall, UndecodableImage, UnreadableSource
from fc4d_ray.portraits.decoding import DecodedPortrait, decode_portrait


def decode(path: Path, **options: int) -> DecodedPortrait:
    settings = {"max_pixels": 10_000_000, "working_side": 2048, "min_side": 16} | options
    return decode_portrait(path, **settings)


@pytest.fixture
def picture() -> np.ndarray:
    """A smooth gradient, different along both axes and in all channels."""
    y, x = np.mgrid[0:60, 0:90]
    return np.stack([x * 2, y * 4, 255 - x - y], -1).astype(np.uint8)


def test_keeps_a_plain_image_as_it_is(tmp_path: Path, picture: np.ndarray) -> None:
    Image.fromarray(picture).save(tmp_path / "plain.png")
    decoded = decode(tmp_path / "plain.png")
    np.testing.assert_array_equal(decoded.rgb, picture)
    assert decoded.alpha is None
    assert decoded.source_size == (90, 60)
    assert decoded.warnings == ()


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_gives_the_upright_image(
    tmp_path: Path, picture: np.ndarray, orientation: int
) -> None:
    # The stored pixels are the upright ones with the tag's own transposition undone.
    undo = {
        1: lambda a: a,
        2: lambda a: a[:, ::-1],
        3: lambda a: a[::-1, ::-1],
        4: lambda a: a[::-1],
        5: lambda a: a.transpose(1, 0, 2),
        6: lambda a: np.rot90(a, 1),
        7: lambda a: a[::-1, ::-1].transpose(1, 0, 2),
        8: lambda a: np.rot90(a, -1),
    }
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = np.ascontiguousarray(undo[orientation](picture))
    Image.fromarray(stored).save(tmp_path / "turned.png", exif=exif)
    decoded = decode(tmp_path / "turned.png")
    np.testing.assert_array_equal(decoded.rgb, picture)
    assert decoded.source_size == (90, 60)


def test_sixteen_bit_grey_becomes_eight(tmp_path: Path) -> None:
    ramp = np.linspace(0, 65535, 64 * 64).reshape(64, 64).astype(np.uint16)
    Image.fromarray(ramp).save(tmp_path / "deep.png")
    decoded = decode(tmp_path / "deep.png")
    expected = np.rint(ramp / 257).astype(int)
    assert np.abs(decoded.rgb[..., 0].astype(int) - expected).max() <= 1
    assert (decoded.rgb[..., 0] == decoded.rgb[..., 2]).all()


def test_float_tiff_in_unit_range(tmp_path: Path) -> None:
    ramp = np.linspace(0, 1, 64 * 64).reshape(64, 64).astype(np.float32)
    Image.fromarray(ramp).save(tmp_path / "float.tif")
    np.testing.assert_array_equal(
        decode(tmp_path / "float.tif").rgb[..., 1], np.rint(ramp * 255).astype(np.uint8)
    )


def test_cmyk_jpeg_keeps_its_colours(tmp_path: Path, picture: np.ndarray) -> None:
    Image.fromarray(picture).convert("CMYK").save(tmp_path / "print.jpg", quality=98)
    difference = decode(tmp_path / "print.jpg").rgb.astype(int) - picture
    assert np.abs(difference).mean() < 4


@pytest.mark.parametrize("mode", ["L", "1", "YCbCr"])
def test_other_modes_become_rgb(tmp_path: Path, picture: np.ndarray, mode: str) -> None:
    image = Image.fromarray(picture).convert(mode)
    image.save(tmp_path / "image.tif")
    np.testing.assert_array_equal(decode(tmp_path / "image.tif").rgb, image.convert("RGB"))


def test_palette_with_transparency_gives_alpha(tmp_path: Path) -> None:
    image = Image.new("P", (40, 40), 1)
    image.putpalette([255, 0, 0, 0, 200, 0] + [0] * 762)
    image.paste(0, (0, 0, 20, 40))
    image.save(tmp_path / "palette.png", transparency=0)
    decoded = decode(tmp_path / "palette.png")
    assert decoded.alpha is not None
    assert (decoded.alpha[:, :20] == 0).all()
    assert (decoded.alpha[:, 20:] == 255).all()
    assert (decoded.rgb[:, :20] == 255).all(), "colours nobody sees are white"
    assert (decoded.rgb[:, 20:] == [0, 200, 0]).all()


def test_fully_opaque_alpha_is_none(tmp_path: Path, picture: np.ndarray) -> None:
    Image.fromarray(picture).convert("RGBA").save(tmp_path / "opaque.png")
    assert decode(tmp_path / "opaque.png").alpha is None


def test_animation_gives_first_frame_and_a_warning(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (32, 32), colour) for colour in ("red", "lime", "blue")]
    frames[0].save(tmp_path / "moving.gif", save_all=True, append_images=frames[1:])
    decoded = decode(tmp_path / "moving.gif")
    assert (decoded.rgb == [255, 0, 0]).all()
    assert len(decoded.warnings) == 1
    assert "3 frames" in decoded.warnings[0]


def test_large_jpeg_is_scaled_while_decoding(tmp_path: Path) -> None:
    Image.linear_gradient("L").resize((3000, 1000)).convert("RGB").save(tmp_path / "large.jpg")
    decoded = decode(tmp_path / "large.jpg", working_side=600)
    assert decoded.rgb.shape == (200, 600, 3)
    assert decoded.source_size == (3000, 1000)
    np.testing.assert_allclose(decoded.scale, [0.2, 0.2])


def _png_header(width: int, height: int) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0"))


@pytest.mark.parametrize("side", [5_000, 13_000, 60_000])
def test_bombs_are_refused_by_their_header(tmp_path: Path, side: int) -> None:
    (tmp_path / "bomb.png").write_bytes(_png_header(side, side))
    with pytest.raises(ImageTooLarge, match="max_pixels = 10000000"):
        decode(tmp_path / "bomb.png")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("empty.jpg", b""),
        ("text.png", b"this is no picture\n" * 50),
        ("page.html", b"<html><body>404</body></html>"),
        ("zeros.png", bytes(4096)),
        ("header_only.png", _png_header(64, 64)[:40]),
    ],
)
def test_no_image(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UndecodableImage, match=name):
        decode(tmp_path / name)


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "gif", "tif"])
def test_truncated_files(tmp_path: Path, suffix: str) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (120, 120, 3), np.uint8)
    path = tmp_path / f"cut.{suffix}"
    Image.fromarray(noise).save(path)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(UndecodableImage):
        decode(path)


def test_one_pixel(tmp_path: Path) -> None:
    Image.new("RGB", (1, 1)).save(tmp_path / "dot.png")
    with pytest.raises(ImageTooSmall, match="1x1"):
        decode(tmp_path / "dot.png")


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(UnreadableSource, match="absent.png"):
        decode(tmp_path / "absent.png")
