"""A portrait on its way through the stages, and where it stands after a worker had it."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True)
class Portrait:
    """One portrait on its way through the stages; plain values only."""

    avatar_id: str
    source_uri: str
    generation: int = 0
    face_box: Any = None
    landmarks: Any = None
    columns: Mapping[str, Any] = field(default_factory=dict)
    """The input table's own columns; the avatar's published record repeats them."""


@dataclass(frozen=True)
class Outcome:
    """Where a portrait stands after a worker had it.

    ========== ==================================================================================
    status     what follows
    ========== ==================================================================================
    running    further stages
    succeeded  nothing; the record is written
    failed     nothing; the record is written
    returned   the front again, which works only on what is missing (an earlier stage's files were
               damaged, or nobody had begun)
    postponed  the same again, later: the storage is in trouble
    aborted    the run ends
    ========== ==================================================================================
    """

    portrait: Portrait
    status: str
    stage: str | None = None
    error_type: str | None = None
    error_message: str | None = None
    own_cpu_s: float = 0.0
    """CPU seconds the worker spent beside the stages' work."""
    start_cpu_s: float = 0.0
    """CPU seconds the worker's process needed to start, told once."""

    def to_text(self) -> str:
        """JSON, for a row."""
        return json.dumps(asdict(self))

    @classmethod
    def from_text(cls, text: str) -> Outcome:
        """Inverse of ``to_text``."""
        values = json.loads(text)
        return cls(**values | {"portrait": Portrait(**values["portrait"])})


Report = Callable[[str, str, str, float, str], None]
"""(avatar id, stage, event, number, text); events: started, progress, reused, done, failed."""


def ignore_report(avatar_id: str, stage: str, event: str, number: float, text: str) -> None:
    """A report that nobody reads."""
