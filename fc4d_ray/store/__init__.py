"""The artifact store: what is done, where its files are, and the manifest derived from it."""

from __future__ import annotations

from fc4d_ray.store.location import open_output
from fc4d_ray.store.manifest import read_manifest

__all__ = ["open_output", "read_manifest"]
