from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from fc4d_ray.assets.torchvision_shim import ensure_torchvision_importable
from fc4d_ray.errors import ModelFileError
from fc4d_ray.evaluation.features import FeatureConfig
from fc4d_ray.evaluation.features.clip import ClipFeatures
from fc4d_ray.evaluation.metrics.similarity import cosine_to

pytest.importorskip("transformers")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random CLIP vision tower in the format of the released checkpoints."""
    ensure_torchvision_importable()
    from transformers import CLIPImageProcessor, CLIPVisionConfig, CLIPVisionModelWithProjection

    torch.manual_seed(0)
    config = CLIPVisionConfig(
        hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
        image_size=32, patch_size=8, projection_dim=12,
    )  # fmt: skip
    place = tmp_path_factory.mktemp("clip") / "clip-tiny"
    CLIPVisionModelWithProjection(config).save_pretrained(place)
    processor = CLIPImageProcessor(
        size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}
    )
    processor.save_pretrained(place)
    return place


def pictures(n: int) -> list[np.ndarray]:
    return list(np.random.default_rng(0).integers(0, 255, (n, 64, 64, 3), np.uint8))


def test_embeddings_are_those_of_the_model_whatever_the_batch(folder: Path) -> None:
    ensure_torchvision_importable()
    from transformers import CLIPImageProcessor, CLIPVisionModelWithProjection

    images = pictures(5)
    found = ClipFeatures(FeatureConfig(clip=str(folder), batch=2, device="cpu")).extract(images)
    assert found.vectors.shape == (5, 12) and found.valid.all()
    model = CLIPVisionModelWithProjection.from_pretrained(folder).eval()
    batch = CLIPImageProcessor.from_pretrained(folder)(images=images, return_tensors="pt")
    with torch.no_grad():
        expected = model(**batch).image_embeds.numpy()
    np.testing.assert_allclose(found.vectors, expected, atol=1e-5)
    np.testing.assert_allclose(cosine_to(found.vectors[:1], found.vectors[0]), 1, atol=1e-6)


def test_the_model_s_name_holds_its_weights_digest(folder: Path) -> None:
    name = ClipFeatures(FeatureConfig(clip=str(folder))).model_id()
    assert name.startswith("clip-clip-tiny-") and len(name.rsplit("-", 1)[1]) == 16


def test_missing_weights_are_a_reason_and_wrong_ones_an_error(folder: Path, tmp_path: Path) -> None:
    assert "does not exist" in str(ClipFeatures(FeatureConfig(clip="/nowhere")).unavailable())
    assert "model.safetensors" in str(ClipFeatures(FeatureConfig(clip=str(tmp_path))).unavailable())
    assert ClipFeatures(FeatureConfig(clip=str(folder))).unavailable() is None
    (tmp_path / "model.safetensors").write_bytes(b"no model")
    with pytest.raises(ModelFileError, match="is no CLIP model"):
        ClipFeatures(FeatureConfig(clip=str(tmp_path))).extract(pictures(1))
