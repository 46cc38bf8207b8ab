"""``fc4d eval`` and ``fc4d baseline``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fc4d_ray.cli.console import EXIT_SOME_FAILED, exit_codes, notice, say
from fc4d_ray.cli.runs import RunnerName
from fc4d_ray.errors import ConfigError

if TYPE_CHECKING:
    from fc4d_ray.evaluation.features import FeatureConfig
    from fc4d_ray.pipeline.evaluation import Source


def evaluate(
    runs: Annotated[
        list[str] | None,
        typer.Argument(metavar="[NAME=]OUT...", help="Outputs of fc4d run, with a name each."),
    ] = None,
    out: Annotated[
        str, typer.Option("--out", help="Folder or s3:// location; what it holds is not redone.")
    ] = "evaluation",
    protocol: Annotated[
        str, typer.Option("--protocol", help="A shipped protocol, or a YAML file.")
    ] = "static",
    baseline: Annotated[
        list[str] | None,
        typer.Option("--baseline", help="NAME=DIR: another system's pictures; may be repeated."),
    ] = None,
    references: Annotated[
        str | None, typer.Option("--references", help="Folder with <subject>.png portraits.")
    ] = None,
    truths: Annotated[
        str | None, typer.Option("--truth", help="Folder with <subject>/<view>.png true pictures.")
    ] = None,
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", help="clip=DIR, arcface=DIR, inception=FILE, device=cuda, ..."),
    ] = None,
    runner: Annotated[RunnerName, typer.Option("--runner", help="ray or local.")] = RunnerName.ray,
    workers: Annotated[int, typer.Option("--workers", help="Processes; 0 chooses.")] = 0,
    gpus_per_worker: Annotated[
        float, typer.Option("--gpus-per-worker", help="Share of a GPU for each.")
    ] = 0.0,
    stamp: Annotated[
        str, typer.Option("--stamp", help="A line that stands on page and tables.")
    ] = "",
) -> None:
    """Compare runs and other systems' pictures: the paper's tables, a page, Parquet.

    Exit codes: 0 all subjects, 3 some could not be evaluated, 2 usage, 1 nothing could.
    """
    with exit_codes():
        from fc4d_ray.config import RunSettings
        from fc4d_ray.evaluation.protocols import load_protocol
        from fc4d_ray.pipeline.evaluation import evaluate as run_evaluation
        from fc4d_ray.pipeline.evaluation_report import write_evaluation, write_timing
        from fc4d_ray.store.filesystem import Storage

        chosen = load_protocol(protocol)
        sources = _sources(runs or [], baseline or [])
        storage = Storage(out if "://" in out else str(Path(out).absolute()))
        if chosen.kind == "timing":
            page = write_timing(chosen, sources, storage)
            failures = ()
        else:
            found = run_evaluation(
                sources,
                out,
                chosen,
                features=_features(overrides or []),
                settings=RunSettings(runner=runner.value, workers=workers),
                gpus_per_worker=gpus_per_worker,
                references=references,
                truths=truths,
                say=notice,
            )
            page = write_evaluation(found, storage, stamp)
            failures = found.failures
    tables = storage.read(f"{chosen.name}/metrics.md").decode()
    say(tables)
    say(f"report    {page}")
    if failures:
        raise typer.Exit(EXIT_SOME_FAILED)


def baseline(
    system: Annotated[str, typer.Argument(help="Whose output it is: see docs/evaluation.md.")],
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="The system's own output.")],
    out: Annotated[Path, typer.Option("--out", help="Folder for the image set.")],
    protocol: Annotated[str, typer.Option("--protocol")] = "static",
    azimuths: Annotated[
        str | None,
        typer.Option("--azimuths", help="Degrees of the frames in order, comma-separated."),
    ] = None,
) -> None:
    """Turn another system's output into pictures that ``fc4d eval --baseline`` reads."""
    with exit_codes():
        from fc4d_ray.evaluation.image_sets.adapters import import_outputs
        from fc4d_ray.evaluation.protocols import load_protocol

        given = None if azimuths is None else tuple(_angle(text) for text in azimuths.split(","))
        found = import_outputs(system, directory, out, load_protocol(protocol), given)
    for line in found.missing:
        notice(line)
    say(f"{len(found.images.images)} pictures of {len(found.images.subjects)} subjects in {out}")


def _sources(runs: list[str], baselines: list[str]) -> list[Source]:
    from fc4d_ray.pipeline.evaluation import Source

    found = []
    for text in runs:
        name, separator, address = text.partition("=")
        if not separator:
            name, address = Path(text.rstrip("/")).name, text
        found.append(Source(name, address, is_run=True))
    for text in baselines:
        name, separator, address = text.partition("=")
        if not (separator and name and address):
            raise ConfigError(f"--baseline must be NAME=DIR, found {text!r}")
        found.append(Source(name, address, is_run=False))
    return found


def _features(overrides: list[str]) -> FeatureConfig:
    import yaml
    from pydantic import TypeAdapter, ValidationError

    from fc4d_ray.evaluation.features import FeatureConfig

    values = {}
    for text in overrides:
        name, separator, value = text.partition("=")
        if not separator:
            raise ConfigError(f"--set must be option=value, found {text!r}")
        values[name.strip()] = yaml.safe_load(value)
    try:
        return TypeAdapter(FeatureConfig).validate_python(values)
    except ValidationError as error:
        problems = [f"--set {'.'.join(map(str, p['loc']))}: {p['msg']}" for p in error.errors()]
        raise ConfigError("\n".join(problems)) from error


def _angle(text: str) -> float:
    try:
        return float(text)
    except ValueError as error:
        raise ConfigError(f"--azimuths must be degrees like 0,15,30, found {text!r}") from error
