"""The paper's ablation of the image prior on a CPU, with a denoiser that knows the person.

Synthetic people are rendered all round; their coarse views are blurred and tinted; the oracle of
``fc4d_ray.evaluation.oracle_denoiser`` (true views, blurred and disturbed per view) stands in for
the UNet. Everything else is the image prior's own code. Two figures per variant, over the head:

- PSNR of the finished views against the true ones, by azimuth;
- cross-view error: neighbours 15 degrees apart, warped into each other with the true depth, mean
  absolute difference in 8-bit levels where both see the surface.

``wrong rows`` is mutual attention whose rows read the reference of the other portrait in the batch:
it says whether the bookkeeping of rows matters to these figures at all.

    python benchmarks/oracle_denoiser.py                       # table on standard output
    python benchmarks/oracle_denoiser.py --sheet oracle.png    # and a picture
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from quality_tables import markdown_table
from torch import Tensor

from fc4d_ray.cameras import Camera, orbit_azimuths, orbit_camera, view_name
from fc4d_ray.evaluation.oracle_denoiser import OracleConfig, OracleDenoiser, blurred
from fc4d_ray.evaluation.synthetic import SyntheticPerson, make_person
from fc4d_ray.images import write_png
from fc4d_ray.priors.image.diffusion.attention import Exchange
from fc4d_ray.priors.image.diffusion.config import (
    DiffusionImageConfig,
    ExchangeConfig,
    GateConfig,
    WarpConfig,
)
from fc4d_ray.priors.image.diffusion.prior import MultiviewPrior
from fc4d_ray.priors.image.diffusion.views import GuideView, Portrait
from fc4d_ray.warping import warp_to_view

COARSE_BLUR_PX = 2.5
COARSE_TINT = (0.06, -0.03, 0.02)
REFERENCE_AZIMUTH_DEG = 10.0
BANDS = ((0, 45), (45, 90), (90, 135), (135, 181))


@dataclass(frozen=True)
class Case:
    """A person's truth and what the prior is given of it."""

    portrait: Portrait
    truth: dict[str, GuideView]  # by view name, the reference included


@dataclass(frozen=True)
class Figures:
    """One variant's."""

    psnr: tuple[float, ...]
    """dB per band of azimuths."""
    mean_psnr: float
    cross_view: float
    """Mean absolute difference between neighbours, 8-bit levels."""


class SwappedRows:
    """A denoiser in which the references of the batch's portraits are taken for each other."""

    def __init__(self, denoiser: OracleDenoiser) -> None:
        self._denoiser = denoiser

    def __getattr__(self, name: str) -> Any:
        return getattr(self._denoiser, name)

    def predict(self, latents: Tensor, timestep: int, condition: Any, **options: Any) -> Tensor:
        exchange: Exchange | None = options.get("exchange")
        if exchange is not None:
            references = exchange.plain_rows.tolist()
            other = dict(zip(references, references[1:] + references[:1], strict=True))
            groups = tuple(
                replace(group, reference_rows=torch.tensor([other[int(r)] for r in
                                                            group.reference_rows]))
                for group in exchange.groups
            )  # fmt: skip
            options["exchange"] = replace(exchange, groups=groups)
        return self._denoiser.predict(latents, timestep, condition, **options)


def make_case(person: SyntheticPerson, size: int, views: int = 24) -> Case:
    """True and coarse views of a person photographed a little from the side."""
    truth = {}
    for azimuth in orbit_azimuths(views):
        name = view_name(azimuth)
        truth[name] = true_view(person, name, azimuth, orbit_camera(azimuth, size=size))
    camera = person.portrait_camera(REFERENCE_AZIMUTH_DEG, size, fov_deg=16)
    reference = true_view(person, "reference", REFERENCE_AZIMUTH_DEG, camera)
    coarse = tuple(_coarse(view) for view in truth.values())
    portrait = Portrait(f"person{person.seed}", reference, coarse, "a person", person.seed)
    return Case(portrait, truth | {"reference": reference})


def true_view(person: SyntheticPerson, name: str, azimuth_deg: float, camera: Camera) -> GuideView:
    """A render on white as the prior's view."""
    rgba, depth = person.render(camera)
    pixels = torch.from_numpy(rgba).permute(2, 0, 1).float() / 255
    image = pixels[:3] * pixels[3:] + 1 - pixels[3:]
    return GuideView(name, azimuth_deg, camera, image, pixels[3], torch.from_numpy(depth))


def _coarse(view: GuideView) -> GuideView:
    tint = torch.tensor(COARSE_TINT)[:, None, None] * view.alpha
    return replace(view, image=(blurred(view.image, COARSE_BLUR_PX) + tint).clamp(0, 1))


def variants() -> dict[str, dict[str, Any]]:
    """Options of the ablation's rows; ``swapped`` is read by ``enhance``."""
    no_warp, no_attention = WarpConfig(enabled=False), ExchangeConfig(enabled=False)
    return {
        "neither": {"warp": no_warp, "exchange": no_attention},
        "mutual attention": {"warp": no_warp},
        "warping": {"exchange": no_attention},
        "both": {},
        "mutual attention, wrong rows": {"warp": no_warp, "swapped": True},
    }


def enhance(
    cases: Sequence[Case], oracle: OracleConfig, steps: int, **options: Any
) -> list[dict[str, Tensor]]:
    """Finished pictures per case and view name."""
    size = cases[0].portrait.reference.image.shape[-1]
    denoiser: Any = OracleDenoiser({c.portrait.portrait_id: c.truth for c in cases}, oracle)
    if options.pop("swapped", False):
        denoiser = SwappedRows(denoiser)
    config = DiffusionImageConfig(
        size=size, steps=steps, batch_rows=20, gates=GateConfig(retries=0), **options
    )
    prior = MultiviewPrior(denoiser, config, lambda picture, head: None)
    finished = prior.enhance([case.portrait for case in cases])
    return [{view.view.name: view.view.image for view in views} for views in finished]


def measure(cases: Sequence[Case], finished: Sequence[dict[str, Tensor]]) -> Figures:
    """Means over the people."""
    errors: list[list[float]] = [[] for _ in BANDS]
    everything, crossed = [], []
    for case, pictures in zip(cases, finished, strict=True):
        for name, picture in pictures.items():
            view = case.truth[name]
            mask = view.alpha > 0.99
            psnr = -10 * np.log10(float((picture - view.image)[:, mask].square().mean()))
            everything.append(psnr)
            for values, (low, high) in zip(errors, BANDS, strict=True):
                if low <= abs(view.azimuth_deg) < high:
                    values.append(psnr)
        crossed += cross_view_errors(case, pictures)
    bands = tuple(float(np.mean(values)) for values in errors)
    return Figures(bands, float(np.mean(everything)), float(np.mean(crossed)))


def cross_view_errors(case: Case, pictures: dict[str, Tensor]) -> list[float]:
    """Per pair of neighbours, the reference paired with the view nearest to it."""
    names = [view.name for view in case.portrait.views]
    pairs = list(zip(names, names[1:] + names[:1], strict=True))
    pictures = pictures | {"reference": case.portrait.reference.image}
    nearest = min(names, key=lambda n: abs(case.truth[n].azimuth_deg - REFERENCE_AZIMUTH_DEG))
    errors = []
    for one, other in [*pairs, ("reference", nearest)]:
        source, target = case.truth[one], case.truth[other]
        warped = warp_to_view(
            torch.cat([pictures[one], source.alpha[None]]), source.depth, source.camera,
            target.depth, target.camera,
        )  # fmt: skip
        both = warped.visible & (warped.image[3] > 0.99) & (target.alpha > 0.99)
        gap = (warped.image[:3] - pictures[other])[:, both].abs().mean()
        errors.append(255 * float(gap))
    return errors


def sheet(case: Case, rows: dict[str, dict[str, Tensor]], azimuths: Sequence[float]) -> np.ndarray:
    """Truth, coarse views and every variant, a row each."""
    coarse = {view.name: view.image for view in case.portrait.views}
    truth = {name: view.image for name, view in case.truth.items()}
    lines = []
    for pictures in ({"truth": truth, "coarse": coarse} | rows).values():
        images = [pictures[view_name(azimuth)] for azimuth in azimuths]
        lines.append(torch.cat(images, -1))
    array = torch.cat(lines, -2).permute(1, 2, 0).numpy()
    return (array * 255 + 0.5).astype(np.uint8)


def table(results: dict[str, Figures]) -> str:
    header = ["variant", "cross-view error", "PSNR", *(f"{a}…{b}°" for a, b in BANDS)]
    lines = [
        [name, f"{f.cross_view:.2f}", f"{f.mean_psnr:.2f}", *(f"{p:.2f}" for p in f.psnr)]
        for name, f in results.items()
    ]
    return markdown_table(header, lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--people", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--guided-deviation", type=float, nargs="+", default=[0.2])
    parser.add_argument("--sheet", type=Path)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    cases = [make_case(make_person(seed), arguments.size) for seed in arguments.people]
    truth = [{n: v.image for n, v in case.truth.items() if n != "reference"} for case in cases]
    coarse = [{view.name: view.image for view in case.portrait.views} for case in cases]
    kept: dict[str, dict[str, float | tuple[float, ...]]] = {}
    for deviation in arguments.guided_deviation:
        oracle = OracleConfig(guided_deviation=deviation)
        results = {"coarse views": measure(cases, coarse)}
        pictures = {}
        for name, options in variants().items():
            finished = enhance(cases, oracle, arguments.steps, **options)
            results[name] = measure(cases, finished)
            pictures[name] = finished[0]
        noisy_truth = [{n: i + 1e-6 for n, i in person.items()} for person in truth]
        results["the truth itself"] = measure(cases, noisy_truth)
        print(f"\nguided deviation {deviation:g}\n\n{table(results)}", flush=True)
        kept |= {f"{deviation:g}/{name}": vars(f) for name, f in results.items()}
    if arguments.sheet:
        write_png(arguments.sheet, sheet(cases[0], pictures, (0.0, 45.0, 90.0, 135.0, 180.0)))
    if arguments.json:
        arguments.json.write_text(json.dumps(kept, indent=1))


if __name__ == "__main__":
    main()
