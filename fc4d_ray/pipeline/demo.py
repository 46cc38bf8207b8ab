"""The portrait of ``fc4d demo``."""

from __future__ import annotations

import io

from fc4d_ray.store.location import open_output

DEMO_PORTRAIT = "demo/astronaut.png"


def place_demo_portrait(output: str) -> str:
    """Put scikit-image's public-domain NASA portrait of Eileen Collins below ``output``.

    Returns its address, which stays the same, so that a second demo finds the first one's work.
    """
    from PIL import Image
    from skimage.data import astronaut

    storage = open_output(output, create=True)
    file = io.BytesIO()
    Image.fromarray(astronaut()).save(file, "PNG")
    storage.create(DEMO_PORTRAIT, file.getvalue())
    return storage.uri_of(DEMO_PORTRAIT)
