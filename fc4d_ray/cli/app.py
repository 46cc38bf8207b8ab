"""The command's top level."""

from __future__ import annotations

import os
from typing import Annotated

import typer

from fc4d_ray.cli import (
    assets,
    datasets,
    driving,
    evaluation,
    gc,
    manifest,
    planning,
    rendering,
    runs,
)
from fc4d_ray.cli.console import LogFormatName, say
from fc4d_ray.logs import ENVIRONMENT_VARIABLE, configure_logging

app = typer.Typer(
    name="fc4d",
    help="Portraits in, animatable 4D head avatars out.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


def _show_version(wanted: bool) -> None:
    if wanted:
        from fc4d_ray import __version__

        say(f"fc4d {__version__}")
        raise typer.Exit


@app.callback()
def _main(
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Log what happens, to stderr.")
    ] = False,
    log_format: Annotated[
        LogFormatName,
        typer.Option(
            "--log-format", envvar=ENVIRONMENT_VARIABLE, help="json: an object per line, on stderr."
        ),
    ] = LogFormatName.text,
    version: Annotated[
        bool,
        typer.Option("--version", help="Print the version.", callback=_show_version, is_eager=True),
    ] = False,
) -> None:
    configure_logging(verbose, log_format.value)
    os.environ[ENVIRONMENT_VARIABLE] = log_format.value  # workers of our own cluster inherit it


app.command("run")(runs.run)
app.command("demo")(runs.demo)
app.command("plan")(planning.plan)
app.command("status")(runs.status)
app.command("retry")(runs.retry)
app.command("gc")(gc.gc)
app.command("render")(rendering.render)
app.command("drive")(driving.drive)
app.command("eval")(evaluation.evaluate)
app.command("baseline")(evaluation.baseline)
app.command("filter")(datasets.filter_manifest)
app.command("export")(datasets.export)
app.command("doctor")(assets.doctor)
app.add_typer(manifest.app, name="manifest")
app.add_typer(assets.app, name="assets")
