"""Makes README's picture from an avatar's contact sheet: python docs/images/demo_sheet.py OUT."""

from __future__ import annotations

import sys
from pathlib import Path

from PIL import Image

from fc4d_ray.store.avatars import avatar_files

PICTURE = Path(__file__).with_suffix(".jpg")
WIDTH_PX = 1600
LARGEST_BYTES = 500_000


def main(out: str) -> None:
    with avatar_files(out) as folder, Image.open(folder / "sheet.png") as sheet:
        height = round(sheet.height * WIDTH_PX / sheet.width)
        picture = sheet.convert("RGB").resize((WIDTH_PX, height), Image.Resampling.LANCZOS)
    picture.save(PICTURE, quality=88, optimize=True, progressive=True)
    if PICTURE.stat().st_size > LARGEST_BYTES:
        sys.exit(f"{PICTURE} is larger than {LARGEST_BYTES} bytes")


if __name__ == "__main__":
    main(sys.argv[1])
