"""Quality of trained avatars against the bounds of docs/quality.md, as one table.

Measures what ``fc4d run`` published, or runs the pipeline first (in this process):

    python benchmarks/embedded_quality.py OUT…                       # finished outputs
    python benchmarks/embedded_quality.py --portraits FILE… --work DIR
    python benchmarks/embedded_quality.py --synthetic 8 --work DIR    # people with ground truth

``astronaut`` among the portraits stands for the demo's. ``--out results.md`` writes the tables and
``results.json`` beside them, ``--sheets DIR`` a contact sheet per avatar. The exit code is 0
whatever the figures are; ``--strict`` makes a missed bound 1.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from published_avatars import FailedPortrait, PublishedAvatar, read_output, run_pipeline
from quality_sheets import quality_sheet, truth_sheet
from quality_tables import quality_markdown

from fc4d_ray.avatar.avatar import Avatar
from fc4d_ray.evaluation.avatar_quality import (
    AvatarStills,
    measure_avatar,
    measure_person,
    summarise,
)
from fc4d_ray.evaluation.criteria import missed, verdicts
from fc4d_ray.evaluation.held_out import held_out_views, view_figures
from fc4d_ray.evaluation.synthetic import make_person, surface_error_mm
from fc4d_ray.heads.anny import load_anny_head
from fc4d_ray.images import write_png
from fc4d_ray.pipeline.demo import place_demo_portrait

FORMAT = "fc4d-embedded-quality/1"
DEMO_NAME = "astronaut"
PORTRAIT_SIZE = 768
PERSON_NAME = "person-{:03d}"


def main() -> int:
    arguments = _parse()
    results: dict[str, Any] = {"format": FORMAT, "portraits": [], "synthetic": [], "failed": []}
    outputs = list(arguments.outputs)
    if arguments.portraits:
        outputs.append(str(_run_portraits(arguments)))
    taken: set[str] = set()
    for output in outputs:
        found = read_output(output)
        results["portraits"] += _measure_all(found, taken, arguments, results["failed"])
    if arguments.synthetic:
        results["synthetic"] = _measure_people(arguments, results["failed"])
    text = quality_markdown(results)
    print(text)
    if arguments.out is not None:
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        arguments.out.write_text(text, encoding="utf-8")
        plain = json.dumps(results, indent=1, sort_keys=True, ensure_ascii=False)
        arguments.out.with_suffix(".json").write_text(plain + "\n", encoding="utf-8")
    measured = [*results["portraits"], *results["synthetic"]]
    failures = bool(results["failed"]) or any(missed(row["summary"]) for row in measured)
    return 1 if arguments.strict and failures else 0


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("outputs", nargs="*", metavar="OUT", help="output of fc4d run")
    parser.add_argument("--portraits", nargs="+", default=[], metavar="FILE")
    parser.add_argument("--synthetic", type=int, default=0, metavar="N", help="number of people")
    parser.add_argument("--first-seed", type=int, default=0, help="seed of the first person")
    parser.add_argument("--work", type=Path, help="where pipelines run here put their output")
    parser.add_argument("--config", help="configuration file or profile")
    parser.add_argument("--set", action="append", default=[], metavar="A.B=C", dest="overrides")
    parser.add_argument("--out", type=Path, metavar="FILE.md")
    parser.add_argument("--sheets", type=Path, metavar="DIR")
    parser.add_argument("--strict", action="store_true")
    arguments = parser.parse_args()
    if not (arguments.outputs or arguments.portraits or arguments.synthetic):
        parser.error("name an output of fc4d run, --portraits or --synthetic")
    if (arguments.portraits or arguments.synthetic) and arguments.work is None:
        parser.error("--portraits and --synthetic need --work")
    if arguments.out is not None and arguments.out.suffix != ".md":
        parser.error("--out names a Markdown file: FILE.md")
    return arguments


def _run_portraits(arguments: argparse.Namespace) -> Path:
    output = arguments.work / "portraits"
    chosen = [
        place_demo_portrait(str(output)) if name == DEMO_NAME else name
        for name in arguments.portraits
    ]
    run_pipeline(chosen, output, arguments.config, arguments.overrides)
    return output


def _measure_all(
    found: Iterable[PublishedAvatar | FailedPortrait],
    taken: set[str],
    arguments: argparse.Namespace,
    failed: list[dict[str, str]],
) -> list[dict[str, Any]]:
    rows = []
    for entry in found:
        if isinstance(entry, FailedPortrait):
            failed.append({"name": entry.name, "reason": entry.reason})
            continue
        name = _unused(entry.name, taken)
        rows.append(_measure(entry, name, entry.load(), arguments.sheets))
    return rows


def _measure(
    entry: PublishedAvatar, name: str, avatar: Avatar, sheets: Path | None
) -> dict[str, Any]:
    start = time.monotonic()
    portrait, stills = entry.portrait(), AvatarStills(avatar)
    figures = measure_avatar(avatar, portrait, entry.reference(), stills)
    costs = entry.costs()
    summary = summarise(figures) | {"peak_memory_gib": costs["peak_memory_gib"]}
    if sheets is not None:
        sheet = quality_sheet(avatar, stills, portrait.portrait, figures, name)
        write_png(sheets / f"{name}.png", sheet)
    _say(f"measured {name} in {time.monotonic() - start:.0f} s")
    return {
        "name": name,
        "avatar_id": entry.avatar_id,
        "matte_confidence": entry.facts.get("ingest", {}).get("matte_confidence"),
        "summary": summary,
        "verdicts": verdicts(summary),
        "figures": figures,
        "costs": costs,
    }


def _measure_people(
    arguments: argparse.Namespace, failed: list[dict[str, str]]
) -> list[dict[str, Any]]:
    """Photograph people, run the pipeline on the photographs, compare with the people."""
    seeds = range(arguments.first_seed, arguments.first_seed + arguments.synthetic)
    photographs = _photograph(seeds, arguments.work / "photographs")
    output = arguments.work / "synthetic"
    run_pipeline([str(p) for p in photographs.values()], output, arguments.config,
                 arguments.overrides)  # fmt: skip
    wanted = {path.stem: seed for seed, path in photographs.items()}
    rows = []
    for entry in read_output(str(output)):
        if entry.name not in wanted:
            continue
        if isinstance(entry, FailedPortrait):
            failed.append({"name": entry.name, "reason": entry.reason})
            continue
        avatar = entry.load()
        row = _measure(entry, entry.name, avatar, arguments.sheets)
        row["truth"] = _against_truth(entry, avatar, wanted[entry.name], arguments.sheets)
        rows.append(row)
    return rows


def _photograph(seeds: Iterable[int], folder: Path) -> dict[int, Path]:
    head, photographs = load_anny_head(), {}
    for seed in seeds:
        photographs[seed] = (folder / f"{PERSON_NAME.format(seed)}.png").absolute()
        write_png(photographs[seed], make_person(seed, head).portrait(size=PORTRAIT_SIZE).image)
        _say(f"photographed person {seed}")
    return photographs


def _against_truth(
    entry: PublishedAvatar, avatar: Avatar, seed: int, sheets: Path | None
) -> dict[str, Any]:
    head = load_anny_head()
    person = make_person(seed, head)
    views = held_out_views(avatar, person)
    if sheets is not None:
        sheet = truth_sheet(entry.portrait().portrait, views, entry.name)
        write_png(sheets / f"{entry.name}-truth.png", sheet)
    _say(f"compared {entry.name} with the truth")
    return {
        "views": {f"{view.azimuth_deg:+g}": view_figures(view) for view in views},
        "surface_error_mm": round(surface_error_mm(avatar.rig.neutral, person), 3),
        "mean_head_error_mm": round(surface_error_mm(head.mean, person), 3),
        "hair_thickness_mm": round(1000 * person.hair_thickness_m, 1),
        "measured": measure_person(person, entry.portrait().portrait, entry.reference()),
    }


def _unused(name: str, taken: set[str]) -> str:
    """``name``, numbered where another portrait of this table has it."""
    unique, number = name, 1
    while unique in taken:
        number += 1
        unique = f"{name}-{number}"
    taken.add(unique)
    return unique


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
