"""What an embedded avatar has to reach, and who has to reach what.

A criterion that applies and could not be measured is not met: a face that nobody can find is no
success. One that does not apply (identity of a portrait in which dlib finds no face) has no
verdict.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

FRONTAL_LIMIT_DEG = 20.0
"""Portraits within this of frontal are held to the turned views, too."""

Applies = Literal["always", "face", "frontal", "turned"]


@dataclass(frozen=True)
class Criterion:
    """A bound on one figure of ``avatar_quality.summarise`` or of the run."""

    figure: str
    title: str
    bound: float
    sense: Literal["at most", "at least"]
    applies: Applies = "always"
    """``face``: dlib finds one in the portrait; ``frontal`` and ``turned`` portraits need that,
    too."""

    def concerns(self, summary: Mapping[str, Any]) -> bool:
        """Whether the criterion applies to a portrait."""
        if self.applies == "always":
            return True
        if not summary["portrait_has_face"]:
            return False
        frontal = abs(summary["azimuth_deg"]) <= FRONTAL_LIMIT_DEG
        return self.applies == "face" or frontal == (self.applies == "frontal")

    def verdict(self, summary: Mapping[str, Any]) -> bool | None:
        """Whether the figure is within its bound; None where the criterion does not apply."""
        if self.figure not in summary or not self.concerns(summary):
            return None
        value = summary[self.figure]
        if value is None:
            return False
        return bool(value <= self.bound if self.sense == "at most" else value >= self.bound)

    @property
    def rule(self) -> str:
        """The bound in one word: ``≤ 0.3``."""
        return f"{'≤' if self.sense == 'at most' else '≥'} {self.bound:g}"


CRITERIA: tuple[Criterion, ...] = (
    Criterion("id_0", "identity 0°", 0.30, "at most", "frontal"),
    Criterion("id_0", "identity 0°, turned portrait", 0.50, "at most", "turned"),
    Criterion("id_30", "identity ±30°", 0.50, "at most", "frontal"),
    Criterion("id_45", "identity ±45°", 0.60, "at most", "frontal"),
    Criterion("id_own", "identity, own angle", 0.30, "at most", "turned"),
    Criterion("faces_behind", "faces at 150–210°", 0, "at most"),
    Criterion("silhouette_iou", "silhouette IoU", 0.93, "at least"),
    Criterion("whole", "whole, worst of 24", 0.995, "at least"),
    Criterion("lips", "jaw opens, 0 and ±30°", 0.15, "at least"),
    Criterion("blink", "eyes shut, 0 and ±30°", 0.40, "at least"),
    Criterion("smile", "identity smiling, 0 and ±30°", 0.45, "at most", "face"),
    Criterion("focal", "focal length spread", 0.05, "at most", "face"),
    Criterion("peak_memory_gib", "peak memory, GiB", 4.0, "at most"),
)


def verdicts(summary: Mapping[str, Any]) -> dict[str, bool | None]:
    """Verdict by figure: that of the one criterion on it that applies, None if there is none."""
    found: dict[str, bool | None] = dict.fromkeys(criterion.figure for criterion in CRITERIA)
    for criterion in CRITERIA:
        verdict = criterion.verdict(summary)
        found[criterion.figure] = found[criterion.figure] if verdict is None else verdict
    return found


def missed(summary: Mapping[str, Any]) -> list[str]:
    """Titles of the criteria a portrait does not meet."""
    return [c.title for c in CRITERIA if c.verdict(summary) is False]
