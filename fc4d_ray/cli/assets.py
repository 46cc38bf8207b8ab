"""``fc4d assets`` and ``fc4d doctor``: what this machine has and can do."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fc4d_ray.cli.console import EXIT_RUN_FAILED, exit_codes, say

app = typer.Typer(help="Model files: what they are, whether they are here.", no_args_is_help=True)

import_app = typer.Typer(help="Check model files of yours and store them.", no_args_is_help=True)
app.add_typer(import_app, name="import")

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]

_MARKS = {"ok": "ok     ", "missing": "missing", "note": "note   "}


@app.command("list")
def list_command(as_json: AsJson = False) -> None:
    """List every model file the profiles use, with its licence and whether it is present."""
    with exit_codes():
        from fc4d_ray.assets.registry import list_assets

        states = list_assets()
    if as_json:
        import json

        say(json.dumps([state.to_json() for state in states], indent=2, sort_keys=True))
        return
    for state in states:
        asset = state.asset
        mark = "present" if state.is_present else "absent "
        profiles = ", ".join(asset.needed_by) or "nothing"
        say(f"{mark}  {asset.key:<28} {asset.title}")
        size = f"{asset.size_mb:g} MB" if asset.size_mb else "size not stated"
        digests = [file.sha256[:16] for file in asset.files if file.sha256]
        say(f"         for {profiles} ({asset.need}); {size}; licence: {asset.licence}")
        say(f"         sha256 {', '.join(digests) or 'of the release not known'}")
        if not state.is_present:
            say(f"         from {asset.source}")


@app.command()
def verify(
    keys: Annotated[
        list[str] | None, typer.Argument(metavar="[KEY]...", help="Assets; all if absent.")
    ] = None,
) -> None:
    """Compare the model files that are present with the digests of their releases."""
    with exit_codes():
        from fc4d_ray.assets.registry import list_assets, verify_asset

        chosen = keys or [state.asset.key for state in list_assets()]
        checks = [check for key in chosen for check in verify_asset(key)]
    for check in checks:
        verdict = {True: "as released", False: "DIFFERS from the release", None: "no known digest"}
        say(f"{check.asset.key:<28} {check.path.name:<44} {verdict[check.is_as_released]}")
        say(f"{'':<28} sha256 {check.sha256}")
    if not checks:
        say("none of these files is present")
    if any(check.is_as_released is False for check in checks):
        raise typer.Exit(EXIT_RUN_FAILED)


@app.command("make-tiny")
def make_tiny_command(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="A new or empty folder.")],
    seed: Annotated[int, typer.Option("--seed", help="Seed of the random weights.")] = 0,
) -> None:
    """Write tiny random networks in the released formats, to try the paper profile without any."""
    with exit_codes():
        from fc4d_ray.assets.tiny import make_tiny_assets

        written = make_tiny_assets(directory, seed)
    for path in written:
        say(str(path))
    say(f"use them with: FC4D_ASSETS={directory} fc4d run PORTRAIT --config tiny --out OUT")


@import_app.command("flame")
def import_flame_command(
    source: Annotated[
        Path, typer.Argument(metavar="PATH", help="Model file, or a folder with side files.")
    ],
    edition: Annotated[
        str | None, typer.Option("--edition", help="flame2020, flame2023 or flame2023-open.")
    ] = None,
    landmarks: Annotated[
        Path | None, typer.Option("--landmarks", help="Landmark embedding (.npy or .npz).")
    ] = None,
    masks: Annotated[Path | None, typer.Option("--masks", help="FLAME_masks.pkl.")] = None,
) -> None:
    """Check FLAME's files, executing nothing in them, and store them as one plain npz."""
    with exit_codes():
        from fc4d_ray.heads.flame_files import import_flame

        report = import_flame(source, edition=edition, landmarks=landmarks, masks=masks)
    say(f"{report.edition}  {report.path}")
    say(f"sha256 of its arrays {report.digest}")
    if not report.has_landmarks:
        say("without a landmark embedding: tracking needs one (--landmarks)")
    if not report.has_masks:
        say("without region masks: hair and skin are not told apart (--masks)")


@import_app.command("panohead")
def import_panohead_command(
    source: Annotated[Path, typer.Argument(metavar="PATH", help="A released .pkl file.")],
) -> None:
    """Convert a PanoHead checkpoint, executing nothing in it, to plain tensors and settings."""
    with exit_codes():
        from fc4d_ray.assets.registry import assets_directory
        from fc4d_ray.priors.shape.panohead.checkpoint import import_released

        written = import_released(source, assets_directory() / "panohead")
    say(str(written))


@import_app.command("liveportrait")
def import_liveportrait_command(
    source: Annotated[Path, typer.Argument(metavar="PATH", help="Folder of the download.")],
) -> None:
    """Check LivePortrait's five files, executing nothing in them, and store them."""
    with exit_codes():
        from fc4d_ray.priors.video.liveportrait.importing import import_liveportrait

        written = import_liveportrait(source)
    for path in written:
        say(str(path))


def doctor(as_json: AsJson = False) -> None:
    """Find out what this machine can run, and what is missing for the rest."""
    with exit_codes():
        from fc4d_ray.doctor import diagnose

        diagnosis = diagnose()
    if as_json:
        import json

        say(json.dumps(diagnosis.to_json(), indent=2, sort_keys=True))
    else:
        for finding in diagnosis.findings:
            say(f"{_MARKS[finding.verdict]}  {finding.topic:<14} {finding.text}")
        for profile, obstacles in diagnosis.obstacles.items():
            say(f"profile {profile}: {'can run here' if not obstacles else 'cannot run here'}")
            for obstacle in obstacles:
                say(f"  - {obstacle}")
    if not diagnosis.can_run("embedded"):
        raise typer.Exit(EXIT_RUN_FAILED)
