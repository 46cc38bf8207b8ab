from __future__ import annotations

from pathlib import Path

import pytest

from fc4d_ray.assets import prepare


def test_builds_once_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "head.npz"
    built: list[str] = []

    def build() -> None:
        built.append("head")
        target.write_bytes(b"x")

    monkeypatch.setattr(prepare, "cache_path", lambda: target)
    monkeypatch.setattr(prepare, "load_anny_head", build)
    said: list[str] = []
    assert prepare.prepare_caches(said.append) == [target]
    assert prepare.prepare_caches(said.append) == [target]
    assert built == ["head"] and len(said) == 1 and str(target) in said[0]
