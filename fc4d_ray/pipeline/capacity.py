"""The planner: pool sizes and training slots for a cluster, and what rate they give.

Front workers are few and stay; trainings fill what is left of the GPUs. Starting from one worker
per front group, the slowest group gets one more as long as that raises the rate of the whole: so
the front is just fast enough to feed the trainings, with some headroom. A run of few portraits is
over before it is in balance; there a faster front pays, whose GPUs the trainings take over in the
end, and the pools with the shortest simulated run are chosen. Where not even one worker of each
fits beside a training, the groups take turns, each with the whole cluster.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from fc4d_ray.errors import ConfigError
from fc4d_ray.pipeline.hardware import Gpu, Hardware
from fc4d_ray.pipeline.makespan import SimulatedPool, makespan_s
from fc4d_ray.pipeline.needs import Needs

FRONT_HEADROOM = 1.1
"""How much faster than the trainings the front should be: it restarts, and fills up at first."""
_EPSILON = 1e-6
_SIMULATED_PORTRAITS = 2000
"""Runs of more portraits are judged by their rate alone."""
_FRONT_FACTORS = tuple(1 + 0.25 * step for step in range(1, 37))
"""Speeds of the front tried for short runs, relative to what feeds the trainings in balance."""
_GROWTH_DIVISOR = 32
"""Large pools grow by a 32nd at a time."""
_WORTH_IT = 0.98
"""More workers mean more models to load: a shorter run must be shorter by this."""


@dataclass(frozen=True)
class Pool:
    """Workers of one kind."""

    needs: Needs
    size: int
    rate: float
    """Portraits per second, all workers together."""


@dataclass(frozen=True)
class Capacity:
    """How a run uses a cluster."""

    hardware: Hardware
    front: tuple[Pool, ...]
    training: Pool | None
    takes_turns: bool = False
    """The front groups and the trainings work one after another instead of side by side."""
    training_alone: int = 0
    """Trainings at a time once the front is through."""

    @property
    def pools(self) -> tuple[Pool, ...]:
        """All pools in the order of the stages."""
        return (*self.front, *((self.training,) if self.training else ()))

    @property
    def rate(self) -> float:
        """Portraits per second in the long run."""
        if self.takes_turns:
            return 1 / sum(1 / pool.rate for pool in self.pools)
        return min(pool.rate for pool in self.pools)

    @property
    def bottleneck(self) -> Pool:
        """The pool that decides the rate."""
        return min(self.pools, key=lambda pool: pool.rate)

    @property
    def latency_s(self) -> float:
        """From a portrait's start to its avatar, when all pools are busy."""
        return sum(min(pool.size / pool.rate, pool.needs.seconds) for pool in self.pools)

    def seconds(self, portraits: int) -> float:
        """Expected time for that many portraits."""
        if not self.takes_turns and 0 < portraits <= _SIMULATED_PORTRAITS:
            front = [_simulated(pool) for pool in self.front]
            training = _simulated(self.training) if self.training else None
            return makespan_s(front, training, portraits, self.training_alone)
        return self.latency_s + max(0, portraits - 1) / self.rate if portraits else 0.0

    def gpu_seconds(self) -> float:
        """GPU share times time of one portrait's stages, on GPUs of speed 1."""
        return sum(pool.needs.gpus * pool.needs.seconds for pool in self.pools)


class _Board:
    """What of a cluster is still free while workers are put onto it."""

    def __init__(self, hardware: Hardware) -> None:
        self._cpus = [node.cpus for node in hardware.nodes]
        # A node that does not tell its memory is not limited by it.
        self._memory = [node.memory_gib or math.inf for node in hardware.nodes]
        self._gpus: list[tuple[int, Gpu]] = [
            (number, gpu) for number, node in enumerate(hardware.nodes) for gpu in node.gpus
        ]
        self._free = [1.0] * len(self._gpus)

    def place(self, needs: Needs) -> Gpu | None:
        """Put one worker where it fits most tightly; the GPU it got (any for CPU workers)."""
        if not needs.gpus:
            node = max(range(len(self._cpus)), key=self._cpus.__getitem__, default=None)
            if node is None or not self._node_fits(node, needs):
                return None
            self._take(node, needs)
            return Gpu()
        fitting = [
            number
            for number, (node, gpu) in enumerate(self._gpus)
            if self._free[number] >= needs.gpus - _EPSILON
            and needs.fits(gpu.kind)
            and self._node_fits(node, needs)
        ]
        if not fitting:
            return None
        number = min(fitting, key=self._free.__getitem__)
        node, gpu = self._gpus[number]
        self._free[number] -= needs.gpus
        self._take(node, needs)
        return gpu

    def fill(self, needs: Needs) -> list[Gpu]:
        """Put as many workers as there is room for, the tightest places first."""
        placed: list[Gpu] = []
        if not needs.gpus:
            while (gpu := self.place(needs)) is not None:
                placed.append(gpu)
            return placed
        for number in sorted(range(len(self._gpus)), key=self._free.__getitem__):
            node, gpu = self._gpus[number]
            while (
                self._free[number] >= needs.gpus - _EPSILON
                and needs.fits(gpu.kind)
                and self._node_fits(node, needs)
            ):
                self._free[number] -= needs.gpus
                self._take(node, needs)
                placed.append(gpu)
        return placed

    def _node_fits(self, node: int, needs: Needs) -> bool:
        enough_cpus = self._cpus[node] >= needs.cpus - _EPSILON
        return enough_cpus and self._memory[node] >= needs.memory_gib - _EPSILON

    def _take(self, node: int, needs: Needs) -> None:
        self._cpus[node] -= needs.cpus
        self._memory[node] -= needs.memory_gib


def plan_capacity(
    hardware: Hardware, front: Sequence[Needs], training: Needs | None, portraits: int = 10**9
) -> Capacity:
    """Pool sizes for a cluster; never more workers of a kind than portraits.

    Raises ``ConfigError`` naming the stages that fit on no machine of it.
    """
    for needs in (*front, *((training,) if training else ())):
        if not _Board(hardware).place(needs):
            raise ConfigError(_does_not_fit(needs, hardware))
    best = _side_by_side(hardware, front, training, [1] * len(front), portraits)
    if best is None:
        return _in_turns(hardware, front, training, portraits)
    sizes = _first_guess(hardware, front, training, portraits)
    best = _side_by_side(hardware, front, training, sizes, portraits) or best
    best = _balanced(hardware, front, training, best, portraits)
    if training is None or portraits > _SIMULATED_PORTRAITS:
        return best
    return _for_few(hardware, front, training, best, portraits)


def _first_guess(
    hardware: Hardware, front: Sequence[Needs], training: Needs | None, portraits: int
) -> list[int]:
    """Front pools for most of the rate that the GPUs' whole time would allow."""
    load = sum(n.gpus * n.seconds for n in (*front, *((training,) if training else ())))
    rate = 0.9 * sum(gpu.speed for gpu in hardware.gpus) / load if load else 0.0
    return [max(1, min(portraits, int(rate * needs.seconds))) for needs in front]


def _balanced(
    hardware: Hardware,
    front: Sequence[Needs],
    training: Needs | None,
    best: Capacity,
    portraits: int,
) -> Capacity:
    """Enlarge the slowest front pool as long as the rate of the whole rises."""
    sizes = [pool.size for pool in best.front]
    while front:
        slowest = min(pool.rate for pool in best.front)
        if slowest >= (best.training.rate * FRONT_HEADROOM if best.training else math.inf):
            break
        # Equally slow pools grow together: one of them alone would change nothing.
        for number, pool in enumerate(best.front):
            if pool.rate <= slowest * (1 + _EPSILON):
                sizes[number] += 1 + sizes[number] // _GROWTH_DIVISOR
        if max(sizes) > portraits:
            break
        larger = _side_by_side(hardware, front, training, sizes, portraits)
        if larger is None or larger.rate < best.rate * (1 + _EPSILON):
            break
        best = larger
    return best


def _for_few(
    hardware: Hardware,
    front: Sequence[Needs],
    training: Needs,
    best: Capacity,
    portraits: int,
) -> Capacity:
    """The plan with the shortest run of so many portraits, front pools of several speeds tried."""
    shortest_s = best.seconds(portraits) * _WORTH_IT
    fed = best.training.rate if best.training else 0.0
    tried: set[tuple[int, ...]] = set()
    for factor in _FRONT_FACTORS:
        sizes = tuple(min(portraits, math.ceil(factor * fed * n.seconds - 1e-3)) for n in front)
        if sizes in tried:
            continue
        tried.add(sizes)
        plan = _side_by_side(hardware, front, training, [max(1, n) for n in sizes], portraits)
        if plan is not None and (seconds := plan.seconds(portraits)) < shortest_s:
            best, shortest_s = plan, seconds
    return best


def _side_by_side(
    hardware: Hardware,
    front: Sequence[Needs],
    training: Needs | None,
    sizes: Sequence[int],
    portraits: int,
) -> Capacity | None:
    """The front pools of these sizes and as many trainings as fit beside; None if none does."""
    board = _Board(hardware)
    placed: dict[int, list[Gpu]] = {}
    for number in sorted(range(len(front)), key=lambda n: -front[n].gpus):
        gpus = [board.place(front[number]) for _ in range(sizes[number])]
        if None in gpus:
            return None
        placed[number] = [gpu for gpu in gpus if gpu is not None]
    pools = tuple(_pool(needs, placed[number]) for number, needs in enumerate(front))
    if training is None:
        return Capacity(hardware, pools, None)
    slots = board.fill(training)[:portraits]
    if not slots:
        return None
    alone = len(_Board(hardware).fill(training))
    return Capacity(hardware, pools, _pool(training, slots), training_alone=alone)


def _in_turns(
    hardware: Hardware, front: Sequence[Needs], training: Needs | None, portraits: int
) -> Capacity:
    def alone(needs: Needs) -> Pool:
        return _pool(needs, _Board(hardware).fill(needs)[:portraits])

    return Capacity(
        hardware,
        tuple(alone(needs) for needs in front),
        alone(training) if training else None,
        takes_turns=True,
    )


def _pool(needs: Needs, gpus: Sequence[Gpu]) -> Pool:
    speed = sum(gpu.speed for gpu in gpus) if needs.gpus else float(len(gpus))
    return Pool(needs, len(gpus), speed / needs.seconds)


def _simulated(pool: Pool) -> SimulatedPool:
    return SimulatedPool(pool.size, pool.size / pool.rate)


def share_cores(
    hardware: Hardware,
    front: Sequence[Needs],
    training: Needs | None,
    sizes: tuple[int, int],
    threads: int,
) -> Capacity:
    """Pools of those sizes (front, trainings) that share one machine's cores as they come.

    Workers may outnumber the cores; each pool then gets cores in proportion to its work.
    """
    at_a_time = max(1.0, hardware.cpus / threads)
    work_s = sum(needs.seconds for needs in (*front, *((training,) if training else ())))

    def pool(needs: Needs, size: int) -> Pool:
        busy = min(size, at_a_time * needs.seconds / work_s)
        return Pool(needs, size, busy / needs.seconds)

    pools = tuple(pool(needs, sizes[0]) for needs in front)
    return Capacity(hardware, pools, pool(training, sizes[1]) if training else None)


def training_slots(hardware: Hardware, front: Sequence[Pool], training: Needs) -> int:
    """Trainings that can run beside these front pools on the cluster as it is now.

    Front workers that have no room any more (nodes were lost) are left out.
    """
    board = _Board(hardware)
    for pool in sorted(front, key=lambda pool: -pool.needs.gpus):
        for _ in range(pool.size):
            board.place(pool.needs)
    return len(board.fill(training))


def _does_not_fit(needs: Needs, hardware: Hardware) -> str:
    asked = [f"{needs.cpus:g} CPUs"]
    if needs.gpus:
        kinds = f" of {' or '.join(needs.kinds)}" if needs.kinds else ""
        asked.append(f"{needs.gpus:g} of a GPU{kinds}")
    if needs.memory_gib:
        asked.append(f"{needs.memory_gib:g} GiB of memory")
    plural = "s" if len(needs.stages) > 1 else ""
    return (
        f"stage{plural} {', '.join(needs.stages)}: no machine here has {', '.join(asked)} at a "
        f"time ({hardware.describe()}); lower run.stages.<name> or add machines"
    )
