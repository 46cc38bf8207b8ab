"""The avatars below the outputs of ``fc4d run``, with the files and records that go with them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fc4d_ray.avatar.avatar import Avatar
from fc4d_ray.cameras import Camera
from fc4d_ray.config import load_config
from fc4d_ray.errors import StoreError
from fc4d_ray.pipeline.run import run
from fc4d_ray.priors.shape.views import REFERENCE, read_cameras
from fc4d_ray.stages.portrait_files import PortraitFiles, read_portrait
from fc4d_ray.store import layout
from fc4d_ray.store.artifacts import Artifact, ArtifactStore
from fc4d_ray.store.filesystem import Storage
from fc4d_ray.store.location import open_output
from fc4d_ray.store.manifest import read_manifest
from fc4d_ray.store.records import AvatarRecord, RecordBook

GIB = 2**30


@dataclass(frozen=True)
class PublishedAvatar:
    """A row of a manifest that succeeded."""

    avatar_id: str
    source_uri: str
    directories: Mapping[str, Path]
    """Local folder of each stage's files."""
    facts: Mapping[str, Any]
    seconds: Mapping[str, float]
    """By stage."""
    peak_memory_bytes: Mapping[str, int]
    """By stage."""

    @property
    def name(self) -> str:
        """The portrait's file name without its ending."""
        return Path(self.source_uri).stem

    def load(self) -> Avatar:
        """The published avatar."""
        return Avatar.load(self.directories["publish"])

    def portrait(self) -> PortraitFiles:
        """What ingest made of the portrait."""
        return read_portrait(self.directories["ingest"])

    def reference(self) -> Camera:
        """The portrait's own camera."""
        cameras = {named.name: named.camera for named in read_cameras(self.directories["shape"])}
        return cameras[REFERENCE]

    def costs(self) -> dict[str, Any]:
        """Seconds per stage and together, and the peak memory of the worst stage in GiB."""
        peak = max(self.peak_memory_bytes.values(), default=0)
        return {
            "seconds": {stage: round(value, 1) for stage, value in self.seconds.items()},
            "seconds_total": round(sum(self.seconds.values()), 1),
            "peak_memory_gib": round(peak / GIB, 3),
        }


@dataclass(frozen=True)
class FailedPortrait:
    """A row of a manifest that gave no avatar."""

    source_uri: str
    reason: str

    @property
    def name(self) -> str:
        """The portrait's file name without its ending."""
        return Path(self.source_uri).stem


def run_pipeline(
    portraits: Sequence[str], output: Path, config: str | None, overrides: Sequence[str]
) -> None:
    """The local runner over portraits; what ``output`` holds already is not done again."""
    settings = load_config(config, [*overrides, "run.runner=local"])
    run(portraits, str(output), settings, say=lambda line: print(line, flush=True))


def read_output(output: str) -> Iterator[PublishedAvatar | FailedPortrait]:
    """Every portrait of an output in the manifest's order; duplicates are left out."""
    storage = open_output(output)
    columns = ["avatar_id", "source_uri", "status", "plan_digest", "error_type", "error_message"]
    for row in read_manifest(storage).select(columns).to_pylist():
        if row["status"] == "succeeded":
            yield _published(storage, row)
        elif row["status"] == "failed":
            reason = f"{row['error_type']}: {row['error_message']}"
            yield FailedPortrait(row["source_uri"], reason)


def _published(storage: Storage, row: Mapping[str, Any]) -> PublishedAvatar:
    name = layout.record_name(row["plan_digest"])
    record = RecordBook(storage).read(row["avatar_id"], name)
    if not isinstance(record, AvatarRecord):
        raise StoreError(f"{storage.uri} has no record {name} of {row['avatar_id']}")
    store = ArtifactStore(storage)
    artifacts = {
        stage: Artifact.from_json(storage.read_json(path))
        for stage, path in record.artifacts.items()
    }
    return PublishedAvatar(
        record.avatar_id,
        record.source_uri,
        {stage: store.open(artifact) for stage, artifact in artifacts.items()},
        record.facts,
        record.seconds,
        {
            stage: int(artifact.measurements.get("peak_memory_bytes", 0))
            for stage, artifact in artifacts.items()
        },
    )
