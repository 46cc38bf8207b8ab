"""Long form of the chaos tests: a run is hurt every few seconds until it has ended by itself.

    python tests/chaos/long_run.py --portraits 200 [--s3] [--report FILE]

A Ray cluster of several nodes on this machine (loopback only), a driver process that is started
again whenever it was killed, and a monkey that kills front actors, training processes, nodes and
the driver in turn. In the end every portrait must have exactly one row, every committed file its
checksum, no attempt may be left over after ``fc4d gc``, poison must be quarantined after three
tries of its own, and nobody else must have failed.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
REPOSITORY = HERE.parents[1]
PATHS = [str(HERE), str(HERE.parent / "pipeline"), str(REPOSITORY)]
ENVIRONMENT = {
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
    "RAY_AUTH_MODE": "disabled",
    "RAY_USAGE_STATS_ENABLED": "0",
    "OMP_NUM_THREADS": "1",
    "PYTHONPATH": os.pathsep.join([*PATHS, os.environ.get("PYTHONPATH", "")]),
}
_KINDS = ("worker", "worker", "training", "training", "node", "driver")
_CPUS_PER_NODE = 2


def main() -> None:
    """Parse options, hurt, check, report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--portraits", type=int, default=200)
    parser.add_argument("--poison", type=int, default=3, help="of them, portraits that crash")
    parser.add_argument("--nodes", type=int, default=3)
    parser.add_argument("--interval", type=float, default=5.0, help="seconds between two kills")
    parser.add_argument("--minutes", type=float, default=60.0, help="give up after that long")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--s3", action="store_true", help="on a failing S3 server, two drivers")
    parser.add_argument("--report", type=Path, help="JSON file")
    options = parser.parse_args()
    os.environ.update(ENVIRONMENT)
    sys.path[:0] = PATHS
    with tempfile.TemporaryDirectory(prefix="fc4d-chaos-") as folder, contextlib.ExitStack() as on:
        store = on.enter_context(_failing_s3()) if options.s3 else f"{folder}/out"
        nodes = on.enter_context(_nodes(options.nodes))
        texts = _portraits(Path(folder) / "portraits", options.portraits, options.poison)
        chaos = _Chaos(Path(folder), store, nodes, options, texts)
        try:
            report = chaos.run()
        finally:
            chaos.end_drivers()
        report |= _check(store, texts, options.s3)
    sys.stdout.write(json.dumps(report, indent=1) + "\n")
    if options.report:
        options.report.write_text(json.dumps(report, indent=1) + "\n")


def _portraits(folder: Path, count: int, poison: int) -> dict[str, str]:
    """Fake portraits by name; a few of them end whatever process trains or shapes them."""
    folder.mkdir()
    texts = {f"p{number:04}": f"p{number:04}" for number in range(count - poison)}
    for number in range(poison):
        stage = ("train", "shape")[number % 2]
        texts[f"poison{number}"] = f"poison{number} kill:{stage}"
    for name, text in texts.items():
        (folder / f"{name}.png").write_text(text)
    return texts


def _check(store: str, texts: dict[str, str], on_s3: bool) -> dict[str, Any]:
    from chaos_checks import check_output

    if on_s3:
        import s3fs

        os.environ["AWS_ENDPOINT_URL"] = os.environ["CHAOS_HEALTHY_ENDPOINT"]
        s3fs.S3FileSystem.clear_instance_cache()  # connections keep the address they began with
    expected = {
        name: ("failed", "PoisonInput") if "kill:" in text else ("succeeded", None)
        for name, text in texts.items()
    }
    return {"found": check_output(store, expected)}


@dataclass
class _Chaos:
    """Drivers, nodes and the monkey."""

    folder: Path
    store: str
    nodes: _Nodes
    options: argparse.Namespace
    texts: dict[str, str]
    drivers: list[subprocess.Popen[bytes]] = field(default_factory=list)
    done: Counter[str] = field(default_factory=Counter)
    exits: list[int] = field(default_factory=list)

    def run(self) -> dict[str, Any]:
        from monkey import Monkey

        from fc4d_ray.store.digests import digest_bytes
        from fc4d_ray.store.location import open_output

        storage = open_output(self.store, create=True)
        poison = {digest_bytes(text.encode()) for text in self.texts.values() if "kill:" in text}
        monkey = Monkey(storage, poison, self.options.seed)
        choice = random.Random(self.options.seed)
        began = time.monotonic()
        wanted = 2 if self.options.s3 else 1
        while not self._has_ended(wanted):
            if time.monotonic() - began > 60 * self.options.minutes:
                raise SystemExit(f"no end after {self.options.minutes} minutes: {self.done}")
            time.sleep(self.options.interval)
            kind = choice.choice(_KINDS)
            if kind == "driver" and self.drivers:
                choice.choice(self.drivers).kill()
                self.done["driver"] += 1
            elif kind == "node":
                self.nodes.replace(choice)
                self.done["node"] += 1
            else:
                stages = ("train", "publish") if kind == "training" else ("ingest", "shape")
                if monkey.kill_worker(stages):
                    self.done[kind] += 1
        return {
            "portraits": len(self.texts),
            "poison": len(poison),
            "s3": self.options.s3,
            "seconds": round(time.monotonic() - began),
            "kills": dict(self.done),
            "driver_exit_codes": {str(k): n for k, n in Counter(self.exits).items()},
            "most_kills_of_one_portrait": max(monkey.kills.values(), default=0),
        }

    def _has_ended(self, wanted: int) -> bool:
        """Start drivers that are missing; true once they have ended by themselves."""
        for driver in list(self.drivers):
            if driver.poll() is not None:
                self.exits.append(driver.returncode)
                self.drivers.remove(driver)
        finished = sum(code in (0, 3) for code in self.exits)
        if finished >= wanted:
            return not self.drivers
        while len(self.drivers) + finished < wanted:
            self.drivers.append(self._start())
        return False

    def _start(self) -> subprocess.Popen[bytes]:
        config = self.folder / "chaos.yaml"
        config.write_text(
            "registry: fake_stages:REGISTRY\n"
            "run: {progress_interval_s: 5, threads: 1, training_reserve: 2}\n"
            "shape: {seconds: 0.5}\ntrain: {seconds: 3}\n"
        )
        arguments = ["run", str(self.folder / "portraits"), "--out", self.store]
        arguments += ["--config", str(config), "--set", f"run.ray_address={self.nodes.address}"]
        log = (self.folder / f"driver-{len(self.exits)}-{uuid.uuid4().hex[:4]}.log").open("wb")
        code = "from fc4d_ray.cli import app; app()"
        return subprocess.Popen([sys.executable, "-c", code, *arguments], stdout=log, stderr=log)

    def end_drivers(self) -> None:
        """Kill what is left and show the end of the last log, if something went wrong."""
        for driver in self.drivers:
            driver.kill()
        if sys.exc_info()[0] is not None:
            logs = sorted(self.folder.glob("driver-*.log"), key=lambda path: path.stat().st_mtime)
            for path in logs[-2:]:
                sys.stderr.write(f"--- {path.name}\n{path.read_text()[-3000:]}\n")


class _Nodes:
    """Nodes of a Ray cluster on this machine; the head has no place for work."""

    def __init__(self, count: int) -> None:
        self._cluster = _patiently(_start_cluster)
        self.address = self._cluster.address
        self._nodes = [self._add() for _ in range(count)]

    def _add(self) -> Any:
        return _patiently(
            lambda: self._cluster.add_node(num_cpus=_CPUS_PER_NODE, object_store_memory=2**27)
        )

    def replace(self, choice: random.Random) -> None:
        """One node dies without a word, another one comes."""
        node = choice.choice(self._nodes)
        self._nodes.remove(node)
        self._cluster.remove_node(node, allow_graceful=False)
        self._nodes.append(self._add())

    def end(self) -> None:
        """Stop all of them."""
        self._cluster.shutdown()


def _start_cluster() -> Any:
    from ray.cluster_utils import Cluster

    return Cluster(
        initialize_head=True, head_node_args={"num_cpus": 0, "object_store_memory": 2**27}
    )


def _patiently(start: Callable[[], Any]) -> Any:
    """Ray gives a node half a minute to come up, which is short on a busy machine."""
    for _ in range(5):
        with contextlib.suppress(Exception):
            return start()
    return start()


@contextlib.contextmanager
def _nodes(count: int) -> Iterator[_Nodes]:
    nodes = _Nodes(count)
    try:
        yield nodes
    finally:
        nodes.end()


@contextlib.contextmanager
def _failing_s3() -> Iterator[str]:
    """An S3 API server in a process of its own, and the failing proxy in front of it."""
    from faulty_proxy import FaultyProxy

    port = _free_port()
    server = subprocess.Popen(
        [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        with FaultyProxy("127.0.0.1", port, share=0.05) as proxy:
            healthy = f"http://127.0.0.1:{port}"
            os.environ.update(
                {
                    "AWS_ACCESS_KEY_ID": "test",
                    "AWS_SECRET_ACCESS_KEY": "test",
                    "AWS_DEFAULT_REGION": "us-east-1",
                    "AWS_ENDPOINT_URL": proxy.address,
                    "CHAOS_HEALTHY_ENDPOINT": healthy,
                }
            )
            _make_bucket(healthy)
            yield "s3://chaos/out"
            sys.stderr.write(f"{proxy.requests} requests, faults: {dict(proxy.faults)}\n")
    finally:
        server.send_signal(signal.SIGTERM)
        server.wait()


def _make_bucket(endpoint: str) -> None:
    import s3fs

    until = time.monotonic() + 60
    while True:
        try:
            s3fs.S3FileSystem(endpoint_url=endpoint, skip_instance_cache=True).mkdir("chaos")
            return
        except Exception:
            if time.monotonic() > until:
                raise
            time.sleep(0.5)


def _free_port() -> int:
    import socket

    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


if __name__ == "__main__":
    main()
