"""``fc4d render``, and ``jobs/render.py`` for all avatars of an output."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fc4d_ray.cli.console import exit_codes, notice, say
from fc4d_ray.errors import ConfigError

_MANY_FILES = 12

Azimuth = Annotated[
    str, typer.Option("--azimuth", help="Degrees, comma-separated; positive towards +x.")
]
Elevation = Annotated[
    str, typer.Option("--elevation", help="Degrees, comma-separated; positive = from above.")
]
Fov = Annotated[float | None, typer.Option("--fov", help="Field of view in degrees.")]
Radius = Annotated[
    float | None, typer.Option("--radius", help="Distance from the head's centre in metres.")
]
Action = Annotated[
    list[str] | None,
    typer.Option("--action", help="ARKit action and weight, jawOpen=1; may be repeated."),
]
Size = Annotated[int, typer.Option("--size", help="Side in pixels.")]
Rgba = Annotated[bool, typer.Option("--rgba", help="Keep alpha instead of white.")]


def render(
    avatar: Annotated[
        str,
        typer.Argument(metavar="AVATAR_DIR", help="An avatar's folder, or an OUT with only one."),
    ],
    azimuth: Azimuth = "0",
    elevation: Elevation = "0",
    fov: Fov = None,
    radius: Radius = None,
    action: Action = None,
    clip: Annotated[
        str | None, typer.Option("--clip", help="Shipped motion clip, or a Live Link Face CSV.")
    ] = None,
    size: Size = 512,
    out: Annotated[Path, typer.Option("--out", help="Folder for the images.")] = Path("renders"),
    rgba: Rgba = False,
    video: Annotated[
        Path | None, typer.Option("--video", help="Write a video instead of images.")
    ] = None,
) -> None:
    """Render an avatar from any side, with any expression or motion clip."""
    with exit_codes():
        azimuths, elevations = _angles("azimuth", azimuth), _angles("elevation", elevation)
        actions = dict(_action(text) for text in action or ())

        from fc4d_ray.cameras import ORBIT_FOV_DEG, ORBIT_RADIUS_M
        from fc4d_ray.playback import render_views
        from fc4d_ray.store.avatars import avatar_files

        with avatar_files(avatar) as folder:
            written = render_views(
                folder,
                azimuths_deg=azimuths,
                elevations_deg=elevations,
                fov_deg=ORBIT_FOV_DEG if fov is None else fov,
                radius_m=ORBIT_RADIUS_M if radius is None else radius,
                actions=actions,
                clip=clip,
                size=size,
                out=out,
                rgba=rgba,
                video=video,
            )
    for path in written[:_MANY_FILES]:
        say(str(path))
    if len(written) > _MANY_FILES:
        say(f"… {len(written)} images in {out}")


def render_all(
    output: Annotated[str, typer.Argument(metavar="OUT", help="Output location of earlier runs.")],
    out: Annotated[str, typer.Option("--out", help="Folder or s3:// location for the views.")],
    azimuth: Azimuth = "0",
    elevation: Elevation = "0",
    fov: Fov = None,
    radius: Radius = None,
    action: Action = None,
    clip: Annotated[str | None, typer.Option("--clip", help="Shipped motion clip.")] = None,
    size: Size = 512,
    rgba: Rgba = False,
    video: Annotated[bool, typer.Option("--video", help="A video instead of images.")] = False,
    workers: Annotated[
        int, typer.Option("--workers", help="Avatars at a time; 0 chooses from the cores.")
    ] = 0,
) -> None:
    """Render every avatar of an output; the same command again continues.

    Exit codes: 0 all rendered, 3 some failed, 2 usage error, 1 the run itself failed.
    """
    with exit_codes():
        from fc4d_ray.config import RunSettings
        from fc4d_ray.pipeline.render_job import Rendering, render_output

        rendering = Rendering(
            azimuths_deg=_angles("azimuth", azimuth),
            elevations_deg=_angles("elevation", elevation),
            fov_deg=fov,
            radius_m=radius,
            actions=dict(_action(text) for text in action or ()),
            clip=clip,
            size=size,
            rgba=rgba,
            video=video,
        )
        settings = RunSettings(workers=workers)
        summary = render_output(output, out, rendering, settings, say=notice)
    say(f"{summary.rendered} rendered, {len(summary.failures)} failed in {out}")
    raise typer.Exit(summary.exit_code)


def _angles(option: str, text: str) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError as error:
        raise ConfigError(f"--{option} must be degrees like 0,30,-30, found {text!r}") from error


def _action(text: str) -> tuple[str, float]:
    name, separator, weight = text.partition("=")
    try:
        return name.strip(), float(weight) if separator else 1.0
    except ValueError as error:
        raise ConfigError(f"--action must be like jawOpen=1, found {text!r}") from error
