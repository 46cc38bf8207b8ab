"""Released pickles: read, converted, refused."""

from __future__ import annotations

import json
import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from fc4d_ray.assets.registry import inspect_asset
from fc4d_ray.assets.tiny_panohead import TINY, write_tiny_panohead
from fc4d_ray.cli import app
from fc4d_ray.errors import UnsafePickle, WeightsMissing
from fc4d_ray.priors.shape.panohead.checkpoint import (
    SETTINGS_FILE,
    WEIGHTS_FILE,
    import_released,
    load_generator,
    read_released,
)
from fc4d_ray.priors.shape.panohead.labels import orbit_label


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    return write_tiny_panohead(tmp_path / "tiny.pkl", seed=3)


def test_the_kits_file_in_the_released_format(kit: Path) -> None:
    keys = json.loads((kit / "keys_tiny.json").read_text())
    released = read_released(kit / "tiny_released_format.pkl")
    assert list(released.tensors) == [key["name"] for key in keys]
    assert [list(t.shape) for t in released.tensors.values()] == [k["shape"] for k in keys]
    settings = released.settings
    assert (settings.z_size, settings.trigrid_size, settings.neural_size) == (8, 16, 4)
    assert settings.superresolution_channels == (8, 8)
    assert settings.superresolution_clamp == 256.0 and settings.conv_clamp is None


def test_the_averaged_generator_is_taken(kit: Path, fill) -> None:
    """``G_ema`` holds the kit's fill values, ``G`` others."""
    released = read_released(kit / "tiny_released_format.pkl")
    keys = json.loads((kit / "keys_tiny.json").read_text())
    for key in (key for key in keys if key["rule"]):
        expected = fill(key["name"], tuple(key["shape"]), 0, key["rule"])
        np.testing.assert_array_equal(released.tensors[key["name"]], expected, key["name"])


def test_imported_files_render_like_the_original(tiny: Path, tmp_path: Path) -> None:
    weights = import_released(tiny, tmp_path / "imported")
    assert sorted(p.name for p in weights.parent.iterdir()) == [SETTINGS_FILE, WEIGHTS_FILE]
    generator = load_generator(weights)
    assert generator.settings == TINY
    assert not any(p.requires_grad for p in generator.parameters())
    released = read_released(tiny)
    for name, value in generator.state_dict().items():
        assert torch.equal(value, released.tensors[name]), name
    with torch.no_grad():
        label = torch.from_numpy(orbit_label(0))[None]
        image, rendering = generator(torch.ones(1, TINY.z_size), label)
    assert image.shape == (1, 3, TINY.output_size, TINY.output_size)
    assert 0.05 < float(rendering.mask.mean()) < 0.999, "neither empty nor solid"
    assert float(image.std()) > 0.01


def test_a_tiny_file_is_the_same_for_the_same_seed(tmp_path: Path) -> None:
    one = write_tiny_panohead(tmp_path / "one.pkl", seed=1).read_bytes()
    assert write_tiny_panohead(tmp_path / "two.pkl", seed=1).read_bytes() == one
    assert write_tiny_panohead(tmp_path / "three.pkl", seed=2).read_bytes() != one


def test_the_embedded_source_is_never_executed(tmp_path: Path) -> None:
    trap = tmp_path / "executed"
    source = f"open({str(trap)!r}, 'w').close()"
    path = write_tiny_panohead(tmp_path / "trap.pkl", seed=0, module_source=source)
    assert source.encode() in path.read_bytes()
    read_released(path)
    assert not trap.exists()


class _Planted:
    def __init__(self, trap: Path) -> None:
        self.trap = trap

    def __reduce__(self):
        return os.system, (f"touch {self.trap}",)


@pytest.mark.parametrize("place", ["G_ema", "D", "training_set_kwargs"])
def test_a_hostile_pickle_is_refused_without_execution(tmp_path: Path, place: str) -> None:
    trap = tmp_path / "executed"
    path = tmp_path / "hostile.pkl"
    path.write_bytes(pickle.dumps({"G_ema": None, place: _Planted(trap)}))
    with pytest.raises(UnsafePickle, match="system"):
        import_released(path, tmp_path / "out")
    assert not trap.exists() and not (tmp_path / "out").exists()


def test_other_files_are_refused_with_a_reason(tiny: Path, tmp_path: Path) -> None:
    with pytest.raises(WeightsMissing, match="no PanoHead checkpoint at"):
        read_released(tmp_path / "absent.pkl")
    other = tmp_path / "other.pkl"
    other.write_bytes(pickle.dumps({"weights": 1}))
    with pytest.raises(WeightsMissing, match="G_ema"):
        read_released(other)
    other.write_bytes(pickle.dumps({"G_ema": {"a": 1}}))
    with pytest.raises(UnsafePickle, match="something else than a module"):
        read_released(other)
    cut = tmp_path / "cut.pkl"
    cut.write_bytes(tiny.read_bytes()[:-1000])
    with pytest.raises(UnsafePickle, match="truncated"):
        read_released(cut)


def test_generators_of_another_kind_are_refused(tmp_path: Path) -> None:
    path = write_tiny_panohead(tmp_path / "b.pkl", rendering={"decoder_activation": "sigmoid"})
    with pytest.raises(WeightsMissing, match="decoder_activation"):
        read_released(path)


def test_the_values_in_force_win_over_the_constructors(tmp_path: Path) -> None:
    path = write_tiny_panohead(tmp_path / "b.pkl", rendering={"ray_start": 2.35})
    assert read_released(path).settings.rays.near == 2.35


def test_damaged_imports_are_refused(tiny: Path, tmp_path: Path) -> None:
    weights = import_released(tiny, tmp_path / "imported")
    description = weights.with_name(SETTINGS_FILE)
    values = json.loads(description.read_text())
    description.write_text(json.dumps(values | {"settings": values["settings"] | {"z_size": 9}}))
    with pytest.raises(WeightsMissing, match="does not fit its own settings"):
        load_generator(weights)
    description.write_text("{}")
    with pytest.raises(WeightsMissing, match="damaged"):
        load_generator(weights)
    description.unlink()
    with pytest.raises(WeightsMissing, match="assets import panohead"):
        load_generator(weights)
    description.write_text(json.dumps(values))
    weights.write_bytes(b"no weights")
    with pytest.raises(WeightsMissing, match="damaged"):
        load_generator(weights)


def test_the_command_imports_once_and_refuses_what_is_hostile(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FC4D_ASSETS", str(tmp_path / "assets"))
    assert not inspect_asset("panohead").is_present
    ended = CliRunner().invoke(app, ["assets", "import", "panohead", str(tiny)])
    assert ended.exit_code == 0, ended.output
    assert inspect_asset("panohead").is_present
    hostile = tmp_path / "hostile.pkl"
    hostile.write_bytes(pickle.dumps({"G_ema": _Planted(tmp_path / "executed")}))
    ended = CliRunner().invoke(app, ["assets", "import", "panohead", str(hostile)])
    assert ended.exit_code != 0
    assert not (tmp_path / "executed").exists()
