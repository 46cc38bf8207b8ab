"""A stand-in for the image prior's diffusion model that knows the person, for ablations on a CPU.

What a random UNet paints says nothing about warping or mutual attention. This denoiser knows how
every view of a synthetic person truly looks, and errs as a generator does: each view is blurred
and has its own wrong colours, so that two views disagree. Everything else is the image prior's own
code: schedules, inversion, waves, warping, paste-in, and mutual attention inside a real diffusers
layer.

The model is a Gaussian around its idea of the view, m, with deviation s; the best guess of the
clean image x from a latent z = √ᾱ x + √(1-ᾱ) ε is then exact:

    E[x | z] = (√ᾱ s² z + (1-ᾱ) m) / (ᾱ s² + 1 - ᾱ)

Unguided it believes little in m (s is ``free_deviation``) and inversion keeps the picture; guided
it pulls towards m (``guided_deviation``), as guidance does with a prompt.

One self-attention layer decides the colours of m. Tokens are latent cells; values are their
colours; keys and queries are a place on the head's surface and a colour, which stand for what a
real network's features tell: where on a head, and what it looks like there. Plain, every view reads
its own wrong colours; with mutual attention it reads the reference's.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from fc4d_ray.assets.torchvision_shim import ensure_torchvision_importable
from fc4d_ray.priors.image.diffusion.attention import (
    Exchange,
    ExchangeState,
    MutualAttentionProcessor,
)
from fc4d_ray.priors.image.diffusion.denoiser import Row
from fc4d_ray.priors.image.diffusion.schedule import match_schedules
from fc4d_ray.priors.image.diffusion.views import GuideView
from fc4d_ray.warping import lift

FACTOR = 8
STABLE_DIFFUSION_NOISE = {
    "num_train_timesteps": 1000,
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "steps_offset": 1,
}
_PLACES, _COLOURS = 3, 3
_FEATURES = _PLACES + _COLOURS
_NOWHERE_M = (0.0, 0.0, 1.5)
"""Where cells without a surface are put: near each other and far from every head."""


@dataclass(frozen=True)
class OracleConfig:
    """How the oracle errs. Colours are in 0…1, deviations in the latents' -1…1."""

    blur_px: float = 1.5
    """Standard deviation of the blur of its idea of a view."""
    cast: float = 0.06
    """Standard deviation of a view's colour cast."""
    stain: float = 0.08
    """Amplitude of smooth wrong colours over a view."""
    free_deviation: float = 0.5
    guided_deviation: float = 0.2
    reach_m: float = 0.02
    """Distance on the surface over which attention mixes colours."""
    likeness: float = 0.15
    """Difference of colours, in 0…1, over which it mixes them."""


class OracleDenoiser:
    """``Denoiser`` that knows the true views; see the module.

    ``truth``: per portrait id and view name the true picture on the working grid, with its depth.
    The view named ``reference`` is known without error: it is the portrait.
    """

    latent_factor = FACTOR

    def __init__(
        self,
        truth: Mapping[str, Mapping[str, GuideView]],
        config: OracleConfig = OracleConfig(),
    ) -> None:
        self.device = torch.device("cpu")
        self.scheduler_config = STABLE_DIFFUSION_NOISE
        self._config = config
        self._alphas = match_schedules(STABLE_DIFFUSION_NOISE, 10).forward.alphas_cumprod
        self._state = ExchangeState()
        self._attention = _colour_attention(self._state)
        self._alphas_of = {
            (portrait_id, name): functional.pixel_unshuffle(view.alpha[None], FACTOR)
            for portrait_id, views in truth.items()
            for name, view in views.items()
        }
        self._ideas = {
            (portrait_id, name): self._idea(portrait_id, view)
            for portrait_id, views in truth.items()
            for name, view in views.items()
        }
        self._places = {
            (portrait_id, name): _cell_places(view)
            for portrait_id, views in truth.items()
            for name, view in views.items()
        }

    def encode(self, images: Tensor) -> Tensor:
        """Pixels rearranged into latent cells: exact, so that only the model errs."""
        return functional.pixel_unshuffle(images * 2 - 1, FACTOR)

    def decode(self, latents: Tensor) -> Tensor:
        return (functional.pixel_shuffle(latents, FACTOR) / 2 + 0.5).clamp(0, 1)

    def condition(self, rows: Sequence[Row]) -> list[tuple[str, str]]:
        """Which view of whom each row shows."""
        return [(row.portrait_id, row.view) for row in rows]

    @torch.no_grad()
    def predict(
        self,
        latents: Tensor,  # [B, 192, s, s]
        timestep: int,
        condition: Sequence[tuple[str, str]],
        *,
        exchange: Exchange | None = None,
        guidance: float = 1.0,
    ) -> Tensor:
        """The noise in each row."""
        config = self._config
        deviation = config.free_deviation if guidance == 1.0 else config.guided_deviation
        alpha = float(self._alphas[timestep])
        idea = torch.stack([self._ideas[key] for key in condition])
        guess = _posterior(latents, idea, alpha, deviation)
        if exchange is not None:
            exchange = exchange.prepared_for(tuple(latents.shape[-2:]), 1)
        places = torch.stack([self._places[key] for key in condition])
        head = torch.stack([self._alphas_of[key] for key in condition])
        with self._state.during(exchange):
            colours = self._attend(places, _cell_colours(guess, head))
        change = (colours - _cell_colours(idea, head)).repeat_interleave(FACTOR * FACTOR, 1)
        idea = idea + change * head.repeat(1, _COLOURS, 1, 1)
        clean = _posterior(latents, idea, alpha, deviation)
        return (latents - alpha**0.5 * clean) / (1 - alpha) ** 0.5

    def _attend(self, places: Tensor, cells: Tensor) -> Tensor:
        """Cell colours (B, 3, s, s) after the attention layer."""
        side = cells.shape[-1]
        colours = cells.flatten(2).transpose(1, 2)  # [B, tokens, 3]
        likeness = 2 * self._config.likeness  # latents span -1…1
        features = torch.cat([places / self._config.reach_m, colours / likeness], -1)
        square = features.square().sum(-1, keepdim=True)
        tokens = torch.cat([features, square, torch.ones_like(square), colours], -1)
        mixed = self._attention(tokens)[..., -_COLOURS:]
        return mixed.transpose(1, 2).unflatten(2, (side, side))

    def _idea(self, portrait_id: str, view: GuideView) -> Tensor:
        if view.name == "reference":
            return self.encode(view.image[None])[0]
        config = self._config
        seed = hashlib.sha256(f"{portrait_id}/{view.name}".encode()).digest()[:7]
        generator = torch.Generator().manual_seed(int.from_bytes(seed, "big"))
        cast = config.cast * torch.randn(3, 1, 1, generator=generator)
        coarse = torch.randn(1, 3, 6, 6, generator=generator)
        stain = functional.interpolate(coarse, view.image.shape[-2:], mode="bicubic")[0]
        wrong = (cast + config.stain * stain) * view.alpha
        return self.encode((blurred(view.image, config.blur_px) + wrong).clamp(0, 1)[None])[0]


def blurred(image: Tensor, sigma_px: float) -> Tensor:
    """Gaussian blur of a picture (C, H, W), edges repeated."""
    if sigma_px == 0:
        return image
    radius = max(1, round(3 * sigma_px))
    x = torch.arange(-radius, radius + 1).to(image)
    kernel = torch.exp(-0.5 * (x / sigma_px) ** 2)
    kernel = (kernel / kernel.sum())[None, None]
    padded = functional.pad(image[:, None], (radius,) * 4, mode="replicate")
    rows = functional.conv2d(padded, kernel[:, :, None])
    return functional.conv2d(rows, kernel[..., None])[:, 0]


def _posterior(latents: Tensor, idea: Tensor, alpha: float, deviation: float) -> Tensor:
    trust = alpha * deviation**2
    return (latents * (trust / alpha**0.5) + (1 - alpha) * idea) / (trust + 1 - alpha)


def _cell_colours(latents: Tensor, head: Tensor) -> Tensor:
    """Mean colour (B, 3, s, s) of the head in each cell, of the background in empty cells.

    A colour's pixels are consecutive channels of a latent. ``head``: (B, 64, s, s) 0…1.
    """
    pixels = latents.unflatten(1, (_COLOURS, FACTOR * FACTOR))
    weights = torch.where(head.sum(1, keepdim=True) > 1, head, 1.0)[:, None]
    return (pixels * weights).sum(2) / weights.sum(2)


def _cell_places(view: GuideView) -> Tensor:
    """Mean place (tokens, 3) on the surface of each latent cell, metres."""
    on = (view.depth > 0).float()
    points = lift(view.depth, view.camera).permute(2, 0, 1).float() * on
    share = functional.avg_pool2d(on[None, None], FACTOR)[0, 0]
    mean = functional.avg_pool2d(points[None], FACTOR)[0] / share.clamp_min(1e-6)
    nowhere = torch.tensor(_NOWHERE_M)[:, None, None]
    return torch.where(share > 0.25, mean, nowhere).flatten(1).T


def _colour_attention(state: ExchangeState) -> torch.nn.Module:
    """A diffusers attention layer whose weights are exp(-|f_query - f_key|² / 2).

    Tokens carry features f, |f|², 1 and a colour. The query's own square is the same for all keys
    and drops out of the softmax.
    """
    ensure_torchvision_importable()
    from diffusers.models.attention_processor import Attention, AttnProcessor2_0

    width = _FEATURES + 2 + _COLOURS
    layer = Attention(width, heads=1, dim_head=width, bias=False, out_bias=False)
    scale = width**0.5
    with torch.no_grad():
        for linear in (layer.to_q, layer.to_k, layer.to_v, layer.to_out[0]):
            linear.weight.zero_()
        for channel in range(_FEATURES):
            layer.to_q.weight[channel, channel] = scale
            layer.to_k.weight[channel, channel] = 1.0
        layer.to_q.weight[_FEATURES, _FEATURES + 1] = scale
        layer.to_k.weight[_FEATURES, _FEATURES] = -0.5
        for channel in range(width - _COLOURS, width):
            layer.to_v.weight[channel, channel] = 1.0
            layer.to_out[0].weight[channel, channel] = 1.0
    layer.set_processor(MutualAttentionProcessor(AttnProcessor2_0(), state))
    return layer.requires_grad_(False)
