from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from fc4d_ray.config import load_config, parse_config
from fc4d_ray.config_source import profile_names
from fc4d_ray.errors import ConfigError
from fc4d_ray.stages import REGISTRY, load


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "my.yaml"
    path.write_text(text)
    return path


def message(path: Path | None, *overrides: str) -> str:
    with pytest.raises(ConfigError) as caught:
        load_config(path, overrides)
    return str(caught.value)


def test_every_shipped_profile_is_valid() -> None:
    assert "embedded" in profile_names()
    for name in profile_names():
        config = load_config(name)
        assert config.stage_names == tuple(entry.name for entry in REGISTRY)


def test_every_registered_stage_and_config_exists() -> None:
    for entry in REGISTRY:
        for variant in entry.variants.values():
            assert load(variant.stage).name == entry.name
            assert "__pydantic_config__" in vars(load(variant.config))


def test_the_resolved_configuration_reproduces_itself() -> None:
    config = load_config(None, ["train.coin_steps=7", "ingest.faces=single", "run.seed=3"])
    again = parse_config(config.to_yaml())
    assert again == config and again.digest == config.digest


def test_a_file_lies_over_the_embedded_profile(tmp_path: Path) -> None:
    embedded = load_config()
    mine = load_config(write(tmp_path, "train:\n  coin_steps: 5\n"))
    assert mine.section("train").config.coin_steps == 5
    assert mine.section("train").config.sh_degree == embedded.section("train").config.sh_degree
    bare = load_config(write(tmp_path, "base: none\n"))
    assert bare.section("train").config == load(REGISTRY[5].variants[""].config)()


def test_bases_may_be_files_beside_the_file(tmp_path: Path) -> None:
    (tmp_path / "team.yaml").write_text("ingest:\n  faces: single\n")
    mine = load_config(write(tmp_path, "base: team.yaml\nrun: {seed: 9}\n"))
    assert mine.section("ingest").config.faces == "single" and mine.run.seed == 9


def test_only_results_enter_the_digest() -> None:
    digest = load_config().digest
    assert load_config(None, ["run.workers=7", "run.runner=local"]).digest == digest
    assert load_config(None, ["run.seed=1"]).digest != digest
    assert load_config(None, ["train.coin_steps=1"]).digest != digest


def test_sections_have_digests_of_their_own() -> None:
    before, after = load_config(), load_config(None, ["train.coin_steps=1"])
    changed = [
        name
        for name in before.stage_names
        if before.section(name).digest != after.section(name).digest
    ]
    assert changed == ["train"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("ingest:\n  face: single\n", "line 2: there is no option ingest.face; did you mean 'fac"),
        ("ingest:\n\n  crop_size: big\n", "line 3: ingest.crop_size: Input should be a valid inte"),
        ("ingest:\n  crop_size: 1\n", "line 2: ingest.crop_size must be between 64 and 4096, fo"),
        ("train:\n  coin:\n    hiden_size: 3\n", "line 3: there is no option train.coin.hiden_s"),
        ("trian: {}\n", "line 1: there is no section 'trian'; did you mean 'train'?"),
        (
            "shape: {name: panohed}\n",
            "line 1: shape.name must be one of anny, panohead",
        ),
        ("ingest: 3\n", "line 1: ingest must be a section with options, found 3"),
        ("run: {seed: 1, seed: 2}\n", "line 1: run.seed is given twice"),
        ("a: [\n", "is not valid YAML"),
        ("- 1\n", "must hold sections"),
        ("base: nothing.yaml\n", "cannot read the configuration"),
        ("registry: nowhere:THING\n", "line 1: registry 'nowhere:THING' cannot be loaded"),
    ],
)
def test_mistakes_are_reported_with_their_place(tmp_path: Path, text: str, expected: str) -> None:
    path = write(tmp_path, text)
    found = message(path)
    assert expected in found
    assert str(path) in found or "nothing.yaml" in found


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("ingest.crop_size=big", "--set ingest.crop_size=big: ingest.crop_size"),
        ("ingest.crop_size", "expected section.option=value"),
        ("run.workers=-1", "--set run.workers=-1: run.workers must be 0 or more"),
        ("shpae.x=1", "--set shpae.x=1: there is no section 'shpae'; did you mean 'shape'?"),
        ("run.seed.x=1", "must be a section with options"),
        ("ingest.faces=[", "the value is not valid YAML"),
    ],
)
def test_wrong_overrides_are_reported(override: str, expected: str) -> None:
    assert expected in message(None, override) or "run.seed" in message(None, override)


def test_importing_the_command_is_quick_and_loads_nothing_heavy() -> None:
    code = (
        "import sys, time; import fc4d_ray.cli, fc4d_ray.config; print(time.process_time()); "
        "print([m for m in ('torch', 'ray', 'numpy', 'pyarrow', 'cv2', 'pydantic', 'fsspec') "
        "if m in sys.modules])"
    )
    seconds = []
    for _ in range(3):
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True
        )
        cpu_seconds, heavy = done.stdout.splitlines()
        assert heavy == "[]"
        seconds.append(float(cpu_seconds))
    assert min(seconds) < 0.5, "CPU seconds, the interpreter's own start included"
