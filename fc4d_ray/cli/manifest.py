"""``fc4d manifest``."""

from __future__ import annotations

from typing import Annotated

import typer

from fc4d_ray.cli.console import exit_codes, say

app = typer.Typer(help="The table of an output's portraits.", no_args_is_help=True)


@app.callback()
def _main() -> None:
    """Keeps ``rebuild`` a subcommand of its own."""


@app.command()
def rebuild(
    out: Annotated[str, typer.Argument(metavar="OUT", help="Output location of earlier runs.")],
) -> None:
    """Derive the manifest and the report anew from the records."""
    with exit_codes():
        from fc4d_ray.pipeline.report import write_report
        from fc4d_ray.store.location import open_output
        from fc4d_ray.store.manifest import ManifestCommitter

        storage = open_output(out)
        table = ManifestCommitter(storage).rebuild()
        write_report(storage, table)
        say(f"{table.num_rows} rows in {storage.uri_of('manifest')}")
