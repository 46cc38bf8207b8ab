"""Rendering all avatars of an output; the renderer itself is stood in for."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fc4d_ray import playback
from fc4d_ray.config import RunSettings, load_config
from fc4d_ray.errors import ConfigError, StoreError
from fc4d_ray.pipeline.render_job import Rendering, RenderSummary, render_output
from fc4d_ray.pipeline.run import run

LOCAL = RunSettings(runner="local")


@pytest.fixture
def out(portraits: Callable[..., Path], fake_config: Path, tmp_path: Path) -> Path:
    folder = portraits(ann="ann", bob="bob", eve="eve fail:train")
    run([str(folder)], str(tmp_path / "out"), load_config(fake_config, ["run.runner=local"]))
    for published in (tmp_path / "out").glob("avatars/*/*/publish/attempt-*"):
        (published / "rig.npz").touch()
    return tmp_path / "out"


@pytest.fixture
def rendered(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Folders of the avatars that were rendered."""
    folders: list[Path] = []

    def render_views(folder: Path, *, out: Path, video: Path | None, **options: Any) -> list[Path]:
        assert options["azimuths_deg"] == (0.0, 30.0) and options["fov_deg"] > 0
        folders.append(folder)
        path = video or out / "az+000_el+00.png"
        path.write_bytes(b"picture")
        return [path]

    monkeypatch.setattr(playback, "render_views", render_views)
    return folders


def render(out: Path, target: str, **changes: Any) -> RenderSummary:
    return render_output(str(out), target, Rendering((0.0, 30.0), **changes), LOCAL)


def test_every_avatar_is_rendered_once(out: Path, rendered: list[Path], tmp_path: Path) -> None:
    target = tmp_path / "views"
    assert render(out, str(target)) == RenderSummary(2, 2, 0, {})
    assert len(rendered) == 2
    documents = [json.loads(path.read_text()) for path in target.glob("*/*/done.json")]
    assert [document["files"] for document in documents] == [["az+000_el+00.png"]] * 2
    assert len(list(target.glob("*/*/*.png"))) == 2
    next(target.glob("*/*/done.json")).unlink()
    assert render(out, str(target)).rendered == 1, "what has no done.json is rendered again"
    assert render(out, "memory://views", video=True).rendered == 2


def test_an_avatar_that_cannot_be_rendered_is_told(
    out: Path, rendered: list[Path], tmp_path: Path
) -> None:
    broken = next(out.glob("avatars/*/*/publish/attempt-*/rig.npz"))
    broken.unlink()
    summary = render(out, str(tmp_path / "views"))
    assert summary.rendered == 1 and summary.exit_code == 3
    ((avatar_id, reason),) = summary.failures.items()
    assert avatar_id in str(broken) and reason.startswith("ConfigError")


def test_a_target_inside_of_the_output_is_refused(out: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="lies inside of"):
        render(out, str(out / "views"))
    with pytest.raises(StoreError, match="holds no output"):
        render(tmp_path / "nowhere", str(tmp_path / "views"))
