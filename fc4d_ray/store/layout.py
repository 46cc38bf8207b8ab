"""Where everything lies below an output location.

::

    fc4d.json                                    marker: ours, and which schema
    configs/<config digest>.yaml                 resolved configurations
    records/<ab>/<id>/record-<plan>.json         an avatar is finished
                      failed-<plan>-<gggg>.json  it failed in generation gggg
                      retry-<gggg>.json          generation gggg was opened
    avatars/<ab>/<id>/<stage>/<key>.json         completion record of one stage's work
                      <stage>/attempt-<uuid>/    the files it names
    ledger/<ab>/<id>/<stage>-<key>/<gggg>/       attempts that have not ended well
    checkpoints/<ab>/<id>/<stage>-<key>/         kept across attempts of one piece of work
    traces/<ab>/<id>/…                           stack traces of failures
    inputs/<digest>.parquet                      the rows of a run, users' columns included
    runs/<run id>/run.json, progress.json, end.json
    outcomes/part-*.parquet                      the records' contents as columns, derived
    manifest/*.parquet                           derived from all of the above
    report.html

``<ab>`` is the first two characters of the avatar id. Records lie apart from the files so that one
listing of ``records/`` tells what is done without walking over the artifacts.
"""

from __future__ import annotations

import re

from fc4d_ray.errors import StoreError

SCHEMA_VERSION = 1
MARKER = "fc4d.json"
MANIFEST = "manifest"
MANIFEST_FILE = "manifest/part-00000.parquet"
CURRENT_MANIFEST_FILE = "manifest/_current.parquet"
REPORT = "report.html"
RUNS = "runs"
RECORDS = "records"
OUTCOMES = "outcomes"
AVATARS = "avatars"
LEDGER = "ledger"
CHECKPOINTS = "checkpoints"

_SAFE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")


def safe_name(name: str) -> str:
    """``name`` if it can be one path component; ``StoreError`` if it could escape its folder."""
    if not _SAFE_NAME.fullmatch(name) or ".." in name:
        raise StoreError(f"{name!r} cannot be used in a path below the output location")
    return name


def _sharded(tree: str, avatar_id: str) -> str:
    return f"{tree}/{safe_name(avatar_id)[:2]}/{avatar_id}"


def records_of(avatar_id: str) -> str:
    """Folder of one avatar's records."""
    return _sharded(RECORDS, avatar_id)


def record_name(plan: str) -> str:
    """Name of the record of an avatar finished under a plan."""
    return f"record-{plan}.json"


def failure_name(plan: str, generation: int) -> str:
    """Name of the record of a failure under a plan, in one attempt generation."""
    return f"failed-{plan}-{generation:04d}.json"


def retry_name(generation: int) -> str:
    """Name of the record that opens an attempt generation."""
    return f"retry-{generation:04d}.json"


def avatar(avatar_id: str) -> str:
    """Folder of one avatar's artifacts."""
    return _sharded("avatars", avatar_id)


def completion_record(avatar_id: str, stage: str, key: str) -> str:
    """Path of a stage's completion record."""
    return f"{avatar(avatar_id)}/{safe_name(stage)}/{safe_name(key)}.json"


def attempt(avatar_id: str, stage: str, attempt_id: str) -> str:
    """Folder an attempt writes its files into."""
    return f"{avatar(avatar_id)}/{safe_name(stage)}/attempt-{safe_name(attempt_id)}"


def ledger(avatar_id: str, stage: str, key: str, generation: int) -> str:
    """Folder of the attempts at one piece of work in one generation."""
    return f"{_sharded('ledger', avatar_id)}/{safe_name(stage)}-{safe_name(key)}/{generation:04d}"


def checkpoint(avatar_id: str, stage: str, key: str) -> str:
    """Folder kept across attempts of one piece of work."""
    return f"{_sharded('checkpoints', avatar_id)}/{safe_name(stage)}-{safe_name(key)}"


def trace(avatar_id: str, stage: str, attempt_id: str) -> str:
    """Path of the stack trace of a failure."""
    return f"{_sharded('traces', avatar_id)}/{safe_name(stage)}-{safe_name(attempt_id)}.txt"


def config(config_digest: str) -> str:
    """Path of a resolved configuration."""
    return f"configs/{safe_name(config_digest)}.yaml"


def inputs(inputs_digest: str) -> str:
    """Path of the table of a run's rows."""
    return f"inputs/{safe_name(inputs_digest)}.parquet"


def run_file(run_id: str, name: str) -> str:
    """Path of one of a run's documents."""
    return f"{RUNS}/{safe_name(run_id)}/{name}"
