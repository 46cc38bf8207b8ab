"""Rendering all avatars of an output over a cluster: behind ``jobs/render.py``.

Every avatar's pictures go to ``<target>/<ab>/<avatar id>/``, with ``done.json`` last. The same
command again does what has none.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from fc4d_ray.config import RunSettings
from fc4d_ray.errors import ConfigError
from fc4d_ray.pipeline.scatter import scatter
from fc4d_ray.store.avatars import avatar_files
from fc4d_ray.store.digests import readable_json
from fc4d_ray.store.filesystem import Storage
from fc4d_ray.store.location import open_output
from fc4d_ray.store.manifest import read_manifest

DONE = "done.json"
VIDEO = "video.mp4"


@dataclass(frozen=True)
class Rendering:
    """What is rendered of every avatar; see ``playback.render_views``."""

    azimuths_deg: tuple[float, ...] = (0.0,)
    elevations_deg: tuple[float, ...] = (0.0,)
    fov_deg: float | None = None
    radius_m: float | None = None
    actions: Mapping[str, float] = field(default_factory=dict)
    clip: str | None = None
    size: int = 512
    rgba: bool = False
    video: bool = False
    """One ``video.mp4`` instead of images."""


@dataclass(frozen=True)
class RenderSummary:
    """How rendering an output ended."""

    avatars: int
    rendered: int
    done_before: int
    failures: Mapping[str, str]
    """Reason by avatar id."""

    @property
    def exit_code(self) -> int:
        """0 all rendered, 3 some failed."""
        return 3 if self.failures else 0


def render_output(
    output: str,
    target: str,
    rendering: Rendering,
    settings: RunSettings,
    *,
    say: Callable[[str], None] = lambda line: None,
) -> RenderSummary:
    """Render every finished avatar of ``output`` into ``target``.

    Raises ``StoreError`` where ``output`` is none of ours and ``ConfigError`` for options that fit
    no avatar, or a target inside of the output.
    """
    storage = open_output(output)
    place = target.rstrip("/") if "://" in target else str(Path(target).absolute())
    if f"{place}/".startswith(f"{storage.uri}/"):
        raise ConfigError(f"--out {target} lies inside of {storage.uri}: choose another place")
    rows = read_manifest(storage).select(["avatar_id", "status", "avatar_uri"]).to_pylist()
    avatars = {r["avatar_id"]: r["avatar_uri"] for r in rows if r["status"] == "succeeded"}
    views = Storage(place)
    left = [item for item in avatars.items() if not views.exists(f"{_folder(item[0])}/{DONE}")]
    say(f"{len(avatars)} avatars, {len(avatars) - len(left)} done before, {len(left)} to do")
    failures: dict[str, str] = {}
    for number, answer in enumerate(scatter(left, _Renderer(views, rendering), settings), 1):
        avatar_id = answer.piece[0]
        if answer.error_type:
            failures[avatar_id] = f"{answer.error_type}: {answer.error_message}"
            say(f"{avatar_id} failed: {failures[avatar_id]}")
        else:
            say(f"{avatar_id} rendered ({number} of {len(left)})")
    return RenderSummary(
        len(avatars), len(left) - len(failures), len(avatars) - len(left), failures
    )


def _folder(avatar_id: str) -> str:
    return f"{avatar_id[:2]}/{avatar_id}"


@dataclass(frozen=True)
class _Renderer:
    """Made in every worker process; renders one avatar per call."""

    target: Storage
    rendering: Rendering

    def __call__(self) -> Callable[[tuple[str, str]], int]:
        return self._render

    def _render(self, avatar: tuple[str, str]) -> int:
        from fc4d_ray.cameras import ORBIT_FOV_DEG, ORBIT_RADIUS_M
        from fc4d_ray.playback import render_views

        avatar_id, uri = avatar
        options: dict[str, Any] = asdict(self.rendering)
        is_video = options.pop("video")
        if options["fov_deg"] is None:
            options["fov_deg"] = ORBIT_FOV_DEG
        if options["radius_m"] is None:
            options["radius_m"] = ORBIT_RADIUS_M
        with avatar_files(uri) as files, tempfile.TemporaryDirectory(prefix="fc4d-") as folder:
            out = Path(folder)
            video = out / VIDEO if is_video else None
            written = render_views(files, out=out, video=video, **options)
            for path in written:
                name = path.relative_to(out).as_posix()
                self.target.upload(path, f"{_folder(avatar_id)}/{name}")
            names = [path.relative_to(out).as_posix() for path in written]
        record = {"avatar_uri": uri, "files": names, "options": asdict(self.rendering)}
        self.target.replace(f"{_folder(avatar_id)}/{DONE}", readable_json(record))
        return len(written)
