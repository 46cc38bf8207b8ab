"""A batch of everything that is no usable portrait: a typed failure each, and nothing else."""

from __future__ import annotations

import io
import shutil
import struct
import zlib
from pathlib import Path

import pytest
from PIL import Image
from skimage.data import astronaut

from fc4d_ray.config import load_config
from fc4d_ray.pipeline.run import RunSummary, run
from fc4d_ray.store import read_manifest

SHARED = Path(__file__).resolve().parents[1].parent / "shared"
TINY = Path(__file__).parent / "data" / "tiny.yaml"
FACE_WIDTH_PX = 92
"""Of the astronaut's face in the 512 × 512 portrait."""

EXPECTED = {
    "one_pixel.png": "ImageTooSmall",
    "empty.jpg": "UndecodableImage",
    "truncated.jpg": "UndecodableImage",
    "text.png": "UndecodableImage",
    "bomb.png": "ImageTooLarge",
    "small_face.png": "ImageTooSmall",
    "missing.png": "UnreadableSource",
    "unreachable.png": "UnreadableSource",
    "backdrop.png": "NoFaceFound",
}


def png_declaring(width: int, height: int) -> bytes:
    """A PNG of a few bytes whose header promises a huge picture."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        crc = zlib.crc32(kind + data)
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", crc)

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    pixels = zlib.compress(bytes(1024))
    chunks = chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunks


def small_face(width_px: int) -> Image.Image:
    """The astronaut far away: a face ``width_px`` wide before the portrait's own backdrop."""
    portrait = Image.fromarray(astronaut())
    side = round(512 * width_px / FACE_WIDTH_PX)
    canvas = Image.new("RGB", (400, 400), portrait.getpixel((5, 60)))
    canvas.paste(portrait.resize((side, side), Image.Resampling.LANCZOS), (140, 140))
    return canvas


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bad")
    portrait = Image.fromarray(astronaut())
    jpeg = io.BytesIO()
    portrait.save(jpeg, "JPEG")
    Image.new("RGB", (1, 1)).save(folder / "one_pixel.png")
    (folder / "empty.jpg").touch()
    (folder / "truncated.jpg").write_bytes(jpeg.getvalue()[: len(jpeg.getvalue()) // 2])
    (folder / "text.png").write_text("Dear reader, this is no picture.")
    (folder / "bomb.png").write_bytes(png_declaring(60_000, 60_000))
    small_face(20).save(folder / "small_face.png")
    portrait.crop((330, 0, 512, 110)).resize((364, 220)).save(folder / "backdrop.png")
    uris = [n for n in EXPECTED if n != "unreachable.png"] + ["http://127.0.0.1:9/unreachable.png"]
    (folder / "all.csv").write_text("\n".join(["uri", *uris]) + "\n")
    return folder


def run_on(*inputs: Path, out: Path) -> tuple[RunSummary, dict[str, dict]]:
    config = load_config(TINY, ["run.runner=local"])
    summary = run([str(path) for path in inputs], str(out), config)
    rows = read_manifest(str(out)).to_pylist()
    return summary, {Path(row["source_uri"]).name: row for row in rows}


def test_every_bad_input_fails_on_its_own_and_says_why(folder: Path, tmp_path: Path) -> None:
    summary, rows = run_on(folder / "all.csv", out=tmp_path / "out")
    assert {name: row["error_type"] for name, row in rows.items()} == EXPECTED
    assert {row["status"] for row in rows.values()} == {"failed"}
    assert {row["failed_stage"] for row in rows.values()} == {"ingest"}
    assert summary.exit_code == 3
    assert "ingest.max_pixels" in rows["bomb.png"]["error_message"]
    assert "min_face_px" in rows["small_face.png"]["error_message"]
    assert "0 bytes" in rows["empty.jpg"]["error_message"]
    assert "missing.png" in rows["missing.png"]["error_message"]


def test_an_alpaca_has_no_human_face(tmp_path: Path) -> None:
    source = SHARED / "portraits" / "not_a_face_alpaca.jpg"
    if not source.exists():
        pytest.skip("the shared example portraits are not here")
    shutil.copy(source, tmp_path / "alpaca.jpg")
    _, rows = run_on(tmp_path / "alpaca.jpg", out=tmp_path / "out")
    assert rows["alpaca.jpg"]["error_type"] == "NoFaceFound"
