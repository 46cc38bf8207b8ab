"""What a cluster consists of: nodes, their CPUs and memory, and GPUs by type."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from fc4d_ray.errors import ConfigError

GIB = 2**30
_TYPE_PREFIX = "accelerator_type:"


@dataclass(frozen=True)
class GpuType:
    """A kind of GPU as Ray names it (``ray.util.accelerators``)."""

    name: str
    memory_gib: float
    bandwidth_gb_s: float
    """Memory bandwidth by the vendor's data sheet: what sampling networks and splatting wait for
    most, hence our first guess of relative speed. Measured stage times replace the guess."""
    host_memory_gib: float
    """Per GPU, of a common cloud machine with enough CPUs for it; not checked against offers."""


GPU_TYPES: Mapping[str, GpuType] = {
    kind.name: kind
    for kind in (
        GpuType("T4", 16, 320, 48),
        GpuType("V100", 16, 900, 61),
        GpuType("L4", 24, 300, 48),
        GpuType("A10G", 24, 600, 48),
        GpuType("L40S", 48, 864, 96),
        GpuType("A100", 40, 1555, 85),
        GpuType("A100-80G", 80, 2039, 144),
        GpuType("H100", 80, 3350, 234),
        GpuType("H200", 141, 4800, 234),
        GpuType("B200", 180, 8000, 234),
    )
}
REFERENCE_GPU = "H100"
"""The configurations' expected times are for this type."""


@dataclass(frozen=True)
class Gpu:
    """One device. An unknown type has unknown memory and the reference's speed."""

    kind: str | None = None

    @property
    def memory_gib(self) -> float | None:
        """Memory, None where the type is not known."""
        known = GPU_TYPES.get(self.kind or "")
        return known.memory_gib if known else None

    @property
    def speed(self) -> float:
        """Relative to the reference type, guessed from memory bandwidth."""
        known = GPU_TYPES.get(self.kind or "")
        if known is None:
            return 1.0
        return known.bandwidth_gb_s / GPU_TYPES[REFERENCE_GPU].bandwidth_gb_s


@dataclass(frozen=True)
class Node:
    """One machine."""

    cpus: float
    memory_gib: float
    gpus: tuple[Gpu, ...] = ()


@dataclass(frozen=True)
class Hardware:
    """The machines of a cluster that are alive now."""

    nodes: tuple[Node, ...]

    @property
    def cpus(self) -> float:
        """All CPUs."""
        return sum(node.cpus for node in self.nodes)

    @property
    def gpus(self) -> tuple[Gpu, ...]:
        """All GPUs."""
        return tuple(gpu for node in self.nodes for gpu in node.gpus)

    @property
    def kinds(self) -> tuple[str, ...]:
        """GPU types present, unknown ones left out."""
        return tuple(sorted({gpu.kind for gpu in self.gpus if gpu.kind}))

    def describe(self) -> str:
        """One line for a person."""
        counts = Counter(gpu.kind or "GPU of unknown type" for gpu in self.gpus)
        gpus = " + ".join(f"{n}x {kind}" for kind, n in sorted(counts.items())) or "no GPU"
        plural = "" if len(self.nodes) == 1 else "s"
        return f"{len(self.nodes)} node{plural}, {self.cpus:g} CPUs, {gpus}"

    @classmethod
    def from_ray(cls, nodes: Iterable[Mapping[str, Any]]) -> Hardware:
        """From ``ray.nodes()``. Nodes without CPUs and GPUs (an idle head) are left out."""
        return cls(
            tuple(
                node
                for entry in nodes
                if entry.get("Alive") and (node := _node(entry)).cpus + len(node.gpus) > 0
            )
        )

    @classmethod
    def imagined(
        cls,
        gpus: Mapping[str, int],
        *,
        cpus_per_gpu: float = 12,
        memory_gib_per_gpu: float | None = None,
    ) -> Hardware:
        """A cluster on paper, one GPU per node, which shares like any other.

        Host memory is by default what clouds pair such a GPU with. Raises ``ConfigError`` for a
        type nobody knows.
        """
        nodes: list[Node] = []
        for kind, count in gpus.items():
            name = known_type(kind)
            memory_gib = memory_gib_per_gpu or GPU_TYPES[name].host_memory_gib
            nodes += [Node(cpus_per_gpu, memory_gib, (Gpu(name),))] * count
        return cls(tuple(nodes))


def known_type(name: str) -> str:
    """The type's name as Ray spells it. Raises ``ConfigError`` with the known ones."""
    found = {known.lower(): known for known in GPU_TYPES}.get(name.lower())
    if found is None:
        raise ConfigError(f"there is no GPU type {name!r} here; known are {', '.join(GPU_TYPES)}")
    return found


def _node(entry: Mapping[str, Any]) -> Node:
    resources: Mapping[str, float] = entry.get("Resources", {})
    kinds = [name.removeprefix(_TYPE_PREFIX) for name in resources if name.startswith(_TYPE_PREFIX)]
    # An A100 of 80 GB announces itself as A100 and as A100-80G; the longer name tells more.
    kind = max((k for k in kinds if k in GPU_TYPES), key=len, default=kinds[0] if kinds else None)
    gpus = int(resources.get("GPU", 0))
    return Node(
        cpus=float(resources.get("CPU", 0)),
        memory_gib=float(resources.get("memory", 0)) / GIB,
        gpus=(Gpu(kind),) * gpus,
    )
