"""Throughput of the whole pipeline on this machine: side by side on Ray, and one at a time.

    python benchmarks/embedded_throughput.py --work DIR --count 20 --json embedded_throughput.json

Makes synthetic portraits (or takes those named), then does them twice into fresh outputs: with
``--runner local`` in one process, and with ``--runner ray``. Reports portraits an hour, the
peak memory of all processes together (proportional set size, sampled), and the time lost to Ray:
what the run took beyond its stages' time shared among its workers. Both runs load their models
anew; run it on an idle machine.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

RUNNERS = ("local", "ray")
PORTRAIT_SIZE = 640
SAMPLE_SECONDS = 1.0
COMMAND = "from fc4d_ray.cli import app; app()"


@dataclass(frozen=True)
class RunFigures:
    """What one run took."""

    runner: str
    portraits: int
    succeeded: int
    seconds: float
    """Wall time of the command, its start included."""
    cpu_seconds: float
    """Of all its processes."""
    stage_seconds: float
    """Sum of the stages' wall times over all portraits."""
    stage_cpu_seconds: float
    workers: int
    """Portraits worked on at a time at most, as observed."""
    start_seconds: float
    """Until the first stage began."""
    peak_memory_gb: float

    @property
    def portraits_per_hour(self) -> float:
        """Throughput."""
        return 3600 * self.succeeded / self.seconds

    @property
    def lost_seconds(self) -> float:
        """Wall time beyond the stages' time shared among the workers."""
        return self.seconds - self.stage_seconds / self.workers

    @property
    def own_cpu_per_portrait(self) -> float:
        """CPU seconds of anything but the stages' work, per portrait; process starts included."""
        return (self.cpu_seconds - self.stage_cpu_seconds) / max(1, self.portraits)


def main() -> None:
    """Do both runs and print the comparison."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("portraits", nargs="*", help="images; synthetic people if absent")
    parser.add_argument("--count", type=int, default=20, help="number of synthetic people")
    parser.add_argument("--work", type=Path, required=True, help="folder for portraits and outputs")
    parser.add_argument(
        "--alone", type=int, help="do only the first so many one at a time, which saves hours"
    )
    parser.add_argument("--config", default="embedded")
    parser.add_argument("--set", action="append", default=[], dest="overrides")
    parser.add_argument("--json", type=Path, help="write the figures there")
    arguments = parser.parse_args()
    portraits = arguments.portraits or make_portraits(arguments.work / "people", arguments.count)
    alone = arguments.alone or len(portraits)
    found = [
        measure(runner, some, arguments.work, arguments.config, arguments.overrides)
        for runner, some in zip(RUNNERS, (portraits[:alone], portraits), strict=True)
    ]
    if arguments.json:
        document = {"host": _host(), "runs": [asdict(figures) for figures in found]}
        arguments.json.write_text(json.dumps(document, indent=2) + "\n")
    print(table(found))


def make_portraits(folder: Path, count: int) -> list[str]:
    """Portraits of synthetic people, made once."""
    from fc4d_ray.evaluation.synthetic import make_person
    from fc4d_ray.heads.anny import load_anny_head
    from fc4d_ray.images import write_png

    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"person-{seed:03d}.png" for seed in range(count)]
    missing = [(seed, path) for seed, path in enumerate(paths) if not path.exists()]
    head = load_anny_head() if missing else None
    for seed, path in missing:
        write_png(path, make_person(seed, head).portrait(size=PORTRAIT_SIZE).image)
    return [str(path) for path in paths]


def measure(
    runner: str, portraits: Sequence[str], work: Path, config: str, overrides: Sequence[str]
) -> RunFigures:
    """One run in processes of its own, into a fresh output."""
    out = work / f"{runner}-{datetime.now(UTC):%Y%m%dT%H%M%S}"
    command = [sys.executable, "-c", COMMAND, "run", *portraits, "--out", str(out)]
    command += ["--config", config, "--runner", runner]
    for override in overrides:
        command += ["--set", override]
    began, cpu = time.time(), os.times()
    process = subprocess.Popen(command, stdout=sys.stderr)
    with peak_memory(process.pid) as peak:
        code = process.wait()
    seconds, after = time.time() - began, os.times()
    if code not in (0, 3):
        raise SystemExit(f"the {runner} run ended with {code}")
    children = after.children_user + after.children_system
    children -= cpu.children_user + cpu.children_system
    work_done = read_work(out)
    succeeded = len(list(out.glob("records/*/*/record-*.json")))
    return RunFigures(
        runner=runner,
        portraits=len(portraits),
        succeeded=succeeded,
        seconds=seconds,
        cpu_seconds=max(children, peak.cpu_seconds),
        stage_seconds=sum(item.seconds for item in work_done),
        stage_cpu_seconds=sum(item.cpu_seconds for item in work_done),
        workers=most_at_once(work_done),
        start_seconds=min(item.began for item in work_done) - began,
        peak_memory_gb=peak.bytes / 1e9,
    )


@dataclass(frozen=True)
class StageWork:
    """One stage's work, from its completion record; times in seconds since the epoch."""

    began: float
    seconds: float
    cpu_seconds: float

    @property
    def ended(self) -> float:
        """When it was over."""
        return self.began + self.seconds


def read_work(out: Path) -> list[StageWork]:
    """All finished work of an output."""
    work = []
    for path in out.glob("avatars/*/*/*/*.json"):
        measured = json.loads(path.read_text())["measurements"]
        ended = datetime.fromisoformat(measured["finished_at"]).timestamp()
        seconds = float(measured["seconds"])
        work.append(StageWork(ended - seconds, seconds, float(measured["cpu_seconds"])))
    return work


def most_at_once(work: Sequence[StageWork]) -> int:
    """Largest number of stages at work at the same time; ends go before starts."""
    moments = sorted([(w.ended, -1) for w in work] + [(w.began, 1) for w in work])
    level = most = 0
    for _, step in moments:
        level += step
        most = max(most, level)
    return most


@dataclass
class Peak:
    """Filled while the block of ``peak_memory`` runs."""

    bytes: int = 0
    cpu_seconds: float = 0.0
    """Of the processes seen, at the last look at each of them."""


@contextlib.contextmanager
def peak_memory(pid: int) -> Iterator[Peak]:
    """Peak proportional set size of a process and all that come from it."""
    peak, over, cpu = Peak(), threading.Event(), {}

    def sample() -> None:
        while not over.wait(SAMPLE_SECONDS):
            family = descendants(pid)
            peak.bytes = max(peak.bytes, sum(_memory(member) for member in family))
            cpu.update({member: _cpu(member) for member in family})

    thread = threading.Thread(target=sample, daemon=True)
    thread.start()
    try:
        yield peak
    finally:
        over.set()
        thread.join()
        peak.cpu_seconds = sum(cpu.values())


def descendants(pid: int) -> list[int]:
    """The process and everything it or its children started."""
    parents: dict[int, list[int]] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError, ValueError, IndexError):
            fields = path.read_text(errors="replace").rpartition(")")[2].split()
            parents.setdefault(int(fields[1]), []).append(int(path.parent.name))
    family = [pid]
    for member in family:
        family += parents.get(member, [])
    return family


def _memory(pid: int) -> int:
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return 1024 * int(line.split()[1])
    return 0


def _cpu(pid: int) -> float:
    with contextlib.suppress(OSError, IndexError):
        fields = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return 0.0


def table(found: Sequence[RunFigures]) -> str:
    """Markdown table of both runs."""
    rows: dict[str, list[str]] = {
        "portraits (succeeded)": [f"{f.portraits} ({f.succeeded})" for f in found],
        "wall time": [f"{f.seconds:.0f} s" for f in found],
        "portraits an hour": [f"{f.portraits_per_hour:.1f}" for f in found],
        "stages at work at once, at most": [str(f.workers) for f in found],
        "start until the first stage": [f"{f.start_seconds:.1f} s" for f in found],
        "stages' time ÷ workers": [f"{f.stage_seconds / f.workers:.0f} s" for f in found],
        "lost: wall time beyond that": [
            f"{f.lost_seconds:.0f} s ({f.lost_seconds / f.seconds:.1%})" for f in found
        ],
        "stages' CPU": [f"{f.stage_cpu_seconds:.0f} s" for f in found],
        "other CPU, per portrait": [f"{f.own_cpu_per_portrait:.1f} s" for f in found],
        "peak memory, all processes": [f"{f.peak_memory_gb:.2f} GB" for f in found],
    }
    names = ["one at a time" if f.runner == "local" else "side by side on Ray" for f in found]
    lines = ["| | " + " | ".join(names) + " |", "|---|" + "---|" * len(names)]
    lines += [f"| {name} | " + " | ".join(cells) + " |" for name, cells in rows.items()]
    if len(found) == 2:
        gain = found[1].portraits_per_hour / found[0].portraits_per_hour
        lines += ["", f"Side by side gives {gain:.2f} times the throughput of one at a time."]
    return "\n".join(lines)


def _host() -> dict[str, Any]:
    return {
        "cores": os.cpu_count(),
        "load_before": os.getloadavg()[0],
        "python": platform.python_version(),
        "date": datetime.now(UTC).date().isoformat(),
    }


if __name__ == "__main__":
    main()
