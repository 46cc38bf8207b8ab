"""Planning a run without a cluster: on machines that exist on paper only, or on this one."""

from __future__ import annotations

from collections.abc import Mapping

from fc4d_ray.config import RunConfig
from fc4d_ray.errors import ConfigError
from fc4d_ray.pipeline.capacity import plan_capacity, share_cores
from fc4d_ray.pipeline.forecast import Forecast
from fc4d_ray.pipeline.hardware import Hardware, Node
from fc4d_ray.pipeline.needs import all_needs, measured_seconds, stage_costs
from fc4d_ray.pipeline.resources import allot, available_memory_gib, usable_cores


def forecast_on_paper(
    config: RunConfig,
    portraits: int,
    gpus: Mapping[str, int],
    *,
    measured_in: str | None = None,
    price_per_gpu_hour: float | None = None,
) -> Forecast:
    """What ``portraits`` portraits will take on so many GPUs of each type; none: on this machine.

    ``measured_in``: output of earlier runs whose stage times count. Raises ``ConfigError`` naming
    the stage that none of the machines can do, ``StoreError`` where there is no such output.
    """
    if portraits < 1:
        raise ConfigError(f"nothing to plan for {portraits} portraits")
    costs = stage_costs(config, _measured(measured_in))
    if gpus:
        hardware = Hardware.imagined(gpus)
        front, training = all_needs(config, hardware, costs)
        capacity = plan_capacity(hardware, front, training, portraits)
    else:
        cores, memory_gib = usable_cores(), available_memory_gib()
        hardware = Hardware((Node(cores, memory_gib),))
        allotment = allot(portraits, config.run, cores, memory_gib)
        front, training = all_needs(config, hardware, costs, allotment.threads)
        sizes = (allotment.front_workers, allotment.training_slots)
        capacity = share_cores(hardware, front, training, sizes, allotment.threads)
    return Forecast(capacity, portraits, costs, price_per_gpu_hour)


def _measured(output: str | None) -> dict[str, float]:
    if output is None:
        return {}
    from fc4d_ray.store.manifest import read_manifest

    found = measured_seconds(read_manifest(output))
    if not found:
        raise ConfigError(f"{output} holds no finished avatar to take times from")
    return found
