from __future__ import annotations

import importlib.metadata
from pathlib import Path

import pytest

from fc4d_ray.assets.catalogue import CATALOGUE
from fc4d_ray.assets.registry import (
    assets_directory,
    file_digest,
    inspect_asset,
    list_assets,
    missing_for,
    require_asset,
    verify_asset,
)
from fc4d_ray.errors import ConfigError, WeightsMissing
from fc4d_ray.stages import REGISTRY

LICENCES = Path(__file__).resolve().parents[2] / "docs" / "licences.md"


def test_catalogue_is_consistent() -> None:
    keys = [asset.key for asset in CATALOGUE]
    assert len(keys) == len(set(keys))
    stages = {entry.name for entry in REGISTRY}
    for asset in CATALOGUE:
        assert asset.files and asset.licence and asset.source and asset.needed_by, asset.key
        assert set(asset.alternatives) <= set(keys) - {asset.key}
        for profile, users in asset.needed_by.items():
            assert profile in ("embedded", "paper", "evaluation")
            assert profile == "evaluation" or set(users) <= stages, asset.key


def test_everything_the_embedded_profile_needs_is_installed_and_as_released() -> None:
    assert missing_for("embedded", Path("/nonexistent")) == []
    for key in ("dlib-landmarks", "dlib-face-detector", "dlib-descriptor"):
        (check,) = verify_asset(key)
        assert check.is_as_released is True


def test_user_files_are_found_where_they_are_put(tmp_path: Path) -> None:
    with pytest.raises(WeightsMissing) as missing:
        require_asset("panohead", tmp_path)
    for part in ("SizheAn/PanoHead", str(tmp_path), "non-commercial", "easy-khair"):
        assert part in str(missing.value)
    path = tmp_path / "clip-vit-large-patch14" / "model.safetensors"
    path.parent.mkdir()
    path.write_bytes(b"weights")
    assert require_asset("clip-vit-l-14", tmp_path) == (path,)
    (check,) = verify_asset("clip-vit-l-14", tmp_path)
    assert check.is_as_released is None and check.sha256 == file_digest(path)
    row = inspect_asset("clip-vit-l-14", tmp_path).to_json()
    assert row["present"] is True and row["files"] == [str(path)] and row["use"] == "conditions"


def test_half_an_asset_is_not_present(tmp_path: Path) -> None:
    (tmp_path / "CosmicMan-SD").mkdir()
    (tmp_path / "CosmicMan-SD" / "config.json").write_text("{}")
    state = inspect_asset("cosmicman-sd", tmp_path)
    assert not state.is_present and len(state.found) == 1
    assert state.missing[0].path.endswith(".safetensors")


def test_one_alternative_suffices(tmp_path: Path) -> None:
    def missing() -> set[str]:
        return {state.asset.key for state in missing_for("paper", tmp_path)}

    assert {"flame2020", "flame2023", "flame2023-open", "panohead"} <= missing()
    (tmp_path / "flame").mkdir()
    (tmp_path / "flame" / "flame2023.npz").write_bytes(b"x")
    assert not {"flame2020", "flame2023", "flame2023-open"} & missing()
    assert "cosmicman-sdxl" not in missing(), "optional assets are never missing"


def test_missing_package_is_reported_not_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> None:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "distribution", absent)
    assert not inspect_asset("anny").is_present
    with pytest.raises(WeightsMissing, match="pip install anny"):
        require_asset("anny")


def test_directory_follows_the_environment() -> None:
    assert assets_directory({"FC4D_ASSETS": "/models"}) == Path("/models")
    assert assets_directory({"XDG_DATA_HOME": "/data"}) == Path("/data/fc4d_ray/assets")
    with pytest.raises(ConfigError, match="no asset 'flam'.*flame2023"):
        inspect_asset("flam")


def test_licence_page_names_every_asset() -> None:
    text = LICENCES.read_text()
    for state in list_assets():
        assert state.asset.licence.split(";")[0].split(",")[0].split(":")[0] in text
        assert state.asset.key in text
