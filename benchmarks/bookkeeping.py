"""Bookkeeping at scale: planning a resume, and writing the manifest, of up to a million portraits.

    python benchmarks/bookkeeping.py --rows 10000 100000 1000000 --json bookkeeping.json

Half of the portraits are done in the resume that is planned. Records are empty files there, so
that opening one would fail: done-ness comes from names alone. Every measurement runs in a process
of its own, whose peak resident memory is reported. Needs about 3 inodes per portrait.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import Any

PLAN_BASE = "0" * 32
STAGES = ("ingest", "shape", "image", "video", "track", "train", "publish")
LICENCES = ("CC-BY", "CC0")
GATES = {
    "plan a resume": {"seconds": 60.0, "peak_gb": 2.0},
    "write and compact the manifest": {"seconds": 30.0},
}
"""Limits at a million rows."""
REBUILT_AT_MOST = 20_000


def main() -> None:
    """Measure every size and print the table; exit 1 where a gate is missed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--folder", type=Path, help="where to work; a temporary folder if absent")
    parser.add_argument("--json", type=Path, help="write the figures there")
    parser.add_argument("--step", choices=sorted(_STEPS), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.step:
        print(json.dumps(_measured(_STEPS[arguments.step], arguments.folder, arguments.rows[0])))
        return
    figures = {str(rows): measure(rows, arguments.folder) for rows in arguments.rows}
    document = {"host": _host(), "figures": figures}
    if arguments.json:
        arguments.json.write_text(json.dumps(document, indent=2) + "\n")
    print(table(figures))
    sys.exit(0 if all(gates_hold(int(rows), found) for rows, found in figures.items()) else 1)


def measure(rows: int, parent: Path | None = None) -> dict[str, dict[str, float]]:
    """Seconds and peak memory of each step for one number of portraits."""
    folder = Path(tempfile.mkdtemp(prefix="fc4d-bookkeeping-", dir=parent))
    try:
        found = {}
        for name in _STEPS:
            command = [sys.executable, __file__, "--step", name, "--folder", str(folder)]
            answer = subprocess.run(
                [*command, "--rows", str(rows)], check=True, stdout=subprocess.PIPE, text=True
            )
            found[name] = json.loads(answer.stdout)
        return found
    finally:
        shutil.rmtree(folder)


def gates_hold(rows: int, found: dict[str, dict[str, float]]) -> bool:
    """Whether the limits are kept; smaller sizes have none."""
    if rows < 1_000_000:
        return True
    return all(
        found[step][quantity] <= limit
        for step, limits in GATES.items()
        for quantity, limit in limits.items()
    )


def table(figures: dict[str, dict[str, dict[str, float]]]) -> str:
    """Markdown table: wall seconds, CPU seconds, peak memory."""
    sizes = list(figures)
    lines = [
        "| step | " + " | ".join(f"{int(rows):,} rows" for rows in sizes) + " |",
        "|---|" + "---|" * len(sizes),
    ]
    for step in _STEPS:
        lines.append(f"| {step} | " + " | ".join(_cell(f[step]) for f in figures.values()) + " |")
    return "\n".join(lines)


def _cell(found: dict[str, float]) -> str:
    return "{seconds:.1f} s ({cpu_seconds:.1f} CPU), {peak_gb:.2f} GB".format(**found)


def _host() -> dict[str, Any]:
    return {
        "cores": os.cpu_count(),
        "load": os.getloadavg()[0],
        "python": platform.python_version(),
        "date": datetime.now(UTC).date().isoformat(),
    }


def _measured(step: Callable[[Path, int], dict[str, Any] | None], folder: Path, rows: int) -> Any:
    import resource

    began, cpu = time.perf_counter(), time.process_time()
    facts = step(folder, rows) or {}
    figures = {
        "seconds": round(time.perf_counter() - began, 2),
        "cpu_seconds": round(time.process_time() - cpu, 2),
        "peak_gb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6, 3),
    }
    return figures | facts


class _Stopwatch:
    """Time of the blocks it is used for, where the rest of a step only makes up data."""

    def __init__(self) -> None:
        self._seconds = self._cpu_seconds = 0.0

    def __enter__(self) -> None:
        self._began = time.perf_counter(), time.process_time()

    def __exit__(self, *error: object) -> None:
        self._seconds += time.perf_counter() - self._began[0]
        self._cpu_seconds += time.process_time() - self._began[1]

    def to_json(self) -> dict[str, float]:
        return {"seconds": round(self._seconds, 2), "cpu_seconds": round(self._cpu_seconds, 2)}


def _avatars(rows: int) -> Iterator[tuple[str, str]]:
    """Avatar ids as ``collect_inputs`` finds them, with their plans."""
    from fc4d_ray.store.plans import avatar_plan, columns_digest

    digests = {licence: columns_digest({"licence": licence}) for licence in LICENCES}
    for number in range(rows):
        avatar_id = hashlib.sha256(f"portrait {number}".encode()).hexdigest()[:32]
        yield avatar_id, avatar_plan(PLAN_BASE, avatar_id, digests[_licence(number)])


def _licence(number: int) -> str:
    return LICENCES[number % 2]


def _sources(folder: Path, rows: int) -> dict[str, Any] | None:
    """A Parquet table of portraits with a column of its owner's, and the files it names."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    uris = []
    for number in range(rows):
        directory = folder / "sources" / f"{number // 1000:04d}"
        if number % 1000 == 0:
            directory.mkdir(parents=True)
        path = f"{directory}/{number:07d}.png"
        with open(path, "wb") as file:
            file.write(b"portrait %d" % number)
        uris.append(path)
    licences = [_licence(number) for number in range(rows)]
    pq.write_table(pa.table({"uri": uris, "licence": licences}), folder / "people.parquet")
    return None


def _output(folder: Path) -> str:
    return str(folder / "out")


def _start_run(folder: Path, rows: int) -> dict[str, Any] | None:
    """The first run's look at its inputs: every source is read once for its id."""
    from fc4d_ray.pipeline.inputs import collect_inputs
    from fc4d_ray.store.location import open_output
    from fc4d_ray.store.runs import RunBook, RunDocument, new_run_id, utc_now

    storage = open_output(_output(folder), create=True)
    inputs = collect_inputs([str(folder / "people.parquet")])
    book = RunBook(storage)
    book.start(
        RunDocument(
            run_id=new_run_id(),
            started_at=utc_now(),
            plan_base=PLAN_BASE,
            stages=STAGES,
            config_digest="c" * 32,
            inputs_path=book.write_inputs(inputs.table),
            rows=rows,
            runner="ray",
            host="benchmark",
            pid=os.getpid(),
        )
    )
    return None


def _touch_records(folder: Path, start: int, stop: int) -> None:
    """Names of finished avatars' records; the files are empty."""
    from fc4d_ray.store import layout

    root = _output(folder)
    for number, (avatar_id, plan) in enumerate(_avatars(stop)):
        if number >= start:
            directory = f"{root}/{layout.records_of(avatar_id)}"
            os.makedirs(directory, exist_ok=True)
            path = f"{directory}/{layout.record_name(plan)}"
            os.close(os.open(path, os.O_WRONLY | os.O_CREAT))


def _finish_half(folder: Path, rows: int) -> dict[str, Any] | None:
    _touch_records(folder, 0, rows // 2)
    return None


def _plan_resume(folder: Path, rows: int) -> dict[str, Any] | None:
    """What ``fc4d run`` does before it hands out work."""
    from fc4d_ray.pipeline.backlog import find_backlog
    from fc4d_ray.pipeline.inputs import collect_inputs
    from fc4d_ray.store.location import open_output
    from fc4d_ray.store.runs import RunBook

    storage = open_output(_output(folder))
    earlier = RunBook(storage).earlier_inputs()
    inputs = collect_inputs([str(folder / "people.parquet")], earlier=earlier)
    backlog = find_backlog(storage, inputs, PLAN_BASE)
    left = sum(1 for _ in backlog.left)
    if (left, backlog.count("succeeded")) != (rows - rows // 2, rows // 2):
        raise SystemExit(f"{left} portraits left of {rows}, expected half")
    return {"left": left}


def _finish_rest(folder: Path, rows: int) -> dict[str, Any] | None:
    _touch_records(folder, rows // 2, rows)
    return None


def _write_manifest(folder: Path, rows: int) -> dict[str, Any] | None:
    """Append all outcomes in a hundred portions, merge them, derive and publish the manifest."""
    import numpy as np
    import pyarrow as pa

    from fc4d_ray.store.location import open_output
    from fc4d_ray.store.manifest import ManifestCommitter
    from fc4d_ray.store.outcomes import outcome_schema
    from fc4d_ray.store.record_index import FINISHED

    storage = open_output(_output(folder))
    outcomes = ManifestCommitter(storage).outcomes
    random = np.random.default_rng(0)
    portion = max(1, rows // 100)
    avatars = _avatars(rows)
    watch = _Stopwatch()
    for start in range(0, rows, portion):
        chosen, plans = zip(*islice(avatars, min(portion, rows - start)), strict=True)
        count = len(chosen)
        columns = {field.name: pa.nulls(count, field.type) for field in outcome_schema()} | {
            "plan_digest": pa.array(plans),
            "rank": pa.array([FINISHED] * count, pa.int64()),
            "avatar_id": pa.array(chosen),
            "status": pa.array(["succeeded"] * count),
            "avatar_path": pa.array([f"avatars/{i[:2]}/{i}/publish/attempt-1" for i in chosen]),
            "config_digest": pa.array(["c" * 32] * count),
            "n_splats": pa.array(random.integers(50_000, 200_000, count)),
            "id_distance_0": pa.array(random.random(count)),
            "warnings": pa.array([[]] * count, pa.list_(pa.string())),
            "created_at": pa.array([datetime.now(UTC)] * count, pa.timestamp("ms", tz="UTC")),
        }
        seconds = {f"seconds_{stage}": pa.array(random.random(count)) for stage in STAGES}
        news = pa.table(columns | seconds)
        with watch:
            outcomes.append(news)
    with watch:
        table = ManifestCommitter(storage).finish()
    if table.num_rows != rows or table["licence"].null_count or table["avatar_uri"].null_count:
        raise SystemExit(f"the manifest has {table.num_rows} of {rows} rows, or holes in them")
    return watch.to_json() | {"bytes": storage.size("manifest/part-00000.parquet")}


def _read_status(folder: Path, rows: int) -> dict[str, Any] | None:
    """``fc4d status`` of the whole."""
    from fc4d_ray.pipeline.status import read_status

    if read_status(_output(folder))["succeeded"] != rows:
        raise SystemExit("fc4d status counts wrongly")
    return None


def _rebuild(folder: Path, rows: int) -> dict[str, Any] | None:
    """``fc4d manifest rebuild`` from real records, of at most ``REBUILT_AT_MOST`` avatars."""
    from fc4d_ray.store.filesystem import Storage
    from fc4d_ray.store.outcomes import OutcomeTable
    from fc4d_ray.store.record_index import survey
    from fc4d_ray.store.records import AvatarRecord, RecordBook
    from fc4d_ray.store.runs import utc_now

    storage = Storage(str(folder / "rebuilt"))
    book = RecordBook(storage)
    count = min(rows, REBUILT_AT_MOST)
    for avatar_id, plan in _avatars(count):
        book.write_finished(
            AvatarRecord(
                avatar_id=avatar_id,
                plan=plan,
                config_digest="c" * 32,
                source_uri=f"/{avatar_id}.png",
                avatar_path=f"avatars/{avatar_id[:2]}/{avatar_id}/publish/attempt-1",
                artifacts=dict.fromkeys(STAGES, "a" * 90),
                facts={stage: {"warnings": []} for stage in STAGES},
                seconds=dict.fromkeys(STAGES, 1.0),
                created_at=utc_now(),
            )
        )
    began = time.perf_counter()
    news = OutcomeTable(storage).learn(survey(storage))
    seconds = time.perf_counter() - began
    if news.num_rows != count:
        raise SystemExit("records were lost")
    return {"records": count, "records_per_second": round(count / seconds)}


_STEPS: dict[str, Callable[[Path, int], dict[str, Any] | None]] = {
    "set up sources": _sources,
    "identify sources for the first time": _start_run,
    "set up records of one half": _finish_half,
    "plan a resume": _plan_resume,
    "set up records of the other half": _finish_rest,
    "write and compact the manifest": _write_manifest,
    "fc4d status": _read_status,
    "read records anew (at most 20,000)": _rebuild,
}


if __name__ == "__main__":
    main()
