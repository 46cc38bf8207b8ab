"""``fc4d run``, ``demo``, ``status`` and ``retry``."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fc4d_ray.cli.console import exit_codes, notice, say

if TYPE_CHECKING:
    from fc4d_ray.config import RunConfig
    from fc4d_ray.pipeline.run import RunSummary


class RunnerName(StrEnum):
    """Where the work is done."""

    ray = "ray"
    local = "local"


Out = Annotated[
    str, typer.Option("--out", help="Folder or s3:// location for avatars, manifest and report.")
]
ConfigFile = Annotated[
    str | None, typer.Option("--config", "-c", help="YAML file; the embedded profile if absent.")
]
Overrides = Annotated[
    list[str] | None, typer.Option("--set", help="section.option=value; may be repeated.")
]
Runner = Annotated[
    RunnerName | None,
    typer.Option("--runner", help="ray: worker processes; local: this process, for debugging."),
]
Inputs = Annotated[
    list[str],
    typer.Argument(
        metavar="INPUTS...",
        help="Image files, folders, globs, s3:// prefixes, CSV or Parquet tables with a column uri",
    ),
]
OutArgument = Annotated[str, typer.Argument(metavar="OUT", help="Output location of earlier runs.")]


def run(
    inputs: Inputs,
    out: Out,
    config: ConfigFile = None,
    overrides: Overrides = None,
    runner: Runner = None,
) -> None:
    """Make an avatar of every portrait. The same command again continues where it stopped.

    Exit codes: 0 all rows succeeded, 3 some portraits failed, 2 usage or configuration error,
    1 the run itself failed or was interrupted.
    """
    with exit_codes():
        from fc4d_ray.pipeline.run import run as run_pipeline

        loaded = _load(config, overrides, runner)
        summary = run_pipeline(inputs, out, loaded, say=notice)
    _conclude(summary)


def demo(
    out: Out = "out/demo",
    config: ConfigFile = None,
    overrides: Overrides = None,
    runner: Runner = None,
) -> None:
    """Make an avatar of a well-known portrait and say where to look at it."""
    with exit_codes():
        from fc4d_ray.pipeline.demo import place_demo_portrait
        from fc4d_ray.pipeline.run import run as run_pipeline

        loaded = _load(config, overrides, runner)
        summary = run_pipeline([place_demo_portrait(out)], out, loaded, say=notice)
    _conclude(summary)


def status(
    out: OutArgument,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Tell what is done, failed and left, also while a run goes on."""
    with exit_codes():
        from fc4d_ray.pipeline.status import read_status

        found = read_status(out)
    if as_json:
        import json

        say(json.dumps(found, indent=2, sort_keys=True))
    else:
        _print_status(found)


def retry(
    out: OutArgument,
    stage: Annotated[
        str | None, typer.Option("--stage", help="Only failures in this stage.")
    ] = None,
    error: Annotated[
        str | None, typer.Option("--error", help="Only failures of this error type.")
    ] = None,
) -> None:
    """Try the newest run's failed portraits again, with its inputs and configuration."""
    with exit_codes():
        from fc4d_ray.pipeline.run import run_again
        from fc4d_ray.pipeline.status import retry_failed

        opened = retry_failed(out, stage=stage, error=error)
        notice(f"failed portraits opened again: {opened}")
        summary = run_again(out, say=notice)
    _conclude(summary)


def _load(config: str | None, overrides: list[str] | None, runner: RunnerName | None) -> RunConfig:
    from fc4d_ray.config import load_config

    values: dict[str, Any] = {"run": {"runner": runner.value}} if runner else {}
    return load_config(config, overrides or (), values)


def _conclude(summary: RunSummary) -> None:
    """Say how the run ended, and exit accordingly."""
    from fc4d_ray.pipeline.report import format_duration

    counts = f"{summary.succeeded} succeeded, {summary.failed} failed"
    if summary.duplicates:
        counts += f", {summary.duplicates} duplicates"
    if summary.interrupted:
        counts += f", {summary.rows - summary.succeeded - summary.failed - summary.duplicates} left"
    say(f"{counts} in {format_duration(summary.seconds)}")
    for error_type, count in sorted(summary.failures.items(), key=lambda item: -item[1]):
        say(f"  {count} {error_type}")
    for avatar in summary.avatars:
        say(f"avatar    {avatar}")
        for name in ("sheet.png", "turntable.mp4", "expressions.mp4"):
            if "://" not in avatar and (Path(avatar) / name).is_file():
                say(f"          {avatar}/{name}")
    say(f"report    {summary.output}/report.html")
    say(f"manifest  {summary.output}/manifest")
    raise typer.Exit(summary.exit_code)


def _print_status(found: dict[str, Any]) -> None:
    say(
        f"{found['portraits']} portraits: {found['succeeded']} succeeded, "
        f"{found['failed']} failed, {found['duplicates']} duplicates; "
        f"{found['pending']} left of the newest run"
    )
    for error_type, count in sorted(found["failures"].items(), key=lambda item: -item[1]):
        say(f"  {count} {error_type}")
    latest = found["latest_run"]
    if latest is None:
        return
    say(f"newest run {latest['run_id']}: {_state(latest)}, {latest['rows']} rows")
    progress = latest["progress"]
    if progress is None:
        return
    for name in latest["stages"]:
        stage = progress["stages"][name]
        mean = stage["seconds_mean"]
        seconds = f"  {mean:8.1f} s each" if mean is not None else ""
        hours = f"  {stage['gpu_hours']:8.2f} GPU-hours" if stage["gpu_hours"] else ""
        say(f"  {name:<10}{stage['done']:>6} done {stage['in_flight']:>4} at work{seconds}{hours}")
    say("  " + ", ".join(_rates(progress, is_over=latest["end"] is not None)))


def _state(run: dict[str, Any]) -> str:
    """The run's state, and what a silent one means."""
    if run["state"] != "silent":
        return str(run["state"])
    from fc4d_ray.pipeline.report import format_duration

    silence = format_duration(run["silent_s"])
    return f"no sign of life for {silence} (driver on {run['host']} dead? the same command goes on)"


def _rates(progress: dict[str, Any], *, is_over: bool) -> list[str]:
    from fc4d_ray.pipeline.report import format_duration

    parts = [f"{progress['portraits_per_hour']:g} portraits an hour"]
    if progress["achieved_of_ideal"] is not None:
        parts.append(f"{progress['achieved_of_ideal']:.0%} of what the workers could do")
    if not is_over and progress["remaining_s"] is not None:
        parts.append(f"about {format_duration(progress['remaining_s'])} left")
    return parts
