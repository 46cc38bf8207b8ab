"""A capacity plan for people: pools, rate, bottleneck, finish time, cost."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from fc4d_ray.pipeline.capacity import Capacity, Pool
from fc4d_ray.pipeline.needs import Cost
from fc4d_ray.pipeline.report import format_duration


@dataclass(frozen=True)
class Forecast:
    """What a run of so many portraits will take."""

    capacity: Capacity
    portraits: int
    costs: Mapping[str, Cost]
    price_per_gpu_hour: float | None = None

    @property
    def seconds(self) -> float:
        """Expected wall time."""
        return self.capacity.seconds(self.portraits)

    @property
    def gpu_hours_worked(self) -> float:
        """GPU share times time of one portrait's stages."""
        return self.capacity.gpu_seconds() / 3600

    @property
    def gpu_hours_paid(self) -> float:
        """GPU-hours the cluster stands there for, per portrait."""
        gpus = len(self.capacity.hardware.gpus)
        return gpus * self.seconds / 3600 / self.portraits if self.portraits else 0.0

    def lines(self) -> list[str]:
        """The plan as text."""
        capacity = self.capacity
        lines = [f"cluster     {capacity.hardware.describe()}"]
        width = max(len(pool.needs.name) for pool in capacity.pools)
        for pool in capacity.pools:
            lines.append(self._pool_line(pool, width))
        if capacity.takes_turns:
            lines.append(
                "            not all of these fit beside each other: they take turns, each with "
                "the whole cluster"
            )
        lines.append(self._rate_line())
        lines.append(f"time        {format_duration(self.seconds)} for {self.portraits} portraits")
        if capacity.hardware.gpus:
            lines += self._gpu_lines()
        origins = {cost.origin for cost in self.costs.values()}
        if origins != {"measured"}:
            names = [f"{n} ({c.origin})" for n, c in self.costs.items() if c.origin != "measured"]
            lines.append(f"times       not measured here yet: {', '.join(names)}")
        return lines

    def _rate_line(self) -> str:
        bottleneck = self.capacity.bottleneck.needs.name
        if not self.portraits:
            return f"rate        {_rate(self.capacity.rate)}, bottleneck {bottleneck}"
        average = self.portraits / self.seconds
        return f"rate        {_rate(average)} from start to end, bottleneck {bottleneck}"

    def _pool_line(self, pool: Pool, width: int) -> str:
        needs = pool.needs
        kind = "slots" if pool is self.capacity.training else "workers"
        each = f"{needs.gpus:g} GPU each" if needs.gpus else f"{needs.cpus:g} CPU each"
        parts = [f"{pool.size:>4} {kind:<7} {each}"]
        alone = min(self.capacity.training_alone, self.portraits)
        if pool is self.capacity.training and alone > pool.size:
            parts.append(f"{alone} of them once the front is through")
        if needs.kinds:
            parts.append(f"on {', '.join(needs.kinds)}")
        parts.append(f"{format_duration(needs.seconds)} a portrait, {_rate(pool.rate)}")
        return f"{needs.name:<{max(11, width)}} {', '.join(parts)}"

    def _gpu_lines(self) -> list[str]:
        lines = [
            f"GPU-hours   {self.gpu_hours_worked:.2f} worked, {self.gpu_hours_paid:.2f} paid "
            "per avatar"
        ]
        if self.price_per_gpu_hour is not None:
            each = self.gpu_hours_paid * self.price_per_gpu_hour
            lines.append(f"cost        {each:.2f} per avatar, {each * self.portraits:.2f} in all")
        return lines


def _rate(per_second: float) -> str:
    return f"{per_second * 3600:.3g} portraits/h"
