"""Opening an output location: ours and of this schema, empty, or refused."""

from __future__ import annotations

from fc4d_ray.errors import StoreError
from fc4d_ray.store import layout
from fc4d_ray.store.digests import readable_json
from fc4d_ray.store.filesystem import Storage

_FORMAT = "fc4d-output"


def open_output(uri: str, *, create: bool = False) -> Storage:
    """Open the output location ``uri``.

    With ``create`` an absent or empty location becomes ours. Raises ``StoreError`` where the
    location holds other things, has another schema, cannot be written, or (without ``create``)
    holds no run at all.
    """
    storage = Storage(_absolute(uri))
    try:
        marker = storage.read_json(layout.MARKER)
    except FileNotFoundError:
        marker = _claim(storage) if create else None
    if marker is None:
        raise StoreError(f"{uri} holds no output of fc4d (no {layout.MARKER} in it)")
    _check(marker, uri)
    if create:
        _probe(storage)
    return storage


def find_output(uri: str) -> Storage | None:
    """The output location ``uri``, None where nothing of ours is there yet.

    Raises ``StoreError`` for an output of another schema and for a location with other things.
    """
    storage = Storage(_absolute(uri))
    try:
        marker = storage.read_json(layout.MARKER)
    except FileNotFoundError:
        _refuse_foreign(storage)
        return None
    _check(marker, uri)
    return storage


def _absolute(uri: str) -> str:
    """Local paths made absolute, since workers run in other folders."""
    if "://" in uri or "::" in uri:
        return uri.rstrip("/")
    from pathlib import Path

    return str(Path(uri).expanduser().absolute())


def _claim(storage: Storage) -> dict[str, object]:
    _refuse_foreign(storage)
    storage.create(
        layout.MARKER, readable_json({"format": _FORMAT, "schema": layout.SCHEMA_VERSION})
    )
    return storage.read_json(layout.MARKER)


def _refuse_foreign(storage: Storage) -> None:
    if storage.is_local and storage.local_path("").is_file():
        raise StoreError(f"{storage.uri} is a file; --out needs a folder")
    foreign = [name for name in storage.names("") if not name.startswith(".")]
    if foreign:
        listed = ", ".join(foreign[:3]) + (" …" if len(foreign) > 3 else "")
        raise StoreError(
            f"{storage.uri} is not empty and was not made by fc4d (it holds {listed}): "
            "choose a new folder for --out"
        )


def _check(marker: object, uri: str) -> None:
    if not isinstance(marker, dict) or marker.get("format") != _FORMAT:
        raise StoreError(
            f"{uri}/{layout.MARKER} was not written by fc4d: choose another folder for --out"
        )
    if marker.get("schema") != layout.SCHEMA_VERSION:
        raise StoreError(
            f"{uri} has output schema {marker.get('schema')}, this version writes "
            f"{layout.SCHEMA_VERSION}: choose another folder for --out, or use the version of "
            "fc4d that made it"
        )


def _probe(storage: Storage) -> None:
    """Find out now, not after minutes of work, that nothing can be written."""
    import uuid

    name = f"_probe-{uuid.uuid4().hex}"
    storage.create(name, b"")
    storage.remove(name)
