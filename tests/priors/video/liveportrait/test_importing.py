"""Importing checks before it copies."""

from __future__ import annotations

from pathlib import Path

import pytest

from fc4d_ray.assets.registry import inspect_asset
from fc4d_ray.assets.tiny_liveportrait import write_tiny_liveportrait
from fc4d_ray.errors import ConfigError, StoreError, WeightsMissing
from fc4d_ray.priors.video.liveportrait.importing import import_liveportrait


@pytest.mark.parametrize("named", ["", "pretrained_weights", "pretrained_weights/liveportrait"])
def test_a_download_is_found_checked_and_copied(tmp_path: Path, named: str) -> None:
    download = tmp_path / "download"
    files = write_tiny_liveportrait(download / "pretrained_weights" / "liveportrait")
    assets = tmp_path / "assets"
    written = import_liveportrait(download / named, assets)
    assert [path.read_bytes() for path in written] == [path.read_bytes() for path in files]
    assert inspect_asset("liveportrait", assets).is_present
    # Once more, and in place: nothing changes, nothing is lost.
    assert import_liveportrait(assets, assets) == written
    assert all(path.stat().st_size for path in written)
    assert not list(assets.rglob(".*.*"))


def test_a_damaged_download_leaves_nothing(tmp_path: Path) -> None:
    files = write_tiny_liveportrait(tmp_path / "download" / "liveportrait")
    files[3].write_bytes(files[3].read_bytes()[:1000])
    with pytest.raises(WeightsMissing, match=r"spade_generator\.pth is cut short"):
        import_liveportrait(tmp_path / "download", tmp_path / "assets")
    files[3].unlink()
    with pytest.raises(WeightsMissing, match=r"lacks base_models/spade_generator\.pth"):
        import_liveportrait(tmp_path / "download", tmp_path / "assets")
    assert not (tmp_path / "assets").exists()


def test_impossible_places(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="does not exist"):
        import_liveportrait(tmp_path / "absent", tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(WeightsMissing, match="lacks base_models"):
        import_liveportrait(tmp_path / "empty", tmp_path / "assets")
    write_tiny_liveportrait(tmp_path / "release")
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StoreError, match="cannot copy"):
        import_liveportrait(tmp_path / "release", tmp_path / "file")
