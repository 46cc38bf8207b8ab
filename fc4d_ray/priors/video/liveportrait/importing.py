"""``fc4d assets import liveportrait PATH``: check the released files, then store them."""

from __future__ import annotations

from pathlib import Path

from fc4d_ray.assets.importing import copy_checked
from fc4d_ray.assets.registry import assets_directory
from fc4d_ray.errors import ConfigError, WeightsMissing
from fc4d_ray.priors.video.liveportrait.checkpoint import RELEASED_FILES, read_networks

FOLDER = "liveportrait"


def import_liveportrait(source: Path, directory: Path | None = None) -> list[Path]:
    """Check and copy the five files of a download into the assets folder; returns the copies.

    ``source`` is the download's folder, its ``liveportrait`` folder, or any folder around them.

    Raises:
        ConfigError: there is nothing at ``source``.
        WeightsMissing: files are missing or damaged, or are something else.
        UnsafePickle: a file holds more than plain data; nothing was executed.
    """
    if not source.exists():
        raise ConfigError(f"{source} does not exist")
    files = _locate(source)
    read_networks(files)
    folder = (directory or assets_directory()) / FOLDER
    return [
        copy_checked(path, folder / name) for path, name in zip(files, RELEASED_FILES, strict=True)
    ]


def _locate(source: Path) -> tuple[Path, ...]:
    """The released files under ``source``, all of one folder."""
    first = Path(RELEASED_FILES[0])
    depth = len(first.parts)
    candidates = [source / first, *sorted(source.rglob(first.name))]
    roots = [
        path.parents[depth - 1]
        for path in candidates
        if path.is_file() and path.parts[-depth:] == first.parts
    ]
    for root in roots:
        files = tuple(root / name for name in RELEASED_FILES)
        if all(path.is_file() for path in files):
            return files
    root = roots[0] if roots else source
    missing = [name for name in RELEASED_FILES if not (root / name).is_file()]
    raise WeightsMissing(f"{root} lacks {', '.join(missing)}")
