"""Finds the model files of the catalogue on this machine, and says what is missing.

User files lie in one folder, ``$FC4D_ASSETS`` or ``<user data>/fc4d_ray/assets``, under the paths
the catalogue gives; nothing is ever downloaded.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from fc4d_ray.assets.catalogue import CATALOGUE, Asset, AssetFile
from fc4d_ray.errors import ConfigError, WeightsMissing


@dataclass(frozen=True)
class AssetState:
    """An asset as this machine has it."""

    asset: Asset
    found: tuple[Path, ...]
    """Paths of the files that exist, in catalogue order."""
    missing: tuple[AssetFile, ...]

    @property
    def is_present(self) -> bool:
        return not self.missing

    def to_json(self) -> dict[str, Any]:
        """One row of ``fc4d assets list``."""
        asset = self.asset
        return {
            "key": asset.key,
            "title": asset.title,
            "kind": asset.kind,
            "present": self.is_present,
            "source": asset.source,
            "licence": asset.licence,
            "use": asset.use,
            "size_mb": asset.size_mb,
            "need": asset.need,
            "needed_by": {profile: list(stages) for profile, stages in asset.needed_by.items()},
            "alternatives": list(asset.alternatives),
            "files": [str(path) for path in self.found],
            "missing": [file.path for file in self.missing],
            "sha256": {file.path: file.sha256 for file in asset.files if file.sha256},
        }


@dataclass(frozen=True)
class Verification:
    """Outcome of comparing a present file with the catalogue's digest."""

    asset: Asset
    path: Path
    sha256: str
    expected: str | None
    """None where no digest of the release is known."""

    @property
    def is_as_released(self) -> bool | None:
        return None if self.expected is None else self.sha256 == self.expected


def assets_directory(environment: Mapping[str, str] | None = None) -> Path:
    """The folder user files are looked for in; it need not exist."""
    environment = os.environ if environment is None else environment
    if chosen := environment.get("FC4D_ASSETS"):
        return Path(chosen).expanduser()
    data = environment.get("XDG_DATA_HOME")
    return (Path(data) if data else Path.home() / ".local" / "share") / "fc4d_ray" / "assets"


def find_asset(key: str) -> Asset:
    """Catalogue entry; ``ConfigError`` for an unknown key."""
    for asset in CATALOGUE:
        if asset.key == key:
            return asset
    raise ConfigError(f"no asset {key!r}; known: {', '.join(a.key for a in CATALOGUE)}")


def inspect_asset(key: str, directory: Path | None = None) -> AssetState:
    """Which files of an asset exist; looks, reads nothing."""
    asset = find_asset(key)
    paths = [_locate(asset, file, directory or assets_directory()) for file in asset.files]
    return AssetState(
        asset,
        tuple(path for path in paths if path is not None),
        tuple(file for file, path in zip(asset.files, paths, strict=True) if path is None),
    )


def list_assets(directory: Path | None = None) -> list[AssetState]:
    """The state of every asset, in catalogue order."""
    return [inspect_asset(asset.key, directory) for asset in CATALOGUE]


def require_asset(key: str, directory: Path | None = None) -> tuple[Path, ...]:
    """Paths of an asset's files, in catalogue order.

    Raises:
        WeightsMissing: a file is absent; the message says what, where to get it and where to put
            it.
    """
    state = inspect_asset(key, directory)
    if state.is_present:
        return state.found
    asset = state.asset
    names = ", ".join(file.path for file in state.missing)
    place = f" and put it under {directory or assets_directory()}" if _is_users(asset) else ""
    raise WeightsMissing(
        f"{asset.title}: {names} not found; get it from {asset.source}{place} "
        f"(licence: {asset.licence})"
    )


def missing_for(profile: str, directory: Path | None = None) -> list[AssetState]:
    """Required assets of a profile that are absent and have no present alternative."""
    states = {state.asset.key: state for state in list_assets(directory)}
    return [
        state
        for state in states.values()
        if profile in state.asset.needed_by
        and state.asset.need == "required"
        and not state.is_present
        and not any(states[key].is_present for key in state.asset.alternatives)
    ]


def verify_asset(key: str, directory: Path | None = None) -> list[Verification]:
    """Digest every present file of an asset and compare it with the release's, where known."""
    asset = find_asset(key)
    checks = []
    for file in asset.files:
        path = _locate(asset, file, directory or assets_directory())
        if path is not None:
            checks.append(Verification(asset, path, file_digest(path), file.sha256))
    return checks


def file_digest(path: Path) -> str:
    """SHA-256 of a file, remembered while its size and time of change stay the same."""
    status = path.stat()
    return _digest(path, status.st_size, status.st_mtime_ns)


@cache
def _digest(path: Path, size: int, modified_ns: int) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _is_users(asset: Asset) -> bool:
    return asset.kind == "user file"


def _locate(asset: Asset, file: AssetFile, directory: Path) -> Path | None:
    if _is_users(asset):
        path = directory / file.path
        return path if path.is_file() else None
    return _installed_file(file.path)


def _installed_file(relative: str) -> Path | None:
    """A file of an installed distribution, found without importing the package."""
    distribution = relative.split("/")[0]
    try:
        path = Path(str(importlib.metadata.distribution(distribution).locate_file(relative)))
    except importlib.metadata.PackageNotFoundError:
        return None
    return path if path.is_file() else None
