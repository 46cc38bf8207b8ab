"""``fc4d plan``: what a run will take, before there is a cluster."""

from __future__ import annotations

from typing import Annotated

import typer

from fc4d_ray.cli.console import exit_codes, say
from fc4d_ray.cli.runs import ConfigFile, Overrides

_DEFAULT_TYPE = "H100"

What = Annotated[
    list[str],
    typer.Argument(
        metavar="INPUTS_OR_COUNT...", help="How many portraits, or the inputs that hold them."
    ),
]
Gpus = Annotated[
    list[int] | None,
    typer.Option("--gpus", help="Number of GPUs; repeat with --gpu-type for a mixed cluster."),
]
GpuTypes = Annotated[
    list[str] | None, typer.Option("--gpu-type", help="Their type, such as H100, A100-80G, L4.")
]
Price = Annotated[
    float | None, typer.Option("--price", help="Price of a GPU-hour, in any currency.")
]
Measured = Annotated[
    str | None, typer.Option("--measured", help="Output of earlier runs; its stage times count.")
]


def plan(
    what: What,
    gpus: Gpus = None,
    gpu_type: GpuTypes = None,
    price: Price = None,
    measured: Measured = None,
    config: ConfigFile = None,
    overrides: Overrides = None,
) -> None:
    """Tell pools, rate, bottleneck, time and GPU-hours per avatar; no cluster is needed.

    Without --gpus for this machine's CPUs. Refuses, by the stage's name, what no machine can do.
    """
    with exit_codes():
        from fc4d_ray.config import load_config
        from fc4d_ray.pipeline.prospect import forecast_on_paper

        forecast = forecast_on_paper(
            load_config(config, overrides or ()),
            _count(what),
            _machines(gpus or [], gpu_type or []),
            measured_in=measured,
            price_per_gpu_hour=price,
        )
    for line in forecast.lines():
        say(line)


def _count(what: list[str]) -> int:
    if len(what) == 1 and what[0].isdecimal():
        return int(what[0])
    from fc4d_ray.pipeline.inputs import count_inputs

    return count_inputs(what)


def _machines(gpus: list[int], types: list[str]) -> dict[str, int]:
    from fc4d_ray.errors import ConfigError
    from fc4d_ray.pipeline.hardware import known_type

    if types and len(types) != len(gpus):
        raise ConfigError(f"{len(types)} --gpu-type for {len(gpus)} --gpus: give them in pairs")
    if any(count < 1 for count in gpus):
        raise ConfigError(f"--gpus must be 1 or more, found {min(gpus)}")
    machines: dict[str, int] = {}
    for count, kind in zip(gpus, types or [_DEFAULT_TYPE] * len(gpus), strict=True):
        name = known_type(kind)
        machines[name] = machines.get(name, 0) + count
    return machines
