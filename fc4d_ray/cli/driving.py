"""``fc4d drive``: a driving clip from a video of a face."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fc4d_ray.cli.console import exit_codes, notice, say
from fc4d_ray.errors import ConfigError


def drive(
    video: Annotated[Path, typer.Argument(metavar="VIDEO", help="A video of one face.")],
    out: Annotated[
        Path,
        typer.Option("--out", help="Clip to write: .csv (Live Link Face) or .npz (FLAME, VHAP's)."),
    ],
    head: Annotated[
        str, typer.Option("--head", help="anny, or an imported FLAME edition for .npz.")
    ] = "anny",
    landmarks: Annotated[
        str, typer.Option("--landmarks", help="dlib, insightface, or an npz of landmarks.")
    ] = "dlib",
    fov: Annotated[float, typer.Option("--fov", help="Assumed field of view, degrees.")] = 30.0,
    neutral: Annotated[
        int | None, typer.Option("--neutral", help="Frame that shows the face at rest.")
    ] = None,
    overlay: Annotated[
        Path | None, typer.Option("--overlay", help="Also write a video of head over frames.")
    ] = None,
) -> None:
    """Track the face of a video and write its motion as a driving clip."""
    with exit_codes():
        if (out.suffix == ".csv") != (head == "anny") or out.suffix not in (".csv", ".npz"):
            raise ConfigError(
                f"--out {out.name}: --head anny writes .csv, a FLAME edition writes .npz"
            )
        if not video.is_file():
            raise ConfigError(f"there is no video {video}")

        from fc4d_ray.tracking.driving_command import extract_clip

        summary = extract_clip(
            video, out, head=head, landmarks=landmarks, fov_deg=fov, neutral_frame=neutral,
            overlay=overlay, progress=lambda fraction, message: notice(message),
        )  # fmt: skip
    say(f"{out}  {summary}")
