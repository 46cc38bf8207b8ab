from __future__ import annotations

import json

import numpy as np

from fc4d_ray.images import read_png
from fc4d_ray.priors.image.classical import Provenance
from fc4d_ray.priors.shape.views import read_cameras
from fc4d_ray.stages.image import ImageStage


def test_every_camera_has_a_view_and_its_provenance(image, shape) -> None:
    cameras = read_cameras(shape.directory)
    assert {p.name for p in image.directory.iterdir()} == {"views", "provenance", "image.json"}
    for camera in cameras:
        view = read_png(image.directory / "views" / f"{camera.name}.png")
        provenance = read_png(image.directory / "provenance" / f"{camera.name}.png")
        assert view.shape == (camera.camera.height, camera.camera.width, 4)
        assert provenance.shape == view.shape[:2]
        assert set(np.unique(provenance)) <= {int(p) for p in Provenance}


def test_the_reference_holds_the_portraits_own_pixels(image, portrait) -> None:
    view = read_png(image.directory / "views" / "reference.png")
    np.testing.assert_array_equal(view[..., :3], portrait.image)


def test_shares_add_up_and_the_summary_follows_them(image) -> None:
    shares = json.loads((image.directory / "image.json").read_text())
    assert len(shares) == 25
    for name, share in shares.items():
        assert abs(sum(share.values()) - 1) < 1e-3, name
    assert shares["reference"]["reference"] == 1
    assert shares["az+015_el+00"]["reference"] > shares["az+090_el+00"]["reference"]
    orbit = [s["reference"] for n, s in shares.items() if n.startswith("az")]
    assert abs(image.facts["share_reference"] - np.mean(orbit)) < 1e-3
    json.dumps(image.facts)


def test_equal_seeds_give_equal_bytes(image, ingest, shape, configs, again) -> None:
    inputs = {"ingest": ingest, "shape": shape.directory}
    other = again(ImageStage(), inputs, configs["image"])
    for path in sorted((image.directory / "views").iterdir()):
        assert path.read_bytes() == (other.directory / "views" / path.name).read_bytes()
