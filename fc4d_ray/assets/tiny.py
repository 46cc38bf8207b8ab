"""``fc4d assets make-tiny``: an assets folder whose networks are tiny and know nothing.

Every file has the released format and lies where the real one would, written by the writers beside
this module and, where users would import, put there by the importers. The paper profile then runs
through its real code on a laptop (``configs/tiny.yaml``); its pictures mean nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

from fc4d_ray.assets.registry import require_asset
from fc4d_ray.assets.tiny_diffusion import write_tiny_diffusion, write_tiny_unet
from fc4d_ray.assets.tiny_flame import write_tiny_flame
from fc4d_ray.assets.tiny_liveportrait import write_tiny_liveportrait
from fc4d_ray.assets.tiny_panohead import write_tiny_panohead
from fc4d_ray.errors import ConfigError
from fc4d_ray.heads.flame_files import import_flame
from fc4d_ray.priors.shape.panohead.checkpoint import import_released
from fc4d_ray.priors.video.liveportrait.importing import import_liveportrait

TINY_ASSETS = ("panohead", "stable-diffusion-1.5", "cosmicman-sd", "liveportrait", "flame2023-open")
"""Keys of the catalogue's assets that are written."""

MARK = "tiny-random-weights.txt"
_NOTE = (
    "Written by `fc4d assets make-tiny`: random weights in the released file formats, for tests\n"
    "of the paper profile. Pictures made with them mean nothing.\n"
)


def make_tiny_assets(directory: Path, seed: int = 0) -> list[Path]:
    """Write the folder; returns the files that the stages will look for.

    Raises ``ConfigError`` where ``directory`` holds files that this command did not write, so that
    no real weights are replaced.
    """
    if directory.exists() and not directory.is_dir():
        raise ConfigError(f"{directory} is a file")
    if directory.is_dir() and any(directory.iterdir()) and not (directory / MARK).is_file():
        raise ConfigError(f"{directory} is not empty and was not made by this command")
    directory.mkdir(parents=True, exist_ok=True)
    (directory / MARK).write_text(_NOTE)
    writers: tuple[Callable[[Path, int], None], ...] = (
        _panohead, _diffusion, _liveportrait, _flame,
    )  # fmt: skip
    for write in writers:
        write(directory, seed)
    return [path for key in TINY_ASSETS for path in require_asset(key, directory)]


def _panohead(directory: Path, seed: int) -> None:
    with TemporaryDirectory() as folder:
        released = write_tiny_panohead(Path(folder) / "tiny.pkl", seed)
        import_released(released, directory / "panohead")


def _diffusion(directory: Path, seed: int) -> None:
    write_tiny_diffusion(directory / "stable-diffusion-v1-5", "sd15", seed)
    write_tiny_unet(directory / "CosmicMan-SD", "sd15", seed + 1)


def _liveportrait(directory: Path, seed: int) -> None:
    with TemporaryDirectory() as folder:
        write_tiny_liveportrait(Path(folder) / "liveportrait", seed)
        import_liveportrait(Path(folder), directory)


def _flame(directory: Path, seed: int) -> None:
    with TemporaryDirectory() as folder:
        import_flame(write_tiny_flame(Path(folder)).parent, directory=directory)
