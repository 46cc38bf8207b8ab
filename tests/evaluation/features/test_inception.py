from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from fc4d_ray.assets.torchvision_shim import ensure_torchvision_importable
from fc4d_ray.errors import ModelFileError
from fc4d_ray.evaluation.features import FeatureConfig
from fc4d_ray.evaluation.features.inception import InceptionFeatures
from fc4d_ray.images import write_png

pytest.importorskip("cleanfid")


class Tiny(nn.Module):
    """Random layers under the names clean-fid calls in its TorchScript file."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(3, 8, 13, stride=13), nn.ReLU(), nn.Conv2d(8, 512, 11, stride=11),
            nn.Flatten(),
        )  # fmt: skip

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layers(x)


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("fid") / "inception-2015-12-05.pt"
    torch.jit.script(Tiny().eval()).save(str(path))
    return path


def test_features_are_clean_fid_s_own(weights: Path, tmp_path: Path) -> None:
    ensure_torchvision_importable()
    from cleanfid import fid
    from cleanfid.inception_torchscript import InceptionV3W

    images = list(np.random.default_rng(0).integers(0, 255, (3, 80, 80, 3), np.uint8))
    files = [tmp_path / f"{i}.png" for i in range(3)]
    for file, image in zip(files, images, strict=True):
        write_png(file, image)
    model = InceptionV3W(str(weights.parent), download=False, resize_inside=False)
    theirs = fid.get_files_features(
        [str(file) for file in files], model, num_workers=0, device=torch.device("cpu"),
        mode="clean", verbose=False,
    )  # fmt: skip
    config = FeatureConfig(inception=str(weights), batch=2, device="cpu")
    found = InceptionFeatures(config).extract(images)
    assert found.vectors.shape == (3, 2048)
    np.testing.assert_allclose(found.vectors, theirs, rtol=1e-4, atol=1e-5)


def test_missing_and_wrong_files_are_told_apart(weights: Path, tmp_path: Path) -> None:
    gone = InceptionFeatures(FeatureConfig(inception=str(tmp_path / "none.pt")))
    assert "does not exist" in str(gone.unavailable())
    renamed = tmp_path / "other.pt"
    renamed.write_bytes(weights.read_bytes())
    picture = [np.zeros((8, 8, 3), np.uint8)]
    with pytest.raises(ModelFileError, match=r"reads inception-2015-12-05\.pt"):
        InceptionFeatures(FeatureConfig(inception=str(renamed))).extract(picture)
    broken = tmp_path / "inception-2015-12-05.pt"
    broken.write_bytes(b"no model")
    with pytest.raises(ModelFileError, match="no TorchScript"):
        InceptionFeatures(FeatureConfig(inception=str(broken))).extract(picture)
