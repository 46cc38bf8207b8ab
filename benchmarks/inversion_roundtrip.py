"""What DDIM inversion followed by denoising loses, against steps and strength.

Latents go up k levels and down again without exchange or paste-in; the figure is the
root-mean-square difference to the start, in latents (the noise's deviation is 1). An exact sampler
would give 0: inversion evaluates the network one level too low at each step, and that is what is
lost. A constant noise estimate loses nothing (tests/priors/image/diffusion/test_schedule.py).

``oracle`` is the denoiser of ``fc4d_ray.evaluation.oracle_denoiser`` on a synthetic person,
free and guided; the tiny random UNets say something about wiring only. Released checkpoints can be
named instead.

    python benchmarks/inversion_roundtrip.py
    python benchmarks/inversion_roundtrip.py --base DIR --unet DIR --size 1024     # needs weights
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from oracle_denoiser import make_case
from quality_tables import markdown_table
from torch import Tensor

from fc4d_ray.assets.tiny_diffusion import write_tiny_diffusion
from fc4d_ray.evaluation.oracle_denoiser import OracleDenoiser
from fc4d_ray.evaluation.synthetic import make_person
from fc4d_ray.priors.image.diffusion.backbone import DiffusionBackbone
from fc4d_ray.priors.image.diffusion.config import DiffusionImageConfig, ModelConfig
from fc4d_ray.priors.image.diffusion.denoiser import Denoiser, Row
from fc4d_ray.priors.image.diffusion.schedule import match_schedules

STEPS = (10, 20, 50)
STRENGTHS = (0.3, 0.6, 1.0)


def round_trip_error(
    denoiser: Denoiser, image: Tensor, row: Row, steps: int, strength: float, guidance: float = 1.0
) -> float:
    """RMS error of one picture's (3, S, S) latents; ``guidance`` holds in both directions."""
    schedule = match_schedules(denoiser.scheduler_config, steps)
    condition = denoiser.condition([row])
    clean = denoiser.encode(image[None])
    top = schedule.partial_steps(strength)

    def noise(latents: Tensor, level: int) -> Tensor:
        return denoiser.predict(latents, schedule.timestep(level), condition, guidance=guidance)

    latents = clean
    for level in range(1, top + 1):
        latents = schedule.add_noise_step(noise(latents, level), level, latents)
    for level in range(top, 0, -1):
        latents = schedule.denoise_step(noise(latents, level), level, latents)
    return float((latents - clean).square().mean().sqrt())


def table(rows: dict[str, tuple[Denoiser, Tensor, Row, float]], steps: Sequence[int]) -> str:
    """A line per denoiser and number of steps, a column per strength."""
    lines = []
    for name, (denoiser, image, row, guidance) in rows.items():
        for count in steps:
            errors = [
                round_trip_error(denoiser, image, row, count, strength, guidance)
                for strength in STRENGTHS
            ]
            lines.append([name, f"{count}", *(f"{error:.4f}" for error in errors)])
    return markdown_table(["denoiser", "steps", *(f"strength {s:g}" for s in STRENGTHS)], lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--base", help="pipeline folder; tiny random ones if absent")
    parser.add_argument("--unet", help="UNet folder that replaces the base's")
    arguments = parser.parse_args()
    case = make_case(make_person(1), arguments.size, views=4)
    view = case.portrait.views[0]
    row = Row(case.portrait.portrait_id, view.name, "closeup portrait shot of a person")
    rows: dict[str, Any] = {}
    if arguments.base:
        model = ModelConfig(base=arguments.base, unet=arguments.unet)
        backbone = DiffusionBackbone.load(DiffusionImageConfig(model=model, size=arguments.size))
        rows[arguments.base] = (backbone, view.image.to(backbone.device), row, 1.0)
    else:
        oracle = OracleDenoiser({case.portrait.portrait_id: case.truth})
        rows["oracle, free"] = (oracle, view.image, row, 1.0)
        rows["oracle, guided"] = (oracle, view.image, row, 4.0)
        for kind in ("sd15", "sdxl"):
            with tempfile.TemporaryDirectory() as folder:
                write_tiny_diffusion(Path(folder), kind)
                model = ModelConfig(base=folder, unet=None, device="cpu")
                options = DiffusionImageConfig(model=model, size=arguments.size)
                backbone = DiffusionBackbone.load(options)
            rows[f"tiny random {kind}, wiring only"] = (backbone, view.image, row, 1.0)
    with torch.no_grad():
        print(table(rows, STEPS))


if __name__ == "__main__":
    main()
