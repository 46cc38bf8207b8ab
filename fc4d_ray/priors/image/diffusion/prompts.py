"""Text conditions: the portrait's own sentence, or a neutral one, and a phrase for the view.

People's attributes are sensitive: the sentence comes from the user's table or from the template
and is never guessed from the picture.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from fc4d_ray.errors import ConfigError, InvalidAnnotation

_VIEW_PHRASES = (
    (30.0, "facing camera"),
    (65.0, "three-quarter view"),
    (115.0, "side profile view"),
    (180.0, "seen from behind, back of the head"),
)
"""Up to which turn from facing the camera, in degrees, which phrase holds."""


@dataclass(frozen=True)
class PromptConfig:
    """Text conditions."""

    __pydantic_config__: ClassVar = {"extra": "forbid"}

    column: str = "prompt"
    """Column of the input table with a sentence per portrait; may be absent or empty."""
    template: str = "closeup portrait shot of a person, a plain white wall, extremely detailed"
    """The sentence of portraits whose column is empty."""
    negative: str = ""
    """What guidance leads away from."""
    view_phrases: bool = True
    """Whether a phrase for the view's azimuth follows."""

    def __post_init__(self) -> None:
        if not self.column:
            raise ConfigError("image.prompt.column must name a column")


def portrait_sentence(row: Mapping[str, Any], config: PromptConfig) -> str:
    """The portrait's sentence; null, NaN, an empty text or no such column give the template.

    Raises ``InvalidAnnotation`` for a value that is no text.
    """
    value = row.get(config.column)
    if value is None or (isinstance(value, float) and value != value):
        return config.template
    if not isinstance(value, str):
        raise InvalidAnnotation(
            f"column {config.column!r} must hold text or null, found {type(value).__name__}: "
            f"{value!r}"
        )
    return value.strip() or config.template


def view_prompt(sentence: str, azimuth_deg: float, config: PromptConfig) -> str:
    """The condition of one view; inversion and denoising get the same."""
    if not config.view_phrases:
        return sentence
    turn = abs((azimuth_deg + 180.0) % 360.0 - 180.0)
    phrase = next(phrase for limit, phrase in _VIEW_PHRASES if turn <= limit)
    return f"{sentence}, {phrase}"
