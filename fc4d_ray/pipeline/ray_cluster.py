"""Starting or joining Ray: quiet, on loopback, without a dashboard, with limited threads."""

from __future__ import annotations

import contextlib
import logging
import math
import os
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from fc4d_ray.errors import ConfigError, RunError, StoreError
from fc4d_ray.pipeline.capacity import Capacity, Pool, plan_capacity, share_cores, training_slots
from fc4d_ray.pipeline.forecast import Forecast
from fc4d_ray.pipeline.hardware import Hardware, Node
from fc4d_ray.pipeline.needs import all_needs, front_groups, measured_seconds, stage_costs
from fc4d_ray.pipeline.resources import (
    Allotment,
    allot,
    available_memory_gib,
    thread_environment,
    usable_cores,
)

if TYPE_CHECKING:
    from fc4d_ray.pipeline.run import RunSession

_OBJECT_STORE_BYTES = 128 * 2**20
"""Rows hold addresses and facts, never pixels."""
LOCAL_CLUSTER_ENVIRONMENT = {
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # every listener binds to 127.0.0.1
    "RAY_AUTH_MODE": "disabled",  # nothing listens beyond loopback, and no token file is written
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_DATA_DISABLE_PROGRESS_BARS": "1",
}


_POLL_SECONDS = 5.0
_STARTS = 3

_log = logging.getLogger(__name__)


class Cluster:
    """The cluster a run works on, and how it is used now."""

    def __init__(self, session: RunSession, hardware: Hardware, threads: int) -> None:
        self._session = session
        self._costs = stage_costs(session.config, _measured(session))
        self.threads = threads
        self.hardware = hardware
        self.capacity = self._plan(hardware)
        self.slots = self.slots_beside(self.capacity.front)

    def look_again(self) -> bool:
        """Take notice of nodes that came or went since the last look; whether any did.

        A cluster on which a stage has no place at the moment keeps its plan: nodes may come back.
        """
        import ray

        hardware = Hardware.from_ray(ray.nodes())
        if hardware == self.hardware:
            return False
        self.hardware = hardware
        with contextlib.suppress(ConfigError):
            capacity = self._plan(hardware)
            if capacity.takes_turns == self.capacity.takes_turns:
                self.capacity = capacity
        self.slots = self.slots_beside(self.capacity.front)
        return True

    def _plan(self, hardware: Hardware) -> Capacity:
        front, training = all_needs(self._session.config, hardware, self._costs, self.threads)
        return plan_capacity(hardware, front, training, len(self._session.portraits))

    def slots_beside(self, front: Sequence[Pool]) -> int:
        """Trainings at a time beside these front pools, on the machines as they are now."""
        capacity = self.capacity
        if capacity.training is None:
            return 0
        beside = () if capacity.takes_turns else front
        return max(1, training_slots(self.hardware, beside, capacity.training.needs))

    def forecast(self) -> Forecast:
        """What the run will take."""
        return Forecast(self.capacity, len(self._session.portraits), self._costs)


class OwnCluster(Cluster):
    """A cluster on this machine's CPUs only: its workers may outnumber the cores.

    No stage is parallel from end to end, so the cores stay busy whichever part is slower.
    """

    def __init__(self, session: RunSession, allotment: Allotment) -> None:
        self._allotment = allotment
        memory_gib = available_memory_gib()
        super().__init__(session, Hardware((Node(usable_cores(), memory_gib),)), allotment.threads)

    def look_again(self) -> bool:
        """One machine stays one machine."""
        return False

    def _plan(self, hardware: Hardware) -> Capacity:
        front, training = all_needs(self._session.config, hardware, self._costs, self.threads)
        sizes = (self._allotment.front_workers, self._allotment.training_slots)
        return share_cores(hardware, front, training, sizes, self.threads)

    def slots_beside(self, front: Sequence[Pool]) -> int:
        """The same whatever the front does: cores are shared by the system."""
        return self._allotment.training_slots


@contextlib.contextmanager
def connected(session: RunSession) -> Iterator[Cluster]:
    """Join the configured cluster, the one this process is in already, or start one for the block.

    Tells the user how the cluster will be used. Raises ``ConfigError`` naming the stage that has no
    place on it.
    """
    settings = session.config.run
    front_groups(session.config)
    address = settings.ray_address or os.environ.get("RAY_ADDRESS")
    needs_gpu = any(settings.needs(name).uses_gpu for name in session.config.stage_names)
    with contextlib.ExitStack() as stack:
        if "ray" in sys.modules and sys.modules["ray"].is_initialized():
            cluster = _cluster_of_nodes(session)
        elif address:
            stack.enter_context(joined(address))
            cluster = _cluster_of_nodes(session)
        elif needs_gpu:
            threads = thread_environment(settings.threads or usable_cores())
            stack.enter_context(started(usable_cores(), threads))
            cluster = _cluster_of_nodes(session)
        else:
            cores, memory_gib = usable_cores(), available_memory_gib()
            allotment = allot(len(session.portraits), settings, cores, memory_gib)
            cluster = OwnCluster(session, allotment)
            workers = sum(pool.size for pool in cluster.capacity.pools)
            threads = thread_environment(allotment.threads)
            stack.enter_context(started(workers * allotment.threads, threads))
        if len(session.portraits) > 1 or cluster.hardware.gpus:
            for line in cluster.forecast().lines():
                session.say(line)
        yield cluster


def _cluster_of_nodes(session: RunSession) -> Cluster:
    """The cluster this process has joined; waits for its machines as long as configured."""
    import ray

    settings = session.config.run
    patience_s = 60 * settings.wait_for_machines_minutes
    until = time.monotonic() + patience_s
    while True:
        hardware = Hardware.from_ray(ray.nodes())
        try:
            return Cluster(session, hardware, _threads(session, hardware))
        except ConfigError as error:
            if time.monotonic() > until:
                raise
            session.say(f"waiting for machines: {error}")
            _ask_for_machines(session)
            time.sleep(_POLL_SECONDS)


def _ask_for_machines(session: RunSession) -> None:
    """Tell an autoscaler what one portrait's stages need; without one nothing happens."""
    from ray.autoscaler.sdk import request_resources

    settings = session.config.run
    gpus = sum(settings.needs(name).uses_gpu for name in session.config.stage_names)
    request_resources(bundles=[{"CPU": 1, "GPU": 1}] if gpus else [{"CPU": 1}])


def _threads(session: RunSession, hardware: Hardware) -> int:
    """Threads per worker on a cluster; half of the CPUs are for each of front and trainings."""
    settings = session.config.run
    cores, memory_gib = max(1, int(hardware.cpus) // 2), sum(n.memory_gib for n in hardware.nodes)
    return allot(len(session.portraits), settings, cores, (memory_gib or math.inf) / 2).threads


def _measured(session: RunSession) -> dict[str, float]:
    """Stage times of the output's finished rows; none where the manifest cannot be read."""
    from fc4d_ray.store.manifest import read_manifest

    try:
        return measured_seconds(read_manifest(session.storage))
    except StoreError:
        return {}


@contextlib.contextmanager
def joined(address: str) -> Iterator[None]:
    import ray

    try:
        ray.init(address=address, log_to_driver=False, logging_level="ERROR")
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise RunError(f"cannot join the Ray cluster {address}: {error}") from error
    try:
        yield
    finally:
        ray.shutdown()


@contextlib.contextmanager
def started(cpus: int, threads: dict[str, str]) -> Iterator[None]:
    """A cluster of our own. The variables must stand before Ray is imported."""
    variables = LOCAL_CLUSTER_ENVIRONMENT | threads
    if not logging.getLogger("fc4d_ray").isEnabledFor(logging.DEBUG):
        variables |= {"RAY_BACKEND_LOG_LEVEL": "fatal"}
    with _environment(variables):
        import ray

        with _without_line(b"Set ray log level from environment variable"):
            _init(cpus)
        try:
            yield
        finally:
            ray.shutdown()


def _init(cpus: int) -> None:
    """Start a cluster; more than once, because Ray gives its node only half a minute to come up."""
    import ray

    for tries in range(1, _STARTS + 1):
        try:
            return _init_once(cpus)
        except Exception as error:
            # Ray raises bare exceptions here; what its processes said lies in its log folder.
            ray.shutdown()
            if tries == _STARTS:
                raise RunError(
                    f"Ray did not start in {_STARTS} tries, is this machine overloaded? ({error})"
                ) from error
            _log.warning("Ray did not start, trying again: %s", error)


def _init_once(cpus: int) -> None:
    import ray

    ray.init(
        address="local",
        num_cpus=cpus,
        include_dashboard=False,
        object_store_memory=_OBJECT_STORE_BYTES,
        log_to_driver=False,
        logging_level="ERROR",
    )


@contextlib.contextmanager
def _without_line(marker: bytes) -> Iterator[None]:
    """Hold back what the block writes to the error stream, and pass it on without one line.

    Ray's core tells there, from C++ and before any level applies, that it took note of its level.
    """
    sys.stderr.flush()
    with tempfile.TemporaryFile() as held:
        stream = os.dup(2)
        os.dup2(held.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(stream, 2)
            os.close(stream)
            held.seek(0)
            for line in held:
                if marker not in line:
                    os.write(2, line)


@contextlib.contextmanager
def _environment(variables: dict[str, str]) -> Iterator[None]:
    """Set environment variables for the block; Ray's processes inherit them."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
