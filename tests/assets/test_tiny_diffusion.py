from __future__ import annotations

from pathlib import Path

import pytest

from fc4d_ray.assets.tiny_diffusion import write_tiny_diffusion, write_tiny_unet


def _files(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.mark.parametrize("kind", ["sd15", "sdxl"])
def test_equal_seeds_give_equal_files_that_stock_diffusers_reads(tmp_path, kind) -> None:
    first = _files(write_tiny_diffusion(tmp_path / "a", kind, 3))
    assert first == _files(write_tiny_diffusion(tmp_path / "b", kind, 3))
    assert sum(len(content) for content in first.values()) < 5e6
    weights = "diffusion_pytorch_model.safetensors"
    assert _files(write_tiny_unet(tmp_path / "c", kind, 4))[weights] != first[f"unet/{weights}"]
    from diffusers import DiffusionPipeline

    pipeline = DiffusionPipeline.from_pretrained(tmp_path / "a", local_files_only=True)
    pipeline.set_progress_bar_config(disable=True)
    made = pipeline("Ünïcode, too", num_inference_steps=2, height=64, width=64, output_type="np")
    assert made.images.shape == (1, 64, 64, 3)


def test_a_unet_by_itself_has_cosmicmans_files(tmp_path) -> None:
    files = _files(write_tiny_unet(tmp_path, "sdxl"))
    assert sorted(files) == ["config.json", "diffusion_pytorch_model.safetensors"]
