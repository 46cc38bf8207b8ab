"""The paper's ablations, tables 4 and 5, by one command on a machine without GPU and weights.

Table 5 (with and without COIN) on the embedded profile: synthetic people are photographed, an
avatar is made of each photograph by both variants, and both are compared with the true people.
Table 4 (warping, mutual attention) needs a diffusion model: it runs on the tiny random networks of
``fc4d assets make-tiny`` and shows that the switches are wired, which its tables say.

    python benchmarks/ablation_tables.py --out DIR         # two people, half an hour on two cores
    python benchmarks/ablation_tables.py --out DIR --people 1 --config tests/data/tiny.yaml
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from fc4d_ray.assets.tiny import make_tiny_assets
from fc4d_ray.cameras import orbit_camera
from fc4d_ray.config import RunSettings, load_config
from fc4d_ray.evaluation.protocols import Protocol, load_protocol
from fc4d_ray.evaluation.synthetic import make_person
from fc4d_ray.heads.anny import load_anny_head
from fc4d_ray.images import write_png
from fc4d_ray.pipeline.evaluation import Source, evaluate
from fc4d_ray.pipeline.evaluation_report import write_evaluation
from fc4d_ray.pipeline.run import run
from fc4d_ray.store.filesystem import Storage

ABLATIONS = Path(__file__).resolve().parent.parent / "configs" / "ablations"
VIEWS = ("full", "no_warp", "no_mutual_attention", "no_warp_no_mutual_attention")
WIRING_ONLY = "wiring only: random networks, the figures say nothing about the method"
LOCAL = "run.runner=local"
FIRST_SEED = 7


def switches(ablation: str, stage: str) -> dict[str, Any]:
    """What a row of the paper's ablation changes in one stage's section."""
    document = yaml.safe_load((ABLATIONS / f"{ablation}.yaml").read_text(encoding="utf-8"))
    return document.get(stage, {})


def photograph(people: int, folder: Path) -> list[str]:
    """Portraits of synthetic people, one file each."""
    head, paths = load_anny_head(), []
    for seed in range(FIRST_SEED, FIRST_SEED + people):
        path = folder / f"person-{seed}.png"
        write_png(path, make_person(seed, head).portrait().image)
        paths.append(str(path))
    return paths


def true_views(people: int, protocol: Protocol, folder: Path) -> str:
    """The people themselves from the protocol's views, at rest."""
    head = load_anny_head()
    for seed in range(FIRST_SEED, FIRST_SEED + people):
        person = make_person(seed, head)
        for view in protocol.views:
            camera = orbit_camera(
                view.azimuth_deg, view.elevation_deg, size=protocol.size,
                radius_m=protocol.radius_m, fov_deg=protocol.fov_deg,
            )  # fmt: skip
            rgba, _ = person.render(camera)
            write_png(folder / f"person-{seed}" / f"{view.name}.png", rgba)
    return str(folder)


def run_variants(
    variants: Mapping[str, Mapping[str, Any]],
    portraits: Sequence[str],
    out: Path,
    config: str | None,
) -> list[Source]:
    """A run per variant; what is done already is not done again."""
    sources = []
    for name, values in variants.items():
        settings = load_config(config, [LOCAL], values)
        summary = run(list(portraits), str(out / name), settings, say=_say)
        if not summary.succeeded:
            raise SystemExit(f"{name}: {summary.failures}")
        if summary.failed:
            _say(f"{name}: left out: {summary.failures}")
        sources.append(Source(name, str(out / name), is_run=True))
    return sources


def table_5(out: Path, people: int, config: str | None) -> None:
    """COIN on and off, on people whose truth is known."""
    portraits = photograph(people, out / "photographs")
    coin = switches("no_coin", "train")
    variants = {"full": {}, "no COIN": {"train": coin}}
    sources = run_variants(variants, portraits, out / "embedded", config)
    static = load_protocol("ablation_views")
    truths = true_views(people, static, out / "truth")
    settings = RunSettings(runner="local")
    place = out / "table5"
    found = evaluate(sources, str(place), static, settings=settings, truths=truths, say=_say)
    _say(write_evaluation(found, Storage(str(place.absolute()))))
    acted = load_protocol("ablation_animation")
    found = evaluate(sources, str(place), acted, settings=settings, say=_say)
    _say(write_evaluation(found, Storage(str(place.absolute()))))


def table_4(out: Path, networks: Path) -> None:
    """Warping and mutual attention on and off, on networks that know nothing."""
    make_tiny_assets(networks)
    os.environ["FC4D_ASSETS"] = str(networks)
    portraits = photograph(2, out / "photographs")
    variants = {name: {"image": switches(name, "image")} for name in VIEWS}
    sources = run_variants(variants, portraits, out / "tiny", "tiny")
    protocol = load_protocol("ablation_views")
    place = out / "table4"
    found = evaluate(sources, str(place), protocol, settings=RunSettings(runner="local"), say=_say)
    _say(write_evaluation(found, Storage(str(place.absolute())), WIRING_ONLY))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, metavar="DIR")
    parser.add_argument("--people", type=int, default=2)
    parser.add_argument("--config", help="base of table 5; the embedded profile if absent")
    parser.add_argument("--only", choices=("4", "5"), help="one of the tables")
    arguments = parser.parse_args()
    if arguments.only != "4":
        table_5(arguments.out, arguments.people, arguments.config)
    if arguments.only != "5":
        table_4(arguments.out, arguments.out / "networks")
    for path in sorted(arguments.out.glob("table*/*/metrics.md")):
        print(path.read_text(encoding="utf-8"))


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
