"""One typed configuration composed from the rooms' own dataclasses.

A configuration is a YAML file with a section per stage and a ``run`` section. It is laid over the
profile it names as ``base`` (``embedded`` if it names none; ``none`` stands for the dataclasses'
own defaults), and ``--set a.b=c`` replaces single values. Every mistake is reported with option,
value, place, and the nearest valid name.
"""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal

from fc4d_ray.config_source import DEFAULT_REGISTRY, NO_BASE, ConfigSource
from fc4d_ray.errors import ConfigError
from fc4d_ray.stages import REGISTRY, StageEntry, StageVariant, load
from fc4d_ray.store.digests import digest_json


@dataclass(frozen=True)
class StageResources:
    """What one stage needs of a machine, and how long it takes; shapes no result."""

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    gpus: float | None = None
    """Share of one GPU; None takes it from gpu_memory_gib, 0 without that."""
    gpu_memory_gib: float = 0.0
    """GPU memory at its peak; no GPU that is smaller is used for the stage."""
    cpus: float | None = None
    """CPUs set aside for each worker; None takes run.threads or 1, and 0 beside a GPU."""
    memory_gib: float = 0.0
    """Main memory at its peak, set aside for each worker."""
    seconds: float | None = None
    """Expected time per portrait, until a run has measured it; for the planner."""
    deadline_minutes: float | None = None
    """Longest time on one portrait; None takes run.deadline_minutes."""

    def check(self, option: str) -> None:
        """Raise ``ConfigError`` for impossible values; ``option`` is the section's name."""

        def require(condition: bool, name: str, rule: str) -> None:
            if not condition:
                raise ConfigError(f"{option}.{name} must be {rule}, found {getattr(self, name)!r}")

        require(self.gpus is None or 0 <= self.gpus <= 1, "gpus", "a share of one GPU, in 0..1")
        require(self.gpu_memory_gib >= 0, "gpu_memory_gib", "0 or more")
        require(self.cpus is None or self.cpus >= 0, "cpus", "0 or more")
        require(self.memory_gib >= 0, "memory_gib", "0 or more")
        require(self.seconds is None or self.seconds > 0, "seconds", "positive")
        minutes = self.deadline_minutes
        require(minutes is None or minutes > 0, "deadline_minutes", "positive")

    @property
    def uses_gpu(self) -> bool:
        """Whether the stage asks for a share of a GPU."""
        return self.gpus > 0 if self.gpus is not None else self.gpu_memory_gib > 0


_NO_NEEDS = StageResources()


@dataclass(frozen=True)
class RunSettings:
    """How the work is spread; nothing here but ``seed`` changes the results' bytes on purpose."""

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    seed: int = 0
    """Root of every random number; a stage's seed follows from it, the avatar's id and its name."""
    runner: Literal["ray", "local"] = "ray"
    """``ray`` spreads the work over processes; ``local`` does it in this one, for debugging."""
    ray_address: str | None = None
    """A running cluster to join (``auto`` or host:port); None starts one on loopback."""
    workers: int = 0
    """Portraits worked on at a time; 0 chooses from portraits, cores and memory."""
    threads: int = 0
    """Threads per worker; 0 shares the cores among the workers."""
    worker_memory_gib: float = 4.0
    """Memory set aside per worker when their number is chosen."""
    stages: Mapping[str, StageResources] = field(default_factory=dict)
    """What each stage needs, by its name: GPU share and memory, time, deadline."""
    front_groups: tuple[tuple[str, ...], ...] = ()
    """Front stages that share a worker, in order; empty gives every stage with a GPU share a worker
    of its own and lets the CPU stages between them share one."""
    front_portraits: int = 512
    """Portraits handed to the front stages at a time."""
    wait_for_machines_minutes: float = 0.0
    """How long to wait for a cluster's machines where a stage has no place on those that are there;
    for clusters that grow on demand."""
    training_reserve: int = 1
    """Trainings handed to Ray beyond those that can run now, so that no slot waits."""
    deadline_minutes: float = 360.0
    """A portrait on which a stage takes longer fails; stages.<name>.deadline_minutes overrides."""
    progress_interval_s: float = 10.0
    """Seconds between updates of the progress document and the provisional manifest."""
    keep: Literal["all", "avatar", "minimal"] = "all"
    """What stays of a finished avatar: every stage's files, those of the training stages, or only
    what is published."""
    delta_table: str | None = None
    """Delta table that gets a row for every end while the run goes on (extra ``delta``)."""

    def __post_init__(self) -> None:
        def require(condition: bool, option: str, rule: str) -> None:
            if not condition:
                raise ConfigError(f"run.{option} must be {rule}, found {getattr(self, option)!r}")

        require(self.workers >= 0, "workers", "0 or more")
        require(self.threads >= 0, "threads", "0 or more")
        require(self.worker_memory_gib > 0, "worker_memory_gib", "positive")
        require(self.front_portraits >= 1, "front_portraits", "1 or more")
        require(self.training_reserve >= 0, "training_reserve", "0 or more")
        require(self.wait_for_machines_minutes >= 0, "wait_for_machines_minutes", "0 or more")
        require(self.deadline_minutes > 0, "deadline_minutes", "positive")
        require(self.progress_interval_s > 0, "progress_interval_s", "positive")
        for name, stage in self.stages.items():
            stage.check(f"run.stages.{name}")

    def needs(self, stage: str) -> StageResources:
        """What a stage needs; nothing in particular where the configuration says nothing."""
        return self.stages.get(stage, _NO_NEEDS)

    def deadline_s(self, stage: str) -> float:
        """Longest time of a stage on one portrait."""
        own = self.needs(stage).deadline_minutes
        return 60 * (self.deadline_minutes if own is None else own)


@dataclass(frozen=True)
class Section:
    """A stage's part of the configuration, with the variant it chose."""

    entry: StageEntry
    variant_name: str
    config: Any
    """Instance of the variant's config dataclass."""

    @property
    def variant(self) -> StageVariant:
        """Dotted paths of the chosen variant."""
        return self.entry.variants[self.variant_name]

    def to_plain(self) -> dict[str, Any]:
        """Plain values as they stand in YAML."""
        values = to_plain(self.config)
        return {"name": self.variant_name} | values if self.entry.is_choosable else values

    @property
    def digest(self) -> str:
        """Digest of the section, its variant included."""
        return digest_json([self.entry.name, self.variant_name, to_plain(self.config)])


@dataclass(frozen=True)
class RunConfig:
    """The whole configuration of a run, resolved: every option has its value."""

    run: RunSettings
    sections: tuple[Section, ...]
    registry: str = DEFAULT_REGISTRY
    origin: str = field(default="defaults", compare=False)
    """Where the values came from, for messages."""

    def section(self, name: str) -> Section:
        """Section of one stage; ``ConfigError`` where there is no such stage."""
        for section in self.sections:
            if section.entry.name == name:
                return section
        raise ConfigError(f"there is no stage {name!r}" + _did_you_mean(name, self.stage_names))

    @property
    def stage_names(self) -> tuple[str, ...]:
        """Names of the stages in order."""
        return tuple(section.entry.name for section in self.sections)

    def to_plain(self) -> dict[str, Any]:
        """Plain values, as ``load_config`` reads them."""
        plain: dict[str, Any] = {"base": NO_BASE}
        if self.registry != DEFAULT_REGISTRY:
            plain["registry"] = self.registry
        plain["run"] = to_plain(self.run)
        return plain | {section.entry.name: section.to_plain() for section in self.sections}

    def to_yaml(self) -> str:
        """The resolved configuration as a file that reproduces it."""
        import yaml

        return yaml.safe_dump(self.to_plain(), sort_keys=False, allow_unicode=True)

    @property
    def digest(self) -> str:
        """Digest of everything that shapes results: the seed and the stages' sections."""
        return digest_json(
            {"seed": self.run.seed, "sections": [section.digest for section in self.sections]}
        )


def to_plain(value: Any) -> Any:
    """Dataclasses, tuples, mappings, paths and enums as YAML's and JSON's own types."""
    import enum

    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: to_plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): to_plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        items = [to_plain(item) for item in value]
        return sorted(items) if isinstance(value, (set, frozenset)) else items
    if isinstance(value, enum.Enum):
        return to_plain(value.value)
    if isinstance(value, Path):
        return str(value)
    if value is None or isinstance(value, (str, int, float, bool)):
        return value
    raise ConfigError(f"a configuration cannot hold a {type(value).__name__}: {value!r}")


def load_config(
    path: str | Path | None = None,
    overrides: Sequence[str] = (),
    values: Mapping[str, Any] | None = None,
) -> RunConfig:
    """Read, override, validate.

    ``path``: YAML file or name of a profile, None for the embedded one.
    ``overrides``: ``a.b=c`` with c in YAML's notation.
    ``values``: nested plain values laid over the file's before the overrides.
    Raises ``ConfigError`` naming the option and, for values of a file, its line.
    """
    source = ConfigSource.parse("", "defaults") if path is None else ConfigSource.read(path)
    if values:
        source.merge(values)
    for override in overrides:
        source.override(override)
    return _resolve(source)


def parse_config(text: str, origin: str = "configuration") -> RunConfig:
    """A configuration from YAML text, such as the one stored beside an output."""
    return _resolve(ConfigSource.parse(text, origin))


def _resolve(source: ConfigSource) -> RunConfig:
    source = source.with_base()
    registry_path = source.values.get("registry", DEFAULT_REGISTRY)
    registry = _registry(registry_path, source)
    known = ("base", "registry", "run", *(entry.name for entry in registry))
    for key in source.values:
        if key not in known:
            raise ConfigError(
                f"{source.where((key,))}: there is no section {key!r}" + _did_you_mean(key, known)
            )
    run = _validated(RunSettings, source.section("run"), ("run",), source)
    names = tuple(entry.name for entry in registry)
    for name in run.stages:
        if name not in names:
            place = source.where(("run", "stages", name))
            raise ConfigError(f"{place}: there is no stage {name!r}" + _did_you_mean(name, names))
    return RunConfig(
        run=run,
        sections=tuple(_section(entry, source) for entry in registry),
        registry=str(registry_path),
        origin=source.origin,
    )


def _registry(path: Any, source: ConfigSource) -> tuple[StageEntry, ...]:
    if path == DEFAULT_REGISTRY:
        return REGISTRY
    try:
        registry = tuple(load(str(path)))
    except (ImportError, AttributeError, ValueError, TypeError) as error:
        raise ConfigError(
            f"{source.where(('registry',))}: registry {path!r} cannot be loaded: {error}"
        ) from error
    if not registry or not all(isinstance(entry, StageEntry) for entry in registry):
        raise ConfigError(f"{source.where(('registry',))}: {path!r} holds no stage entries")
    return registry


def _section(entry: StageEntry, source: ConfigSource) -> Section:
    values = dict(source.section(entry.name))
    variant_name = entry.default
    if entry.is_choosable:
        variant_name = values.pop("name", entry.default)
        if variant_name not in entry.variants:
            raise ConfigError(
                f"{source.where((entry.name, 'name'))}: {entry.name}.name must be one of "
                f"{', '.join(entry.variants)}, found {variant_name!r}"
                + _did_you_mean(str(variant_name), tuple(entry.variants))
            )
    config_class = load(entry.variants[variant_name].config)
    return Section(entry, variant_name, _validated(config_class, values, (entry.name,), source))


def _validated(
    config_class: type, values: Any, prefix: tuple[str, ...], source: ConfigSource
) -> Any:
    """Instance of a config dataclass; pydantic checks names and types."""
    from pydantic import TypeAdapter, ValidationError

    try:
        return TypeAdapter(config_class).validate_python(values)
    except ConfigError as error:
        place = source.where(_named_option(str(error)))
        raise ConfigError(f"{place}: {error}") from error
    except ValidationError as error:
        problems = [_problem(p, config_class, prefix, source) for p in error.errors()]
        raise ConfigError("\n".join(problems)) from error


def _named_option(message: str) -> tuple[str, ...]:
    """The option a dataclass's own message begins with, such as ``train.sh_degree``."""
    return tuple(message.split(" ", 1)[0].rstrip(":").split("."))


def _problem(
    problem: Mapping[str, Any], config_class: type, prefix: tuple[str, ...], source: ConfigSource
) -> str:
    location = (*prefix, *(part for part in problem["loc"]))
    option = ".".join(str(part) for part in location)
    where = source.where(location)
    if problem["type"] in ("unexpected_keyword_argument", "extra_forbidden"):
        names = _field_names(config_class, problem["loc"][:-1])
        return f"{where}: there is no option {option}" + _did_you_mean(str(location[-1]), names)
    if problem["type"] == "dataclass_type":
        return f"{where}: {option} must be a section with options, found {problem['input']!r}"
    return f"{where}: {option}: {problem['msg']}, found {problem['input']!r}"


def _field_names(config_class: type, location: Sequence[Any]) -> tuple[str, ...]:
    """Option names of the (possibly nested) dataclass a problem was found in."""
    import typing

    current: Any = config_class
    for part in location:
        if typing.get_origin(current) is Mapping:
            current = typing.get_args(current)[1]
            continue
        hints = typing.get_type_hints(current) if dataclasses.is_dataclass(current) else {}
        current = hints.get(part, current)
    if not dataclasses.is_dataclass(current):
        return ()
    return tuple(f.name for f in dataclasses.fields(current))


def _did_you_mean(name: str, valid: Sequence[str]) -> str:
    close = difflib.get_close_matches(name, valid, n=1, cutoff=0.5)
    if close:
        return f"; did you mean {close[0]!r}?"
    return f"; valid are: {', '.join(valid)}" if valid else ""
