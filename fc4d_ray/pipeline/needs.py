"""What each group of stages needs and takes: shares, and times measured or estimated."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from fc4d_ray.config import RunConfig, RunSettings
from fc4d_ray.errors import ConfigError
from fc4d_ray.pipeline.hardware import Hardware

_GUESSED_SECONDS = {"front": 60.0, "training": 600.0}
"""For stages that nobody has measured or estimated."""


@dataclass(frozen=True)
class Cost:
    """Time of one stage on one portrait."""

    seconds: float
    origin: str
    """``measured``, ``estimate`` (the configuration's) or ``guess``."""


@dataclass(frozen=True)
class Needs:
    """A group of stages that share a process, and what one such process holds."""

    stages: tuple[str, ...]
    gpus: float
    """Share of one GPU."""
    cpus: float
    memory_gib: float
    seconds: float
    """Per portrait, on a GPU of speed 1."""
    kinds: tuple[str, ...] | None = None
    """GPU types it may use; None for any."""

    @property
    def name(self) -> str:
        """For messages."""
        return "+".join(self.stages)

    def fits(self, kind: str | None) -> bool:
        """Whether a GPU of that type will do."""
        return self.kinds is None or kind in self.kinds


def stage_costs(config: RunConfig, measured: Mapping[str, float] | None = None) -> dict[str, Cost]:
    """Times per stage: what rows of an output took, else the configuration's estimate."""
    costs = {}
    for section in config.sections:
        name = section.entry.name
        seconds = config.run.needs(name).seconds
        if measured and name in measured:
            costs[name] = Cost(measured[name], "measured")
        elif seconds is not None:
            costs[name] = Cost(seconds, "estimate")
        else:
            costs[name] = Cost(_GUESSED_SECONDS[section.entry.part], "guess")
    return costs


def measured_seconds(manifest: Any) -> dict[str, float]:
    """Median seconds per stage over the finished rows of a manifest; empty without such rows."""
    import numpy as np
    import pyarrow.compute as pc

    rows = manifest.filter(pc.equal(manifest["status"], "succeeded"))
    found = {}
    for name in rows.column_names:
        if name.startswith("seconds_") and name != "seconds_total":
            values = rows[name].drop_null().to_numpy()
            if len(values) and np.median(values) > 0:
                found[name.removeprefix("seconds_")] = float(np.median(values))
    return found


def front_groups(config: RunConfig) -> tuple[tuple[str, ...], ...]:
    """Stages of each front worker: as configured, else every GPU stage alone.

    Raises ``ConfigError`` where ``run.front_groups`` is no division of the front stages.
    """
    settings = config.run
    front = tuple(s.entry.name for s in config.sections if s.entry.part == "front")
    groups = settings.front_groups
    if groups:
        if tuple(name for group in groups for name in group) != front or not all(groups):
            raise ConfigError(
                f"run.front_groups must hold the front stages {', '.join(front)} once and in "
                f"order, found {[list(group) for group in groups]}"
            )
        return groups
    found: list[list[str]] = []
    for name in front:
        alone = settings.needs(name).uses_gpu
        if found and not alone and not settings.needs(found[-1][-1]).uses_gpu:
            found[-1].append(name)
        else:
            found.append([name])
    return tuple(tuple(group) for group in found)


def all_needs(
    config: RunConfig, hardware: Hardware, costs: Mapping[str, Cost], threads: int = 1
) -> tuple[tuple[Needs, ...], Needs | None]:
    """Needs of the front groups in order, and of a training; None without training stages.

    ``threads``: CPUs of a worker without GPU about which the configuration says nothing.
    Raises ``ConfigError`` naming the stage that no machine here can do.
    """
    settings = replace(config.run, threads=config.run.threads or threads)
    training = tuple(s.entry.name for s in config.sections if s.entry.part == "training")
    front = tuple(
        _group(group, settings, hardware, costs, together=True) for group in front_groups(config)
    )
    if not training:
        return front, None
    return front, _group(training, settings, hardware, costs, together=False)


def _group(
    stages: tuple[str, ...],
    settings: RunSettings,
    hardware: Hardware,
    costs: Mapping[str, Cost],
    *,
    together: bool,
) -> Needs:
    """``together``: the stages' models are in memory at the same time; else one after another."""
    total = sum if together else max
    shares = [_share(name, settings, hardware) for name in stages]
    limits = [kinds for _, kinds in shares if kinds is not None]
    kinds = tuple(k for k in hardware.kinds if all(k in limit for limit in limits))
    gpus = round(total(share for share, _ in shares), 4)
    if gpus > 1:
        raise ConfigError(
            f"the stages {', '.join(stages)} share a worker and ask for {gpus:g} GPUs together: "
            "lower run.stages.<name>.gpus or separate them with run.front_groups"
        )
    if gpus and limits and not kinds:
        raise ConfigError(f"no GPU type here suits all of the stages {', '.join(stages)}")
    cpus = [_cpus(name, settings, gpus) for name in stages]
    return Needs(
        stages=stages,
        gpus=gpus,
        cpus=max(cpus),
        memory_gib=total(settings.needs(name).memory_gib for name in stages),
        seconds=sum(costs[name].seconds for name in stages),
        kinds=kinds if limits and set(kinds) != set(hardware.kinds) else None,
    )


def _cpus(stage: str, settings: RunSettings, gpus: float) -> float:
    own = settings.needs(stage).cpus
    if own is not None:
        return own
    return 0.0 if gpus else float(settings.threads or 1)


def _share(
    stage: str, settings: RunSettings, hardware: Hardware
) -> tuple[float, tuple[str, ...] | None]:
    """Share of a GPU for a stage, and the types that have room for it (None: all have)."""
    needs = settings.needs(stage)
    if not needs.uses_gpu:
        return 0.0, None
    if not hardware.gpus:
        raise ConfigError(
            f"stage {stage} needs a GPU and the cluster has none: add one, or set "
            f"run.stages.{stage}.gpus and gpu_memory_gib to 0 where the stage can do without"
        )
    if not needs.gpu_memory_gib:
        return float(needs.gpus or 0), None
    memory = {gpu.kind: gpu.memory_gib for gpu in hardware.gpus if gpu.kind}
    known = {kind: size for kind, size in memory.items() if size is not None}
    if needs.gpus is not None:
        if not known:
            return needs.gpus, None
        suited = {
            k for k, size in known.items() if needs.gpus * size >= needs.gpu_memory_gib - 1e-6
        }
        suited |= set(memory) - set(known)
        if not suited:
            largest = max(known.values())
            raise ConfigError(
                f"stage {stage} needs {needs.gpu_memory_gib:g} GiB of GPU memory; its share "
                f"run.stages.{stage}.gpus = {needs.gpus:g} gives at most "
                f"{needs.gpus * largest:g} GiB here"
            )
        return needs.gpus, tuple(sorted(suited))
    if not known:
        raise ConfigError(
            f"the memory of this cluster's GPUs is not known: give run.stages.{stage}.gpus"
        )
    return _share_from_memory(stage, needs.gpu_memory_gib, hardware, known)


def _share_from_memory(
    stage: str, needed_gib: float, hardware: Hardware, known: Mapping[str, float]
) -> tuple[float, tuple[str, ...]]:
    """The share that lets the most work run at a time; it may leave out small GPUs."""

    def work(smallest: float) -> float:
        places = math.floor(1 / _rounded_share(needed_gib / smallest))
        return sum(
            gpu.speed * places for gpu in hardware.gpus if known.get(gpu.kind or "", 0) >= smallest
        )

    sizes = sorted({size for size in known.values() if size >= needed_gib})
    if not sizes:
        raise ConfigError(
            f"stage {stage} needs {needed_gib:g} GiB of GPU memory; the largest GPU here has "
            f"{max(known.values()):g} GiB"
        )
    smallest = max(sizes, key=work)
    suited: Iterable[str] = (kind for kind, size in known.items() if size >= smallest)
    return _rounded_share(needed_gib / smallest), tuple(sorted(suited))


def _rounded_share(share: float) -> float:
    """Up to a thousandth, so that shares never add up to more than the memory."""
    return min(1.0, math.ceil(share * 1000 - 1e-6) / 1000)
