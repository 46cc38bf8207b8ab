"""What a run does to every portrait: stages, configs, weights, versions, and their digest."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from fc4d_ray.config import RunConfig
from fc4d_ray.errors import ConfigError
from fc4d_ray.stages import load
from fc4d_ray.store.digests import digest_json
from fc4d_ray.store.retention import Keep, dispensable


@dataclass(frozen=True)
class StagePlan:
    """One stage as this run does it."""

    name: str
    stage_path: str
    """``package.module:Class``; workers make their own instance."""
    part: str
    """``front`` or ``training``."""
    requires: tuple[str, ...]
    version: str
    weights_digest: str
    config: Any
    config_plain: Any
    """The section as plain values, for records."""
    section_digest: str
    deadline_s: float = math.inf
    """Longest time on one portrait; shapes no result."""

    @property
    def digest(self) -> str:
        """Covers all that, besides the portrait and the seed, shapes the stage's result."""
        return digest_json(
            [self.name, self.version, self.weights_digest, self.section_digest, self.requires]
        )


@dataclass(frozen=True)
class Plan:
    """The stages of a run in order; travels to every worker."""

    stages: tuple[StagePlan, ...]
    seed: int
    config_digest: str
    dispensable: tuple[str, ...] = ()
    """Stages whose files go when their avatar is finished; shapes no result."""

    @property
    def base(self) -> str:
        """Digest of the plan without the portrait."""
        return digest_json([self.seed, [stage.digest for stage in self.stages]])

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the stages in order."""
        return tuple(stage.name for stage in self.stages)

    def part(self, part: str) -> tuple[StagePlan, ...]:
        """The stages of one part, in order."""
        return tuple(stage for stage in self.stages if stage.part == part)

    def upstream(self, name: str) -> tuple[str, ...]:
        """All stages a stage's result depends on, in order."""
        by_name = {stage.name: stage for stage in self.stages}
        found: set[str] = set()
        waiting = list(by_name[name].requires)
        while waiting:
            required = waiting.pop()
            if required not in found:
                found.add(required)
                waiting.extend(by_name[required].requires)
        return tuple(stage.name for stage in self.stages if stage.name in found)


def make_plan(config: RunConfig) -> Plan:
    """Import the stages and digest their weights.

    Raises ``WeightsMissing`` where a chosen stage lacks its model files, and ``ConfigError`` where
    the stages do not fit together; both before any work.
    """
    stages: list[StagePlan] = []
    for section in config.sections:
        entry = section.entry
        try:
            stage = load(section.variant.stage)()
        except (ImportError, AttributeError) as error:
            raise ConfigError(
                f"stage {entry.name} ({section.variant.stage}) cannot be loaded: {error}"
            ) from error
        missing = [name for name in stage.requires if name not in {s.name for s in stages}]
        if missing:
            raise ConfigError(
                f"stage {entry.name} needs {', '.join(missing)}, which does not come before it"
            )
        stages.append(
            StagePlan(
                name=entry.name,
                stage_path=section.variant.stage,
                part=entry.part,
                requires=tuple(stage.requires),
                version=str(stage.version),
                weights_digest=stage.weights_digest(section.config),
                config=section.config,
                config_plain=section.to_plain(),
                section_digest=section.digest,
                deadline_s=config.run.deadline_s(entry.name),
            )
        )
    parts = [stage.part for stage in stages]
    if parts != sorted(parts, key=("front", "training").index):
        raise ConfigError("front stages must come before training stages")
    names = [stage.name for stage in stages]
    training = [stage.name for stage in stages if stage.part == "training"]
    return Plan(
        stages=tuple(stages),
        seed=config.run.seed,
        config_digest=config.digest,
        dispensable=dispensable(Keep(config.run.keep), names, training),
    )
