"""How much of a cluster the runner uses: makespan, slots, own CPU, against two other ways.

    python benchmarks/pipeline_efficiency.py --gpus 4 8 --unit 1.0 --results out.json

Simulated GPUs (Ray resources) and stages that only sleep, in the paper's proportions, so that
nothing here needs a GPU and little needs a CPU. Compared, each in a process and a cluster of its
own: the runner; stage after stage with ``ray.get`` in between; all stages in one Ray Data pipeline
with Ray's defaults. The latter two only sleep: they neither store nor record anything.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from list_schedule import SimulatedStage, ideal_makespan, work_bound
from scaled_stages import LOAD_TIME, SHARES, TIMES

HERE = Path(__file__).resolve().parent
WAYS = ("runner", "stage_by_stage", "ray_data")
_SAMPLE_SECONDS = 0.25
_STEADY_MARGIN_UNITS = 3.0
"""Left out at both ends of a steady state: slots fill and empty there."""


def main() -> None:
    """Measure every way with every number of GPUs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--gpus", type=int, nargs="+", default=[4, 8])
    parser.add_argument("--portraits", type=int, default=100)
    parser.add_argument("--unit", type=float, default=1.0, help="seconds per unit of time")
    parser.add_argument("--ways", nargs="+", default=list(WAYS), choices=WAYS)
    parser.add_argument("--side-by-side", action="store_true", help="all ways at the same time")
    parser.add_argument("--results", type=Path, help="JSON file")
    parser.add_argument("--measure", nargs=2, metavar=("WAY", "GPUS"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        way, gpus = options.measure
        measured = _measure(way, int(gpus), options.portraits, options.unit)
        print(json.dumps(measured), flush=True)
        return
    results = [result for gpus in options.gpus for result in _compare(gpus, options)]
    if options.results:
        options.results.write_text(json.dumps(results, indent=1) + "\n")
    print(_table(results))


def _compare(gpus: int, options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    def start(way: str) -> subprocess.Popen[str]:
        command = [sys.executable, __file__, "--measure", way, str(gpus)]
        command += ["--portraits", str(options.portraits), "--unit", str(options.unit)]
        return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=_environment())

    processes = {}
    for way in options.ways:
        processes[way] = start(way)
        if not options.side_by_side:
            processes[way].wait()
    for way, process in processes.items():
        text, _ = process.communicate()
        if process.returncode:
            raise SystemExit(f"{way} with {gpus} GPUs ended with {process.returncode}")
        yield {"way": way, "gpus": gpus, **json.loads(text.splitlines()[-1])}


def _environment() -> dict[str, str]:
    from fc4d_ray.pipeline.ray_cluster import LOCAL_CLUSTER_ENVIRONMENT

    paths = [str(HERE), str(HERE.parent), os.environ.get("PYTHONPATH", "")]
    return os.environ | LOCAL_CLUSTER_ENVIRONMENT | {"PYTHONPATH": os.pathsep.join(paths)}


def _measure(way: str, gpus: int, portraits: int, unit: float) -> dict[str, Any]:
    stages = [SimulatedStage(TIMES[name], SHARES[name]) for name in TIMES]
    with _cluster(gpus):
        measured = {"runner": _runner, "stage_by_stage": _stage_by_stage, "ray_data": _ray_data}[
            way
        ](portraits, unit)
    return measured | {
        "portraits": portraits,
        "unit_s": unit,
        "load_average": round(os.getloadavg()[0], 1),
        "ideal_s": ideal_makespan(stages, portraits, gpus) * unit,
        "bound_s": work_bound(stages, portraits, gpus) * unit,
    }


@contextmanager
def _cluster(gpus: int) -> Iterator[None]:
    import logging

    import ray

    for tries_left in (3, 2, 1, 0):  # Ray gives its node half a minute, also on a busy machine
        try:
            ray.init(
                address="local",
                num_cpus=2,
                num_gpus=gpus,
                include_dashboard=False,
                object_store_memory=128 * 2**20,
                log_to_driver=False,
                logging_level="ERROR",
            )
            break
        except Exception:
            ray.shutdown()
            if not tries_left:
                raise
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    try:
        yield
    finally:
        ray.shutdown()


# -- the runner ------------------------------------------------------------------------------------


def _runner(portraits: int, unit: float) -> dict[str, Any]:
    """The pipeline as ``fc4d run`` does it, from portraits to manifest."""
    import ray

    from fc4d_ray.config import load_config
    from fc4d_ray.pipeline import run as runs

    with tempfile.TemporaryDirectory(prefix="fc4d-efficiency-") as folder:
        inputs = Path(folder) / "portraits"
        inputs.mkdir()
        for number in range(portraits):
            (inputs / f"{number:04}.png").write_text(f"portrait {number}")
        config = Path(folder) / "config.yaml"
        config.write_text(_config(unit))
        gpus = int(ray.cluster_resources()["GPU"])
        watch = _Watch()
        with watch.events(runs.RunSession), watch.processes():
            cpu, began = time.process_time(), time.monotonic()
            summary = runs.run([str(inputs)], f"{folder}/out", load_config(config))
            seconds = time.monotonic() - began
            driver_cpu_s = time.process_time() - cpu
        if summary.succeeded != portraits:
            raise SystemExit(f"only {summary.succeeded} of {portraits} succeeded")
        (end,) = Path(folder).glob("out/runs/*/end.json")
        overhead = json.loads(end.read_text())["overhead"]
    own_s = driver_cpu_s + overhead["workers_cpu_s"]
    return {
        "seconds": seconds,
        "makespan_s": watch.makespan_s(),
        "slots_held": watch.usage(unit, gpus, "held"),
        "slots_working": watch.usage(unit, gpus, "working"),
        "own_cpu_s_per_portrait": own_s / portraits,
        "driver_cpu_s_per_portrait": driver_cpu_s / portraits,
        "ray_daemons_cpu_s_per_portrait": watch.daemons_cpu_s / portraits,
        "process_starts_cpu_s_per_portrait": overhead["starts_cpu_s"] / portraits,
    }


def _config(unit: float) -> str:
    import yaml

    load_s = LOAD_TIME * unit
    sections: dict[str, Any] = {
        name: {"seconds": seconds * unit, "load_seconds": 0.0 if name == "train" else load_s}
        for name, seconds in TIMES.items()
    }
    run = {
        "progress_interval_s": 10.0,
        "stages": {n: {"gpus": SHARES[n], "seconds": TIMES[n] * unit} for n in TIMES},
    }
    return yaml.safe_dump({"registry": "scaled_stages:REGISTRY", "run": run, **sections})


class _Watch:
    """Notes when work begins and ends, and what of the GPUs is held."""

    def __init__(self) -> None:
        self.changes: list[tuple[float, str, int]] = []
        """(time, stage, +1 or -1)"""
        self.samples: list[tuple[float, float]] = []
        """(time, GPUs held by anybody)"""
        self.daemons_cpu_s = 0.0

    @contextmanager
    def events(self, session: Any) -> Iterator[None]:
        """Listen to the workers' reports."""
        original = session.stage_event

        def listen(this: Any, avatar: str, stage: str, event: str, *rest: Any) -> None:
            if event in ("started", "done"):
                change = 1 if event == "started" else -1
                self.changes.append((time.monotonic(), stage, change))
            original(this, avatar, stage, event, *rest)

        session.stage_event = listen
        try:
            yield
        finally:
            session.stage_event = original

    @contextmanager
    def processes(self) -> Iterator[None]:
        """Sample Ray's resources; sum up its daemons' CPU time."""
        import ray

        over = threading.Event()

        def sample() -> None:
            total = ray.cluster_resources()["GPU"]
            while not over.wait(_SAMPLE_SECONDS):
                held = total - ray.available_resources().get("GPU", 0.0)
                self.samples.append((time.monotonic(), held))

        before = _daemons_cpu_s()
        thread = threading.Thread(target=sample, daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()
            self.daemons_cpu_s = _daemons_cpu_s() - before

    def makespan_s(self) -> float:
        """From the first work to the last."""
        return self.changes[-1][0] - self.changes[0][0]

    def usage(self, unit: float, gpus: int, kind: str) -> dict[str, float]:
        """Mean number of trainings relative to the slots, beside the front and after it.

        A steady state lasts from when its slots are full until no further training waits. The
        slots are what fits beside the front pools that still have work at that moment.
        """
        front_end = max(t for t, stage, _ in self.changes if stage != "train")
        starts = sorted(t for t, stage, change in self.changes if stage == "train" and change > 0)
        margin = _STEADY_MARGIN_UNITS * unit
        spans = {
            "beside_the_front": (starts[0] + margin, front_end - margin),
            "after_the_front": (front_end + margin, starts[-1]),
        }
        found = {}
        for name, (begin, end) in spans.items():
            moments = [t for t, _ in self.samples if begin <= t <= end]
            slots = sum(self._slots(t, gpus) for t in moments)
            if len(moments) > 10 and slots:
                count = {"held": self._held, "working": self._working}[kind]
                found[name] = sum(count(t) for t in moments) / slots
        return found

    def _working(self, moment: float) -> float:
        return sum(change for t, stage, change in self.changes if stage == "train" and t <= moment)

    def _held(self, moment: float) -> float:
        """Trainings that hold their share: what is held, less the front's pools."""
        held = next((gpus for t, gpus in self.samples if t >= moment), 0.0)
        front = sum(size * SHARES[stage] for stage, size in self._pools_at_work(moment).items())
        return max(0.0, held - front) / SHARES["train"]

    def _slots(self, moment: float, gpus: int) -> int:
        from fc4d_ray.pipeline.capacity import Pool, training_slots
        from fc4d_ray.pipeline.hardware import Gpu, Hardware, Node
        from fc4d_ray.pipeline.needs import Needs

        def needs(stage: str) -> Needs:
            return Needs((stage,), SHARES[stage], cpus=0.0, memory_gib=0.0, seconds=TIMES[stage])

        hardware = Hardware((Node(cpus=2, memory_gib=0.0, gpus=(Gpu(),) * gpus),))
        at_work = self._pools_at_work(moment)
        front = [Pool(needs(stage), size, rate=0.0) for stage, size in at_work.items()]
        return training_slots(hardware, front, needs("train"))

    def _pools_at_work(self, moment: float) -> dict[str, int]:
        """Front pools with work to come; a pool is as large as it was at its busiest."""
        sizes = {}
        for stage in TIMES:
            changes = [(t, change) for t, name, change in self.changes if name == stage]
            if stage == "train" or not changes or moment > changes[-1][0]:
                continue
            sizes[stage] = max(itertools.accumulate(change for _, change in changes))
        return sizes


def _daemons_cpu_s() -> float:
    """CPU time of Ray's own processes so far."""
    import psutil

    found = 0.0
    for process in psutil.Process().children(recursive=True):
        try:
            command = " ".join(process.cmdline())
            if "ray::" not in command and "default_worker" not in command:
                found += sum(process.cpu_times()[:2])
        except psutil.Error:
            continue
    return found


# -- other ways ------------------------------------------------------------------------------------


def _stage_by_stage(portraits: int, unit: float) -> dict[str, Any]:
    """A task per portrait and stage, and ``ray.get`` between the stages; models are loaded anew."""
    import ray

    began = time.monotonic()
    for name in TIMES:
        sleep = ray.remote(num_gpus=SHARES[name], num_cpus=0)(_sleep)
        load_s = 0.0 if name == "train" else LOAD_TIME * unit
        ray.get([sleep.remote(load_s + TIMES[name] * unit) for _ in range(portraits)])
    return {"makespan_s": time.monotonic() - began}


def _sleep(seconds: float) -> None:
    time.sleep(seconds)


class _SleepingActor:
    def __init__(self, load_s: float, seconds: float) -> None:
        time.sleep(load_s)
        self._seconds = seconds

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        time.sleep(self._seconds)
        return row


def _ray_data(portraits: int, unit: float) -> dict[str, Any]:
    """All four stages as maps of one Dataset: pools that may grow, trainings as its tasks."""
    import ray

    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    rows = [{"number": number} for number in range(portraits)]
    dataset = ray.data.from_items(rows, override_num_blocks=portraits)
    for name in TIMES:
        if name == "train":
            seconds = TIMES[name] * unit
            dataset = dataset.map(_training(seconds), num_cpus=0, num_gpus=SHARES[name])
        else:
            dataset = dataset.map(
                _SleepingActor,
                compute=ray.data.ActorPoolStrategy(min_size=1, max_size=8),
                num_cpus=0,
                num_gpus=SHARES[name],
                fn_constructor_args=(LOAD_TIME * unit, TIMES[name] * unit),
            )
    began = time.monotonic()
    count = sum(1 for _ in dataset.iter_batches(batch_size=None, prefetch_batches=0))
    if count != portraits:
        raise SystemExit(f"{count} of {portraits} came out")
    return {"makespan_s": time.monotonic() - began}


def _training(seconds: float) -> Any:
    def work(row: dict[str, Any]) -> dict[str, Any]:
        time.sleep(seconds)
        return row

    return work


# -- the table -------------------------------------------------------------------------------------


def _table(results: list[dict[str, Any]]) -> str:
    lines = [
        "| GPUs | way | makespan, s | ideal, s | ratio | bound, s |",
        "|---|---|---|---|---|---|",
    ]
    for r in results:
        lines.append(
            f"| {r['gpus']} | {r['way']} | {r['makespan_s']:.0f} | {r['ideal_s']:.0f} "
            f"| {r['makespan_s'] / r['ideal_s']:.3f} | {r['bound_s']:.0f} |"
        )
    for r in results:
        if r["way"] == "runner":
            lines.append(json.dumps({k: v for k, v in r.items() if k != "way"}))
    return "\n".join(lines)


if __name__ == "__main__":
    main()
