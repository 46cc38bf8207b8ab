"""Writes tiny Stable Diffusion pipelines with random weights, in diffusers' own folder format.

They have every part of the real ones (tokenizers, text encoders, UNet, VAE, scheduler) at a few
thousandths of the size, so that everything around the networks can be run and tested without a
download. Their pictures mean nothing.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

from fc4d_ray.assets.torchvision_shim import ensure_torchvision_importable

DiffusionKind = Literal["sd15", "sdxl"]

_TEXT_SIZE = 32
_TIME_SIZE = 8
_SCHEDULE = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "num_train_timesteps": 1000,
    "steps_offset": 1,
    "timestep_spacing": "leading",
}


def write_tiny_diffusion(
    directory: Path,
    kind: DiffusionKind = "sd15",
    seed: int = 0,
    *,
    prediction_type: Literal["epsilon", "v_prediction"] = "epsilon",
) -> Path:
    """A pipeline folder of the given kind; equal seeds give equal files. Returns ``directory``."""
    ensure_torchvision_importable()
    import diffusers
    import torch

    tokenizer = _write_tokenizer(directory / "tokenizer")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        parts: dict[str, Any] = {
            "unet": _unet(kind),
            "vae": _vae(kind),
            "tokenizer": tokenizer,
            "text_encoder": _text_encoder(len(tokenizer), projected=False),
        }
        if kind == "sdxl":
            parts["tokenizer_2"] = tokenizer
            parts["text_encoder_2"] = _text_encoder(len(tokenizer), projected=True)
    schedule = _SCHEDULE | {"prediction_type": prediction_type}
    if kind == "sdxl":
        parts["scheduler"] = diffusers.EulerDiscreteScheduler(**schedule)
        pipeline = diffusers.StableDiffusionXLPipeline(**parts, add_watermarker=False)
    else:
        parts["scheduler"] = diffusers.PNDMScheduler(
            **schedule, skip_prk_steps=True, set_alpha_to_one=False
        )
        pipeline = diffusers.StableDiffusionPipeline(
            **parts, safety_checker=None, feature_extractor=None, requires_safety_checker=False
        )
    pipeline.save_pretrained(directory, safe_serialization=True)
    return directory


def write_tiny_unet(directory: Path, kind: DiffusionKind = "sd15", seed: int = 1) -> Path:
    """A UNet folder by itself, as CosmicMan is released; fits ``write_tiny_diffusion``'s base."""
    ensure_torchvision_importable()
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        unet = _unet(kind)
    unet.save_pretrained(directory, safe_serialization=True)
    return directory


def _unet(kind: DiffusionKind) -> Any:
    from diffusers import UNet2DConditionModel

    special: dict[str, Any]
    if kind == "sdxl":
        special = {
            "cross_attention_dim": 2 * _TEXT_SIZE,
            "transformer_layers_per_block": (1, 2),
            "attention_head_dim": (2, 4),
            "use_linear_projection": True,
            "addition_embed_type": "text_time",
            "addition_time_embed_dim": _TIME_SIZE,
            "projection_class_embeddings_input_dim": 6 * _TIME_SIZE + _TEXT_SIZE,
        }
    else:
        special = {"cross_attention_dim": _TEXT_SIZE, "attention_head_dim": 4}
    return UNet2DConditionModel(
        sample_size=8,
        in_channels=4,
        out_channels=4,
        layers_per_block=1,
        block_out_channels=(16, 32),
        norm_num_groups=8,
        down_block_types=("CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
        **special,
    )


def _vae(kind: DiffusionKind) -> Any:
    from diffusers import AutoencoderKL

    return AutoencoderKL(
        in_channels=3,
        out_channels=3,
        latent_channels=4,
        layers_per_block=1,
        block_out_channels=(8, 8, 16, 16),
        norm_num_groups=4,
        sample_size=64,
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        scaling_factor=0.13025 if kind == "sdxl" else 0.18215,
        force_upcast=kind == "sdxl",
    )


def _text_encoder(vocabulary_size: int, *, projected: bool) -> Any:
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    config = CLIPTextConfig(
        vocab_size=vocabulary_size,
        hidden_size=_TEXT_SIZE,
        intermediate_size=2 * _TEXT_SIZE,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=77,
        projection_dim=_TEXT_SIZE,
        bos_token_id=vocabulary_size - 2,
        eos_token_id=vocabulary_size - 1,
        pad_token_id=vocabulary_size - 1,
    )
    return (CLIPTextModelWithProjection if projected else CLIPTextModel)(config).eval()


def _write_tokenizer(directory: Path) -> Any:
    """CLIP's tokenizer with single bytes for a vocabulary and no merges."""
    from transformers import CLIPTokenizer

    letters = _byte_letters()
    tokens = [*letters, *(f"{letter}</w>" for letter in letters)]
    tokens += ["<|startoftext|>", "<|endoftext|>"]
    directory.mkdir(parents=True, exist_ok=True)
    vocabulary = {token: index for index, token in enumerate(tokens)}
    (directory / "vocab.json").write_text(json.dumps(vocabulary, ensure_ascii=True))
    (directory / "merges.txt").write_text("#version: 0.2\n")
    special = {
        "bos_token": "<|startoftext|>",
        "eos_token": "<|endoftext|>",
        "unk_token": "<|endoftext|>",
        "pad_token": "<|endoftext|>",
    }
    (directory / "special_tokens_map.json").write_text(json.dumps(special))
    settings = special | {"model_max_length": 77, "tokenizer_class": "CLIPTokenizer"}
    (directory / "tokenizer_config.json").write_text(json.dumps(settings))
    return CLIPTokenizer.from_pretrained(directory, local_files_only=True)


def _byte_letters() -> list[str]:
    """The printable stand-ins of all 256 bytes in byte-level BPE vocabularies."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    hidden = [byte for byte in range(256) if byte not in printable]
    return [chr(byte) for byte in printable] + [chr(256 + i) for i in range(len(hidden))]
