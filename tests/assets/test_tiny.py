from __future__ import annotations

from pathlib import Path

import pytest

from fc4d_ray.assets.registry import list_assets
from fc4d_ray.assets.tiny import TINY_ASSETS, make_tiny_assets
from fc4d_ray.errors import ConfigError


def test_the_folder_has_what_the_catalogue_names(tmp_path: Path) -> None:
    written = make_tiny_assets(tmp_path / "tiny")
    present = {state.asset.key for state in list_assets(tmp_path / "tiny") if state.is_present}
    assert set(TINY_ASSETS) <= present
    assert all(path.is_file() and path.stat().st_size for path in written)
    assert make_tiny_assets(tmp_path / "tiny") == written, "its own folder is renewed"


def test_other_folders_are_left_alone(tmp_path: Path) -> None:
    real = tmp_path / "panohead"
    real.mkdir()
    (real / "easy-khair-180-gpc0.8-trans10-025000.pkl").write_bytes(b"real weights")
    with pytest.raises(ConfigError, match="not empty"):
        make_tiny_assets(tmp_path)
    assert len(list(real.iterdir())) == 1 and len(list(tmp_path.iterdir())) == 1
    (tmp_path / "file").write_text("-")
    with pytest.raises(ConfigError, match="is a file"):
        make_tiny_assets(tmp_path / "file")
