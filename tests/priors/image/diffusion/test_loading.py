"""Pipeline folders that can be used, and what is said of those that cannot."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from fc4d_ray.errors import ConfigError, WeightsMissing
from fc4d_ray.priors.image.diffusion.attention import Exchange
from fc4d_ray.priors.image.diffusion.backbone import DiffusionBackbone
from fc4d_ray.priors.image.diffusion.config import ModelConfig
from fc4d_ray.priors.image.diffusion.denoiser import Row
from fc4d_ray.priors.image.diffusion.loading import load_pipeline, weights_digest


@pytest.fixture
def copied(pipelines, tmp_path):
    """A pipeline folder to damage."""

    def copy(kind: str) -> Path:
        return Path(shutil.copytree(pipelines[kind], tmp_path / kind))

    return copy


def _load(base: Path | str, unet: Path | str | None = None, **options):
    config = ModelConfig(base=str(base), unet=None if unet is None else str(unet), **options)
    return load_pipeline(config, torch.float32)


@pytest.mark.parametrize("kind", ["sd15", "sdxl"])
def test_a_unet_by_itself_replaces_the_bases(pipelines, kind, copied) -> None:
    base = copied(kind)
    shutil.rmtree(base / "unet")
    pipeline, found = _load(base, pipelines[f"{kind}-unet"])
    own, _ = _load(pipelines[kind])
    assert found == kind
    first, second = (next(iter(p.unet.parameters())) for p in (pipeline, own))
    assert first.shape == second.shape and not torch.equal(first, second)


@pytest.mark.parametrize(("base", "unet"), [("sd15", "sdxl"), ("sdxl", "sd15")])
def test_a_unet_of_another_base_is_refused(pipelines, base, unet) -> None:
    with pytest.raises(ConfigError, match="image.model.unet: .* does not fit its base"):
        _load(pipelines[base], pipelines[f"{unet}-unet"])


def test_a_unet_of_another_width_is_refused(pipelines, copied) -> None:
    base = copied("sd15")
    shutil.rmtree(base / "text_encoder")
    shutil.copytree(pipelines["sdxl"] / "text_encoder", base / "text_encoder")
    config = json.loads((base / "text_encoder" / "config.json").read_text())
    from transformers import CLIPTextConfig, CLIPTextModel

    wide = CLIPTextModel(CLIPTextConfig.from_dict(config | {"hidden_size": 64}))
    wide.save_pretrained(base / "text_encoder")
    with pytest.raises(ConfigError, match="cross_attention_dim is 32, the base needs 64"):
        _load(base)


@pytest.mark.parametrize("part", ["vae", "text_encoder", "tokenizer", "scheduler", "unet"])
def test_a_missing_part_is_named(copied, part) -> None:
    base = copied("sd15")
    shutil.rmtree(base / part)
    with pytest.raises(WeightsMissing, match=f"lacks {part}/"):
        _load(base)


def test_sdxl_needs_its_second_text_encoder(copied) -> None:
    base = copied("sdxl")
    shutil.rmtree(base / "text_encoder_2")
    with pytest.raises(WeightsMissing, match="lacks text_encoder_2/"):
        _load(base)


def test_what_is_no_pipeline_is_said_to_be_none(tmp_path, pipelines, copied) -> None:
    with pytest.raises(WeightsMissing, match="is no diffusers pipeline: it holds no model_index"):
        _load(tmp_path)
    with pytest.raises(WeightsMissing, match="there is no folder 'nowhere'"):
        _load("nowhere")
    file = tmp_path / "model.safetensors"
    file.write_bytes(b"")
    with pytest.raises(WeightsMissing, match="is a file; a diffusers folder is needed"):
        _load(file)
    with pytest.raises(WeightsMissing, match="image.model.unet: .* has no config.json"):
        _load(pipelines["sd15"], tmp_path)
    base = copied("sd15")
    index = json.loads((base / "model_index.json").read_text())
    (base / "model_index.json").write_text(json.dumps(index | {"_class_name": "FluxPipeline"}))
    with pytest.raises(ConfigError, match="holds a FluxPipeline; usable are"):
        _load(base)
    (base / "model_index.json").write_text("{")
    with pytest.raises(WeightsMissing, match="is damaged"):
        _load(base)


def test_truncated_weights_and_pickles_are_refused(copied) -> None:
    base = copied("sd15")
    weights = base / "vae" / "diffusion_pytorch_model.safetensors"
    content = weights.read_bytes()
    weights.write_bytes(content[: len(content) // 2])
    with pytest.raises(WeightsMissing, match="cannot be read"):
        _load(base)
    weights.unlink()
    torch.save({}, base / "vae" / "diffusion_pytorch_model.bin")
    with pytest.raises(WeightsMissing, match="cannot be read"):
        _load(base)


def test_hub_ids_stay_on_this_machine_unless_allowed(monkeypatch, tmp_path) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(WeightsMissing, match="is not on this machine; image.model.allow_downloads"):
        _load("someone/something")
    with pytest.raises(ConfigError, match="pin the revision of 'someone/something' with image.mod"):
        _load("someone/something", allow_downloads=True)


def test_folders_are_looked_for_among_the_assets(pipelines, monkeypatch) -> None:
    monkeypatch.setenv("FC4D_ASSETS", str(pipelines["sd15"].parent))
    assert _load("sd15", "sd15-unet")[1] == "sd15"


def test_the_digest_covers_what_shapes_results(pipelines, copied) -> None:
    base = copied("sd15")
    config = ModelConfig(base=str(base), unet=None)
    digest = weights_digest(config)
    assert digest == weights_digest(ModelConfig(base=str(pipelines["sd15"]), unet=None))
    with_unet = ModelConfig(base=str(base), unet=str(pipelines["sd15-unet"]))
    assert weights_digest(with_unet) != digest
    (base / "README.md").write_text("words")
    assert weights_digest(config) == digest
    scheduler = base / "scheduler" / "scheduler_config.json"
    scheduler.write_text(scheduler.read_text().replace("0.012", "0.013"))
    assert weights_digest(config) != digest


def test_cuda_without_a_device_and_odd_devices_are_refused(tiny_config) -> None:
    config = tiny_config()
    with pytest.raises(ConfigError, match="'abacus' is no device"):
        DiffusionBackbone.load(replace(config, model=replace(config.model, device="abacus")))
    if not torch.cuda.is_available():
        with pytest.raises(ConfigError, match="there is no CUDA device"):
            DiffusionBackbone.load(replace(config, model=replace(config.model, device="cuda")))


@pytest.mark.parametrize("kind", ["sd15", "sdxl"])
def test_the_backbone_agrees_with_the_stock_pipeline(tiny_config, kind) -> None:
    """Prompts, guidance and size conditions: one evaluation equals the pipeline's own."""
    backbone = DiffusionBackbone.load(tiny_config(kind))
    pipeline, _ = load_pipeline(tiny_config(kind).model, torch.float32)
    latents = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    from diffusers import DDIMScheduler

    pipeline.scheduler = DDIMScheduler.from_config(pipeline.scheduler.config, clip_sample=False)
    pipeline.set_progress_bar_config(disable=True)
    options = {"height": 64, "width": 64, "num_inference_steps": 1, "guidance_scale": 3.0}
    noise = {}
    original = pipeline.scheduler.step

    def step(output, timestep, sample, **rest):
        noise["output"], noise["timestep"] = output, int(timestep)
        return original(output, timestep, sample, **rest)

    pipeline.scheduler.step = step
    pipeline("a head", latents=latents, output_type="latent", **options)
    ours = backbone.predict(
        latents, noise["timestep"], backbone.condition([Row("p", "v", "a head")]), guidance=3.0
    )
    torch.testing.assert_close(ours, noise["output"], atol=1e-5, rtol=0)


@pytest.mark.parametrize("kind", ["sd15", "sdxl"])
def test_encoding_is_repeatable_and_of_the_right_scale(tiny_config, kind) -> None:
    backbone = DiffusionBackbone.load(tiny_config(kind))
    images = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    latents = backbone.encode(images)
    assert latents.shape == (2, 4, 8, 8) and backbone.latent_factor == 8
    assert torch.equal(latents, backbone.encode(images))
    mean = backbone._vae.encode(images * 2 - 1).latent_dist.mean
    torch.testing.assert_close(
        latents / mean, torch.full_like(mean, backbone._vae.config.scaling_factor)
    )
    decoded = backbone.decode(latents)
    assert decoded.shape == images.shape and decoded.min() >= 0 and decoded.max() <= 1


@pytest.mark.parametrize("kind", ["sd15", "sdxl"])
def test_half_precision_stays_near_full(tiny_config, kind) -> None:
    """bfloat16 has 8 bits of mantissa; latents stay float32 between evaluations."""
    full = tiny_config(kind)
    backbones = [
        DiffusionBackbone.load(replace(full, model=replace(full.model, precision=precision)))
        for precision in ("float32", "bfloat16")
    ]
    assert [b.dtype for b in backbones] == [torch.float32, torch.bfloat16]
    latents = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    rows = [Row("p", "v", "a head"), Row("p", "w", "seen from behind")]
    exchange = Exchange.plan([0, 0], ["replace"] * 2)
    exact, rough = (
        b.predict(latents, 301, b.condition(rows), exchange=exchange, guidance=3.0)
        for b in backbones
    )
    assert rough.dtype == torch.float32
    assert (rough - exact).square().mean().sqrt() < 0.05 * exact.std()
    picture = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    first, second = (b.decode(b.encode(picture)) for b in backbones)
    assert (first - second).abs().mean() < 0.02
