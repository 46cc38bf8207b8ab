"""What a stage is: named files in, named files and a few facts out.

A stage knows its config section and local directories. It knows neither Ray nor the store: the
pipeline fetches inputs, gives an empty output directory, and commits it with a completion record.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

Facts = dict[str, Any]
"""Plain JSON values a stage reports; they travel in the row and the completion record."""


@dataclass(frozen=True)
class StageContext:
    """Everything one call of ``Stage.process`` may look at."""

    source: Path
    """The portrait's bytes, as they came."""
    inputs: Mapping[str, Path]
    """Directory of each required stage's files, read only."""
    output: Path
    """Empty directory; whatever is in it after ``process`` becomes the artifact."""
    config: Any
    """This stage's config section."""
    seed: int
    """Derived from (run seed, avatar_id, stage)."""
    row: Mapping[str, Any]
    """The input row: ``avatar_id``, ``source_uri``, ``face_box``, ``landmarks``, user columns."""
    facts: Mapping[str, Facts] = field(default_factory=dict)
    """Facts reported by the earlier stages, by stage name."""
    checkpoint: Path | None = None
    """Directory kept across attempts of this very work; None where nothing is kept."""
    progress: Callable[[float, str], None] = lambda fraction, message: None
    """Report of the fraction done, with a short text."""


class Stage(Protocol):
    """One step of the pipeline. Instances are made once per worker."""

    name: str
    requires: tuple[str, ...]
    """Names of the stages whose files ``process`` reads."""
    version: str
    """Changes whenever the same inputs would give other files."""

    def weights_digest(self, config: Any) -> str:
        """Digest of every model file that shapes the result."""

    def setup(self, config: Any) -> None:
        """Load models; called once per worker, before the first ``process``."""

    def process(self, context: StageContext) -> Facts:
        """Do the work of one portrait.

        Raises ``InputError`` for a portrait that cannot be used and ``StageFailed`` where the
        work itself gave no usable result.
        """
