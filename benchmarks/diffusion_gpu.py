"""The image prior at its real size on one CUDA card: seconds per portrait, memory, rows per second.

SDXL and SD 1.5 are built from their published settings with random weights, which take the time and
the memory of the released ones; what they paint means nothing. A portrait is a sphere with 24 views
and a reference, so waves, warping and paste-in do their usual work. Beside it, in the same
process, a plain loop takes the views one by one through the same UNet with diffusers' own
attention: no batch, no reference. A row is one image once through the UNet; guidance counts twice.

Needs CUDA and diffusers (``pip install 'fc4d-ray[paper]'``); without them it says so and ends with
status 2.

    python benchmarks/diffusion_gpu.py                               # both models, both profiles
    python benchmarks/diffusion_gpu.py --models sdxl --compiled --portraits 1 4
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from quality_tables import markdown_table

from fc4d_ray.assets.tiny_diffusion import write_tiny_diffusion
from fc4d_ray.assets.torchvision_shim import ensure_torchvision_importable
from fc4d_ray.cameras import Camera, orbit_azimuths, orbit_camera, pixel_centres, view_name
from fc4d_ray.priors.image.diffusion.attention import MODES, remove_exchange
from fc4d_ray.priors.image.diffusion.backbone import DiffusionBackbone
from fc4d_ray.priors.image.diffusion.config import (
    DiffusionImageConfig,
    ExchangeConfig,
    GateConfig,
    ModelConfig,
)
from fc4d_ray.priors.image.diffusion.denoiser import Row
from fc4d_ray.priors.image.diffusion.prior import MultiviewPrior
from fc4d_ray.priors.image.diffusion.schedule import match_schedules
from fc4d_ray.priors.image.diffusion.trajectory import invert
from fc4d_ray.priors.image.diffusion.views import GuideView, Portrait

SIZES = {"sdxl": 1024, "sd15": 512}
GOAL_S = {"standard": 60.0, "draft": 20.0}
"""Seconds per portrait wanted of SDXL at 1024 pixels on one H200."""
_RADIUS_M = 0.12
_PLAIN_VIEWS = 2

_SCHEDULE = {
    "beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear",
    "num_train_timesteps": 1000, "steps_offset": 1, "timestep_spacing": "leading",
}  # fmt: skip
_UNETS: dict[str, dict[str, Any]] = {
    "sd15": {
        "sample_size": 64, "block_out_channels": (320, 640, 1280, 1280),
        "cross_attention_dim": 768, "attention_head_dim": 8,
    },
    "sdxl": {
        "sample_size": 128, "block_out_channels": (320, 640, 1280),
        "cross_attention_dim": 2048, "attention_head_dim": (5, 10, 20),
        "transformer_layers_per_block": (1, 2, 10), "use_linear_projection": True,
        "addition_embed_type": "text_time", "addition_time_embed_dim": 256,
        "projection_class_embeddings_input_dim": 2816,
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    },
}  # fmt: skip
_VAE: dict[str, Any] = {
    "block_out_channels": (128, 256, 512, 512), "layers_per_block": 2, "latent_channels": 4,
    "down_block_types": ("DownEncoderBlock2D",) * 4, "up_block_types": ("UpDecoderBlock2D",) * 4,
}  # fmt: skip
_TEXT_L = {
    "hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12,
    "num_attention_heads": 12, "projection_dim": 768,
}  # fmt: skip
_TEXT_G = {
    "hidden_size": 1280, "intermediate_size": 5120, "num_hidden_layers": 32,
    "num_attention_heads": 20, "projection_dim": 1280, "hidden_act": "gelu",
}  # fmt: skip


@dataclass(frozen=True)
class Speed:
    """One model, profile and number of portraits."""

    model: str
    size: int
    profile: str
    portraits: int
    mode: str
    compiled: bool
    seconds_per_portrait: float
    rows: int
    rows_per_s: float
    plain_rows_per_s: float
    batch_rows: int
    peak_gib: float


def why_not() -> str | None:
    """What is missing to measure anything, None where nothing is."""
    if not torch.cuda.is_available():
        return "no CUDA device: this benchmark measures a GPU and has nothing to say without one"
    for package in ("diffusers", "transformers"):
        if importlib.util.find_spec(package) is None:
            return f"{package} is not installed: pip install 'fc4d-ray[paper]'"
    return None


def real_size_pipeline(kind: str, device: str = "cuda") -> Any:
    """The published architecture with random weights in bfloat16."""
    ensure_torchvision_importable()
    import diffusers
    from transformers import (
        CLIPTextConfig,
        CLIPTextModel,
        CLIPTextModelWithProjection,
        CLIPTokenizer,
    )

    with tempfile.TemporaryDirectory() as folder:
        write_tiny_diffusion(Path(folder), "sd15")
        tokenizer = CLIPTokenizer.from_pretrained(Path(folder) / "tokenizer")
    last = len(tokenizer) - 1
    ids = {"bos_token_id": last - 1, "eos_token_id": last, "pad_token_id": last}
    with _built_in(torch.bfloat16, device):
        parts: dict[str, Any] = {
            "unet": diffusers.UNet2DConditionModel(**_UNETS[kind]),
            "vae": diffusers.AutoencoderKL(
                **_VAE, scaling_factor=0.13025 if kind == "sdxl" else 0.18215
            ),
            "text_encoder": CLIPTextModel(CLIPTextConfig(**_TEXT_L, **ids)),
        }
        if kind == "sdxl":
            parts["text_encoder_2"] = CLIPTextModelWithProjection(CLIPTextConfig(**_TEXT_G, **ids))
    scheduler = diffusers.DDIMScheduler(**_SCHEDULE, clip_sample=False, set_alpha_to_one=False)
    parts |= {"tokenizer": tokenizer, "scheduler": scheduler}
    if kind == "sdxl":
        return diffusers.StableDiffusionXLPipeline(
            **parts, tokenizer_2=tokenizer, add_watermarker=False
        )
    return diffusers.StableDiffusionPipeline(
        **parts, safety_checker=None, feature_extractor=None, requires_safety_checker=False
    )


@contextmanager
def _built_in(dtype: torch.dtype, device: str) -> Iterator[None]:
    """Modules made inside have this dtype and device from the start."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with torch.device(device):
            yield
    finally:
        torch.set_default_dtype(before)


def sphere_portrait(portrait_id: str, size: int, device: str = "cuda", views: int = 24) -> Portrait:
    """A patterned sphere all round."""
    azimuths = orbit_azimuths(views)
    return Portrait(
        portrait_id,
        _sphere_view("reference", 8.0, size, device),
        tuple(_sphere_view(view_name(a), a, size, device) for a in azimuths),
        "closeup portrait shot of a person", 1,
    )  # fmt: skip


def _sphere_view(name: str, azimuth_deg: float, size: int, device: str) -> GuideView:
    camera = orbit_camera(azimuth_deg, size=size)
    depth = _sphere_depth(camera)
    points = camera.unproject(pixel_centres(size, size), depth) / _RADIUS_M
    hit = depth > 0
    image = np.where(hit[..., None], 0.5 + 0.4 * np.sin(5 * points), 1.0)
    tensors = (image.transpose(2, 0, 1), hit, depth)
    return GuideView(
        name, azimuth_deg, camera, *(torch.from_numpy(t.copy()).float().to(device) for t in tensors)
    )


def _sphere_depth(camera: Camera) -> np.ndarray:
    ones = np.ones((camera.height, camera.width))
    rays = camera.unproject(pixel_centres(camera.width, camera.height), ones) - camera.position
    a, b = (rays**2).sum(-1), rays @ camera.position
    inner = b**2 - a * (camera.position @ camera.position - _RADIUS_M**2)
    return np.where(inner > 0, (-b - np.sqrt(inner.clip(0))) / a, 0.0)


def measure(
    backbone: DiffusionBackbone, config: DiffusionImageConfig, portraits: int, plain: float
) -> Speed:
    """Time ``portraits`` at once, after a warm-up on one."""
    prior = MultiviewPrior(backbone, config, lambda picture, head: None)
    device = str(backbone.device)
    people = [sphere_portrait(f"p{i}", config.size, device) for i in range(portraits)]
    prior.enhance([sphere_portrait("warm-up", config.size, device, views=4)])
    before = prior.sampler.count.rows
    if backbone.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    start = _now(backbone)
    prior.enhance(people)
    seconds = _now(backbone) - start
    rows = prior.sampler.count.rows - before
    peak = torch.cuda.max_memory_allocated() / 2**30 if backbone.device.type == "cuda" else 0.0
    return Speed(
        backbone.kind, config.size, config.profile, portraits,
        config.exchange.mode, config.model.compiled,
        seconds / portraits, rows // portraits, rows / seconds, plain, prior.budget.rows, peak,
    )  # fmt: skip


def plain_rows_per_s(backbone: DiffusionBackbone, config: DiffusionImageConfig) -> float:
    """One view after the other with diffusers' own attention: inverted, then denoised.

    Leaves the backbone without mutual attention.
    """
    remove_exchange(backbone.unet)
    schedule = match_schedules(backbone.scheduler_config, config.sampling.steps)
    top, guidance = schedule.partial_steps(config.sampling.strength), config.sampling.guidance
    portrait = sphere_portrait("plain", config.size, str(backbone.device), views=_PLAIN_VIEWS + 1)
    start, rows = 0.0, 0
    for index, view in enumerate(portrait.views):
        if index == 1:  # the first one warms up
            start, rows = _now(backbone), 0
        condition = backbone.condition([Row("plain", view.name, portrait.sentence)])
        latents = backbone.encode(view.image[None])
        latents = invert(backbone, schedule, latents, condition, top).at(top)
        for level in range(top, 0, -1):
            output = backbone.predict(
                latents, schedule.timestep(level), condition, guidance=guidance
            )
            latents = schedule.denoise_step(output, level, latents)
        backbone.decode(latents)
        rows += top * (2 if guidance == 1 else 3)
    return rows / (_now(backbone) - start)


def _now(backbone: DiffusionBackbone) -> float:
    if backbone.device.type == "cuda":
        torch.cuda.synchronize(backbone.device)
    return time.perf_counter()


def table(speeds: list[Speed]) -> str:
    """One line per measurement, with the goal where there is one."""
    header = [
        "model", "size", "profile", "portraits", "keys", "compiled", "s per portrait", "goal",
        "rows", "rows/s", "plain rows/s", "rows per batch", "peak GiB",
    ]  # fmt: skip
    lines = []
    for s in speeds:
        goal = f"≤ {GOAL_S[s.profile]:.0f} s" if s.model == "sdxl" else ""
        lines.append(
            [
                s.model, f"{s.size}", s.profile, f"{s.portraits}", s.mode,
                "yes" if s.compiled else "no", f"{s.seconds_per_portrait:.1f}", goal,
                f"{s.rows}", f"{s.rows_per_s:.1f}",
                f"{s.plain_rows_per_s:.1f}", f"{s.batch_rows}", f"{s.peak_gib:.1f}",
            ]
        )  # fmt: skip
    return markdown_table(header, lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", nargs="+", choices=sorted(SIZES), default=["sdxl", "sd15"])
    parser.add_argument("--profiles", nargs="+", choices=sorted(GOAL_S), default=sorted(GOAL_S))
    parser.add_argument("--sizes", type=int, nargs="+", help="default: each model's own")
    parser.add_argument("--portraits", type=int, nargs="+", default=[1])
    parser.add_argument("--mode", choices=MODES, default="masked", help="of mutual attention")
    parser.add_argument("--compiled", action="store_true")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    if (reason := why_not()) is not None:
        print(reason, file=sys.stderr)
        raise SystemExit(2)
    speeds = []
    for kind in arguments.models:
        for size in arguments.sizes or [SIZES[kind]]:
            for profile in arguments.profiles:
                config = DiffusionImageConfig(
                    model=ModelConfig(device="cuda", compiled=arguments.compiled), size=size,
                    profile=profile, gates=GateConfig(retries=0),
                    exchange=ExchangeConfig(mode=arguments.mode),
                )  # fmt: skip
                plain_backbone = DiffusionBackbone(real_size_pipeline(kind), kind, config)
                plain = plain_rows_per_s(plain_backbone, config)
                del plain_backbone
                torch.cuda.empty_cache()
                backbone = DiffusionBackbone(real_size_pipeline(kind), kind, config)
                for portraits in arguments.portraits:
                    speeds.append(measure(backbone, config, portraits, plain))
                    print(speeds[-1], file=sys.stderr, flush=True)
                del backbone
                torch.cuda.empty_cache()
    print("Random weights: times and memory only.\n")
    print(table(speeds))
    if arguments.json:
        arguments.json.write_text(json.dumps([vars(speed) for speed in speeds], indent=1))


if __name__ == "__main__":
    main()
