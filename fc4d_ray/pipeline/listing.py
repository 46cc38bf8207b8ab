"""Finding images: folders, globs and prefixes, with a fingerprint of each file on the way.

Every function gives tables of two string columns, ``fc4d:source_uri`` and ``fc4d:fingerprint``.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fc4d_ray.errors import ConfigError
from fc4d_ray.pipeline.sources import local_fingerprint, remote_fingerprint
from fc4d_ray.store.runs import OWN_PREFIX

if TYPE_CHECKING:
    import pyarrow as pa

IMAGE_SUFFIXES = frozenset(
    f".{name}"
    for name in (
        *("jpg", "jpeg", "jpe", "jfif", "png", "webp", "bmp", "dib", "tif", "tiff", "gif"),
        *("avif", "jp2", "ppm", "pgm", "pbm", "pnm", "tga"),
    )
)
GLOB_CHARACTERS = frozenset("*?[")

_PARALLEL_LISTINGS = 16
_FOLDERS_WANTED = 64
"""Prefixes are opened until there are this many to list side by side."""
_DEPTH_OPENED = 3
_WINDOW = 65536
_LIST_FOLDER_FROM = 64
"""Of this many addresses in one remote folder on, it is listed instead of asking for each."""
_UNLISTED_PROTOCOLS = frozenset(("http", "https", "data"))

Found = tuple[str, str | None]
"""Address and fingerprint of a file."""


def has_image_suffix(path: str) -> bool:
    """Whether the name says that this is a picture."""
    return os.path.splitext(path)[1].lower() in IMAGE_SUFFIXES


def to_table(found: Iterable[Found]) -> pa.Table:
    """Columns of what was found, without ever holding all of it as objects."""
    import pyarrow as pa

    schema = pa.schema(
        [(OWN_PREFIX + "source_uri", pa.string()), (OWN_PREFIX + "fingerprint", pa.string())]
    )
    entries, batches = iter(found), []
    while window := list(islice(entries, _WINDOW)):
        uris, fingerprints = zip(*window, strict=True)
        columns = [pa.array(uris, pa.string()), pa.array(fingerprints, pa.string())]
        batches.append(pa.record_batch(columns, schema=schema))
    return pa.Table.from_batches(batches, schema)


def expand_local(argument: str) -> pa.Table:
    """Images a local argument names. Raises ``ConfigError`` where it names none."""
    path = Path(argument).expanduser().absolute()
    if path.is_dir():
        table = to_table(_walk(str(path)))
        if not table.num_rows:
            raise ConfigError(f"the folder {argument} holds no images")
        return table
    if not path.exists() and GLOB_CHARACTERS & set(argument):
        import glob

        matches = (Path(match) for match in sorted(glob.glob(str(path), recursive=True)))
        table = to_table(_fingerprinted(match) for match in matches if match.is_file())
        if not table.num_rows:
            raise ConfigError(f"nothing matches {argument}")
        return table
    if not path.exists() and not path.suffix:
        raise ConfigError(f"there is no file or folder {argument}")
    return to_table([_fingerprinted(path)])


def _fingerprinted(path: Path) -> Found:
    return str(path), local_file_fingerprint(str(path))


def local_file_fingerprint(path: str) -> str | None:
    """Fingerprint of a local file, None where it cannot be looked at."""
    try:
        return local_fingerprint(os.stat(path))
    except (OSError, ValueError):
        return None


def _walk(folder: str) -> Iterator[Found]:
    """Images below a folder in order of their names; hidden files and folders are left out."""
    with os.scandir(folder) as listing:
        entries = sorted(
            (entry for entry in listing if not entry.name.startswith(".")),
            key=lambda entry: entry.name,
        )
    for entry in entries:
        if entry.is_dir(follow_symlinks=False):
            yield from _walk(entry.path)
        elif has_image_suffix(entry.name) and entry.is_file():
            yield entry.path, local_file_fingerprint(entry.path)


def expand_remote(argument: str) -> pa.Table:
    """Images of a remote address, glob or prefix. Raises ``ConfigError`` where there are none."""
    import pyarrow.compute as pc
    from fsspec.core import url_to_fs

    try:
        filesystem, path = url_to_fs(argument)
        if GLOB_CHARACTERS & set(path):
            entries: Iterable[dict[str, Any]] = filesystem.glob(path, detail=True).values()
        elif has_image_suffix(path):
            return to_table([(argument, None)])
        else:
            entries = _list_prefix(filesystem, path)
        table = to_table(
            (filesystem.unstrip_protocol(entry["name"]), remote_fingerprint(entry))
            for entry in entries
            if entry["type"] == "file" and has_image_suffix(entry["name"])
        )
    except Exception as error:
        # Storage libraries share no base class; at this point any failure means the same.
        raise ConfigError(f"cannot list {argument}: {type(error).__name__}: {error}") from error
    if not table.num_rows:
        raise ConfigError(f"no images below {argument}")
    order = pc.sort_indices(table, sort_keys=[(OWN_PREFIX + "source_uri", "ascending")])
    return table.take(order)


def _list_prefix(filesystem: Any, path: str) -> Iterator[dict[str, Any]]:
    """Every file below a prefix; its folders are listed side by side.

    An object store gives the keys of one prefix 1000 at a time, one answer after the other. So
    prefixes are opened level by level until there are enough of them to be listed in parallel.
    """
    folders = [path]
    with ThreadPoolExecutor(_PARALLEL_LISTINGS) as pool:
        for _ in range(_DEPTH_OPENED):
            if not folders or len(folders) >= _FOLDERS_WANTED:
                break
            opened: list[str] = []
            for entries in pool.map(lambda f: filesystem.ls(f, detail=True), folders):
                yield from (entry for entry in entries if entry["type"] == "file")
                opened += [entry["name"] for entry in entries if entry["type"] == "directory"]
            folders = opened
        for found in pool.map(lambda f: filesystem.find(f, detail=True), folders):
            yield from found.values()


def fingerprints(uris: Sequence[str]) -> list[str | None]:
    """Fingerprints of a window of addresses of any kind, None where there is none to be had."""
    found: dict[str, str | None] = {}
    remote: dict[str, list[str]] = {}
    for uri in uris:
        protocol, separator, _ = uri.partition("://")
        if not separator:
            found[uri] = local_file_fingerprint(uri)
        elif protocol not in _UNLISTED_PROTOCOLS:
            remote.setdefault(uri.rpartition("/")[0], []).append(uri)
    jobs: list[tuple[str, list[str]]] = []
    for folder, members in remote.items():
        if len(members) >= _LIST_FOLDER_FROM:
            jobs.append((folder, members))
        else:
            jobs += [(folder, [uri]) for uri in members]
    if jobs:
        with ThreadPoolExecutor(_PARALLEL_LISTINGS) as pool:
            for answer in pool.map(lambda job: _remote_fingerprints(*job), jobs):
                found.update(answer)
    return [found.get(uri) for uri in uris]


def _remote_fingerprints(folder: str, uris: list[str]) -> dict[str, str | None]:
    from fsspec.core import url_to_fs

    try:
        filesystem, path = url_to_fs(folder if len(uris) > 1 else uris[0])
        if len(uris) == 1:
            return {uris[0]: remote_fingerprint(filesystem.info(path))}
        entries = filesystem.ls(path, detail=True)
    except Exception:
        # No fingerprint only means that the file is read; what is wrong with it shows then.
        return {}
    listed = {entry["name"]: remote_fingerprint(entry) for entry in entries}
    return {uri: listed.get(filesystem._strip_protocol(uri)) for uri in uris}
