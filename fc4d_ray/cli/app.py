"""The command's top level."""

from __future__ import annotations

from typing import Annotated

import typer

from fc4d_ray.cli import assets, gc, manifest, rendering, runs
from fc4d_ray.cli.console import configure_logging, say

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
    version: Annotated[
        bool,
        typer.Option("--version", help="Print the version.", callback=_show_version, is_eager=True),
    ] = False,
) -> None:
    configure_logging(verbose)


app.command("run")(runs.run)
app.command("demo")(runs.demo)
app.command("status")(runs.status)
app.command("retry")(runs.retry)
app.command("gc")(gc.gc)
app.command("render")(rendering.render)
app.command("doctor")(assets.doctor)
app.add_typer(manifest.app, name="manifest")
app.add_typer(assets.app, name="assets")
