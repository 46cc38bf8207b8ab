"""README's commands, blocks and names, held against the code."""

from __future__ import annotations

import contextlib
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from PIL import Image
from skimage.data import astronaut
from typer.testing import CliRunner

from fc4d_ray import errors
from fc4d_ray.assets.catalogue import CATALOGUE
from fc4d_ray.cli import app
from fc4d_ray.config import load_config
from fc4d_ray.priors.video.motion import shipped_clip_names
from fc4d_ray.store import read_manifest
from fc4d_ray.store.manifest import STAGES, manifest_schema

REPOSITORY = Path(__file__).resolve().parents[1]
README = (REPOSITORY / "README.md").read_text(encoding="utf-8")
TINY = REPOSITORY / "tests" / "data" / "tiny.yaml"
NOT_RUN_HERE = {"make demo", "make test", ". .venv/bin/activate"}
"""``.ci/run`` runs the first two in full."""


def blocks(language: str) -> list[str]:
    """Fenced code blocks of a language, in order."""
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)


def shell_commands() -> list[list[str]]:
    """README's ``fc4d`` commands, in order."""
    lines = [line for block in blocks("sh") for line in block.splitlines() if line.strip()]
    return [shlex.split(line) for line in lines if line not in NOT_RUN_HERE]


def options(values: dict[str, Any], prefix: str = "") -> Iterator[str]:
    """Nested values as ``a.b=c``."""
    for name, value in values.items():
        if isinstance(value, dict):
            yield from options(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}={yaml.safe_dump(value, default_flow_style=True).strip()}"


def fast(arguments: list[str]) -> list[str]:
    """The same command, small: README's own options are read, then replaced by tiny ones."""
    if arguments[0] in ("run", "demo"):
        tiny = [o.replace("\n...", "") for o in options(yaml.safe_load(TINY.read_text()))]
        return [*arguments, *(part for o in tiny for part in ("--set", o)), "--runner", "local"]
    extra = {"render": ["--size", "48"], "eval": ["--runner", "local"]}
    return [*arguments, *extra.get(arguments[0], [])]


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the inputs README speaks of, and the demo's output."""
    folder = tmp_path_factory.mktemp("readme")
    for name in ("portraits/ann.jpg", "photos/ann.jpg", "photos/group.jpg"):
        (folder / name).parent.mkdir(exist_ok=True)
        Image.fromarray(astronaut()).save(folder / name, quality=95)
    (table,) = blocks("csv")
    (folder / "people.csv").write_text(table)
    (configuration,) = blocks("yaml")
    (folder / configuration.split()[1]).write_text(configuration)
    return folder


@pytest.mark.slow
def test_every_command_works(workplace: Path) -> None:
    with contextlib.chdir(workplace):
        for command in [["fc4d", "demo"], *shell_commands()]:
            assert command[0] == "fc4d", command
            result = CliRunner().invoke(app, fast(command[1:]))
            if result.exception and not isinstance(result.exception, SystemExit):
                raise result.exception
            assert result.exit_code == 0, (command, result.output)
        for block in blocks("python"):
            exec(compile(block, "README.md", "exec"), {})
    names = sorted(path.name for path in (workplace / "renders").glob("*.png"))
    assert names == sorted(set(re.findall(r"az[+-]\d{3}_el[+-]\d\d\.png", README)))
    assert (workplace / "renders" / "orbit.mp4").stat().st_size > 1000
    rows = read_manifest(str(workplace / "out" / "mine")).to_pylist()
    by_name = {"/".join(Path(row["source_uri"]).parts[-2:]): row for row in rows}
    assert {name: row["status"] for name, row in by_name.items()} == {
        "portraits/ann.jpg": "succeeded",
        "photos/ann.jpg": "duplicate",
        "photos/group.jpg": "succeeded",
    }
    assert by_name["photos/ann.jpg"]["licence"] == "CC-BY-4.0"
    group = by_name["photos/group.jpg"]
    assert group["consent"] == "public figure" and group["face_box"].startswith("[174")


def test_the_configuration_example_is_valid(workplace: Path) -> None:
    config = load_config(workplace / "mine.yaml")
    assert config.section("publish").config.clips == ("speech", "smile")


def test_every_manifest_column_is_explained() -> None:
    table = README[README.index("### The manifest") : README.index("### When something fails")]
    for name in manifest_schema().names:
        stage = name.removeprefix("seconds_")
        assert f"`{stage if stage in STAGES else name}`" in table, name


def test_every_named_error_and_clip_exists() -> None:
    section = README[README.index("### When something fails") : README.index("| exit code")]
    named = re.findall(r"`([A-Z]\w+)`", section)
    assert len(named) > 5
    for name in named:
        assert issubclass(getattr(errors, name), errors.FC4DError)
    assert ", ".join(f"`{name}`" for name in shipped_clip_names()) in " ".join(README.split())


def test_links_and_verifying_tests_exist() -> None:
    targets = [t for t in re.findall(r"\]\(([^)#]+)\)", README) if "://" not in t]
    named = re.findall(r"`((?:benchmarks|tests|docs|jobs|\.ci)/[\w./]+)`", README)
    assert len(targets) > 5 and len(named) > 10
    for target in [*targets, *named]:
        assert (REPOSITORY / target).exists(), target
    assert (REPOSITORY / "docs" / "images" / "demo_sheet.jpg").stat().st_size < 500_000


def test_the_licence_page_lists_every_model_file() -> None:
    page = (REPOSITORY / "docs" / "licences.md").read_text(encoding="utf-8")
    for asset in CATALOGUE:
        assert f"`{asset.key}`" in page, asset.key
