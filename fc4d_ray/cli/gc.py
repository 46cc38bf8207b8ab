"""``fc4d gc``."""

from __future__ import annotations

from typing import Annotated

import typer

from fc4d_ray.cli.console import exit_codes, say
from fc4d_ray.store.retention import Keep


def gc(
    out: Annotated[str, typer.Argument(metavar="OUT", help="Output location of earlier runs.")],
    keep: Annotated[
        Keep, typer.Option("--keep", help="What of finished avatars stays.")
    ] = Keep.all,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only tell.")] = False,
    even_if_running: Annotated[
        bool, typer.Option("--even-if-running", help="Also where a run seems to be at work.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Delete what killed processes left behind, and with --keep finished avatars' intermediates.

    Files of a finished stage that are deleted are made again where a later run needs them.
    """
    with exit_codes():
        from fc4d_ray.pipeline.garbage import collect_garbage, describe

        collected = collect_garbage(
            out, keep=keep, dry_run=dry_run, even_if_running=even_if_running
        )
    if as_json:
        import json

        say(json.dumps(collected.to_json(), indent=2, sort_keys=True))
        return
    for line in describe(collected, dry_run=dry_run):
        say(line)
