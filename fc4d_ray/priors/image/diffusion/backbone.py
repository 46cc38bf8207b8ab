"""A Stable Diffusion 1.5 or XL pipeline as the image prior's ``Denoiser``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from fc4d_ray.errors import ConfigError
from fc4d_ray.priors.image.diffusion.attention import Exchange, ExchangeState, install_exchange
from fc4d_ray.priors.image.diffusion.config import DiffusionImageConfig, ModelConfig
from fc4d_ray.priors.image.diffusion.denoiser import Row
from fc4d_ray.priors.image.diffusion.layers import select_layers, self_attention_layers
from fc4d_ray.priors.image.diffusion.loading import load_pipeline

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


@dataclass(frozen=True)
class TextCondition:
    """Embedded prompts of a batch of B rows."""

    text: Tensor  # [B, 77, d]
    pooled: Tensor | None  # [B, p], SDXL only


class DiffusionBackbone:
    """Text encoders, UNet and VAE of one pipeline on one device, with mutual attention installed.

    One instance per worker; not to be used from two threads at once.
    """

    def __init__(self, pipeline: Any, kind: str, config: DiffusionImageConfig) -> None:
        self.kind = kind
        self.device = chosen_device(config.model)
        self.scheduler_config = pipeline.scheduler.config
        self._negative = config.prompt.negative
        self._state = ExchangeState()
        self._texts: dict[str, TextCondition] = {}
        self._pipeline = pipeline.to(self.device)
        self._pipeline.set_progress_bar_config(disable=True)
        self.unet, self._vae = pipeline.unet, pipeline.vae
        for network in (self.unet, self._vae):
            network.requires_grad_(False).eval()
        self.latent_factor = 2 ** (len(self._vae.config.block_out_channels) - 1)
        self._vae.enable_slicing()
        layers = self_attention_layers(self.unet.attn_processors)
        self.exchange_layers = select_layers(
            layers, config.exchange.layers, config.exchange.first_layer
        )
        install_exchange(self.unet, self.exchange_layers, self._state)
        if self.device.type == "cuda" and config.model.channels_last:
            self.unet.to(memory_format=torch.channels_last)
            self._vae.to(memory_format=torch.channels_last)
        if config.model.compiled:
            self.unet.compile_repeated_blocks(fullgraph=True, dynamic=True)

    @staticmethod
    def load(config: DiffusionImageConfig) -> DiffusionBackbone:
        """Read the configured pipeline. Raises ``WeightsMissing`` or ``ConfigError``."""
        pipeline, kind = load_pipeline(config.model, chosen_dtype(config.model))
        return DiffusionBackbone(pipeline, kind, config)

    @property
    def dtype(self) -> torch.dtype:
        """What the UNet computes in."""
        return self.unet.dtype

    @torch.no_grad()
    def encode(self, images: Tensor) -> Tensor:
        """Images (B, 3, S, S) in 0…1 to latents: the distribution's mean, so always the same."""
        inputs = (images * 2 - 1).to(self.device, self._vae.dtype)
        mean = self._vae.encode(inputs).latent_dist.mean.float()
        return mean * self._vae.config.scaling_factor

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        """Latents to images (B, 3, S, S) in 0…1."""
        scaled = (latents / self._vae.config.scaling_factor).to(self._vae.dtype)
        return (self._vae.decode(scaled).sample.float() / 2 + 0.5).clamp(0, 1)

    def condition(self, rows: Sequence[Row]) -> TextCondition:
        """Text embeddings of the rows' prompts."""
        return _stacked([self._embedded(row.prompt) for row in rows])

    @torch.no_grad()
    def predict(
        self,
        latents: Tensor,  # [B, 4, s, s]
        timestep: int,
        condition: TextCondition,
        *,
        exchange: Exchange | None = None,
        guidance: float = 1.0,
    ) -> Tensor:
        """The UNet's output for each row; guided rows cost twice as much.

        The batch is [unconditional rows, conditional rows], and each half reads its own reference.
        """
        count = len(latents)
        if guidance != 1.0:
            condition = _stacked([self._unconditional()] * count + [condition])
            latents = latents.repeat(2, 1, 1, 1)
            exchange = None if exchange is None else exchange.doubled(count)
        if exchange is not None:
            levels = len(self.unet.config.block_out_channels)
            exchange = exchange.prepared_for(tuple(latents.shape[-2:]), levels)
        with self._state.during(exchange):
            output = self.unet(
                latents.to(self.dtype),
                timestep,
                encoder_hidden_states=condition.text,
                added_cond_kwargs=self._size_condition(condition, latents.shape[-2:]),
            ).sample.float()
        if guidance == 1.0:
            return output
        without, with_text = output.chunk(2)
        return without + guidance * (with_text - without)

    def _size_condition(
        self, condition: TextCondition, latent_size: Sequence[int]
    ) -> dict[str, Tensor] | None:
        """SDXL's pooled text and time ids: original size, crop corner, target size."""
        if condition.pooled is None:
            return None
        height, width = (side * self.latent_factor for side in latent_size)
        ids = torch.tensor([height, width, 0, 0, height, width], dtype=self.dtype)
        ids = ids.to(self.device).expand(len(condition.pooled), -1)
        return {"text_embeds": condition.pooled, "time_ids": ids}

    def _unconditional(self) -> TextCondition:
        """What guidance leads away from; SDXL was trained with zeros for no text at all."""
        embedded = self._embedded(self._negative)
        if self._negative or not self._pipeline.config.get("force_zeros_for_empty_prompt", False):
            return embedded
        pooled = None if embedded.pooled is None else torch.zeros_like(embedded.pooled)
        return TextCondition(torch.zeros_like(embedded.text), pooled)

    @torch.no_grad()
    def _embedded(self, prompt: str) -> TextCondition:
        if prompt not in self._texts:
            options = {
                "prompt": prompt,
                "device": self.device,
                "num_images_per_prompt": 1,
                "do_classifier_free_guidance": False,
            }
            embedded = self._pipeline.encode_prompt(**options)
            pooled = embedded[2].to(self.dtype) if self.kind == "sdxl" else None
            self._texts[prompt] = TextCondition(embedded[0].to(self.dtype), pooled)
        return self._texts[prompt]

    def forget_texts(self) -> None:
        """Drop the embedded prompts, which are personal data, between portraits."""
        self._texts.clear()


def chosen_device(config: ModelConfig) -> torch.device:
    """The device an option names. Raises ``ConfigError`` where it is not there."""
    if config.device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(config.device)
    except RuntimeError as error:
        raise ConfigError(f"image.model.device: {config.device!r} is no device") from error
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ConfigError(f"image.model.device is {config.device!r}, but there is no CUDA device")
    return device


def chosen_dtype(config: ModelConfig) -> torch.dtype:
    """What the networks compute in."""
    if config.precision != "auto":
        return _DTYPES[config.precision]
    return torch.bfloat16 if chosen_device(config).type == "cuda" else torch.float32


def _stacked(parts: Sequence[TextCondition]) -> TextCondition:
    pooled = [part.pooled for part in parts if part.pooled is not None]
    return TextCondition(
        torch.cat([part.text for part in parts]), torch.cat(pooled) if pooled else None
    )
