"""Starting or joining Ray: quiet, on loopback, without a dashboard, with limited threads."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass

from fc4d_ray.config import RunSettings
from fc4d_ray.errors import RunError
from fc4d_ray.pipeline.resources import (
    Allotment,
    allot,
    available_memory_gib,
    thread_environment,
    usable_cores,
)

_OBJECT_STORE_BYTES = 128 * 2**20
"""Rows hold addresses and facts, never pixels."""
LOCAL_CLUSTER_ENVIRONMENT = {
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # every listener binds to 127.0.0.1
    "RAY_AUTH_MODE": "disabled",  # nothing listens beyond loopback, and no token file is written
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_DATA_DISABLE_PROGRESS_BARS": "1",
}


@dataclass(frozen=True)
class Cluster:
    """The cluster a run works on."""

    allotment: Allotment
    is_ours: bool
    """Started for this run, and ended with it."""


@contextlib.contextmanager
def connected(portraits: int, settings: RunSettings) -> Iterator[Cluster]:
    """Join the configured cluster, the one this process is in already, or start one for the block.

    A cluster of our own counts as many CPUs as the allotment has threads: front workers and
    trainings may overlap, and the system shares the cores between them.
    """
    address = settings.ray_address or os.environ.get("RAY_ADDRESS")
    if "ray" in sys.modules and sys.modules["ray"].is_initialized():
        yield Cluster(_allot_on_cluster(portraits, settings), is_ours=False)
    elif address:
        with _joined(address):
            yield Cluster(_allot_on_cluster(portraits, settings), is_ours=False)
    else:
        allotment = allot(portraits, settings, usable_cores(), available_memory_gib())
        with _started(allotment):
            yield Cluster(allotment, is_ours=True)


@contextlib.contextmanager
def _joined(address: str) -> Iterator[None]:
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
def _started(allotment: Allotment) -> Iterator[None]:
    """A cluster of our own. The variables must stand before Ray is imported."""
    variables = LOCAL_CLUSTER_ENVIRONMENT | thread_environment(allotment.threads)
    if not logging.getLogger("fc4d_ray").isEnabledFor(logging.DEBUG):
        variables |= {"RAY_BACKEND_LOG_LEVEL": "fatal"}
    with _environment(variables):
        import ray

        ray.init(
            address="local",
            num_cpus=(allotment.front_workers + allotment.training_slots) * allotment.threads,
            include_dashboard=False,
            object_store_memory=_OBJECT_STORE_BYTES,
            log_to_driver=False,
            logging_level="ERROR",
        )
        try:
            yield
        finally:
            ray.shutdown()


def _allot_on_cluster(portraits: int, settings: RunSettings) -> Allotment:
    """Half of the CPUs for the front, the rest for trainings, while both are at work."""
    import ray

    resources = ray.cluster_resources()
    cores = max(1, int(resources.get("CPU", 1)))
    memory_gib = resources.get("memory", float("inf")) / 2**30
    return allot(portraits, settings, max(1, cores // 2), memory_gib / 2)


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
